// The table of features: rows come from the server, arrow keys move the selection, and "/" goes to the search.
(function () {
  "use strict";

  const GRID = "features-grid";

  function apiOf(id) {
    try {
      const api = window.dash_ag_grid.getApi(id);
      return api && !api.isDestroyed() ? api : null;
    } catch (error) {
      return null; // not drawn yet
    }
  }

  // Resolves when the table has `count` rows or more, or node `id`; the table may still be drawn, or wait for rows.
  function whenever(test, tries) {
    return new Promise((resolve) => {
      const look = (left) => {
        const api = apiOf(GRID);
        if (api && test(api)) {
          resolve(api);
        } else if (left) {
          requestAnimationFrame(() => look(left - 1));
        } else {
          resolve(null);
        }
      };
      look(tries);
    });
  }

  const VIEWS = ["map", "training"]; // besides the table, as in feature_address.py
  const MOST_CORNERS = 100; // of a lasso; see feature_browser.py

  const ends = (range) => {
    const sorted = (pair) => [Math.min(...pair), Math.max(...pair)];
    return range && range.x && range.y ? [...sorted(range.x), ...sorted(range.y)] : null;
  };
  const corners = (points) => {
    if (!points || points.x.length < 3) {
      return null;
    }
    const each = Math.ceil(points.x.length / MOST_CORNERS);
    return points.x.flatMap((x, place) => (place % each ? [] : [x, points.y[place]]));
  };

  const selection = (search) => {
    const query = new URLSearchParams(search);
    return ["set", "value", "against", "area"].map((name) => query.get(name) || "").join("\n");
  };
  let chosen = selection(location.search); // what the address chooses of the features
  let shownSae = null; // the autoencoder in the last address
  let told = null; // the last answer of the server on where the table has the feature that the card shows
  let wanted = null; // the row to show last: an earlier one that still waits gives up
  let sent = []; // the addresses of rows that were selected in the table, which need not be shown there

  // The address with some of its parts changed; empty ones are left out.
  function changed(parts) {
    const query = new URLSearchParams(location.search);
    Object.entries(parts).forEach(([name, value]) => (value ? query.set(name, value) : query.delete(name)));
    const isSame = query.toString() === new URLSearchParams(location.search).toString();
    return isSame ? window.dash_clientside.no_update : "?" + query.toString();
  }

  // As `is_comparable` in feature_ranking.py: two values of one concept.
  const conceptOf = (value) => (value || "").split("=")[0];
  const isComparable = (value, against) => value && value !== against && conceptOf(value) === conceptOf(against);

  async function show(place) {
    wanted = place;
    const isOld = () => wanted !== place;
    if (place.row === null) {
      const api = apiOf(GRID);
      if (api) {
        api.deselectAll();
      }
      return;
    }
    const isSelected = (api) => api.getSelectedRows().some((row) => row.id === place.feature);
    let api = apiOf(GRID);
    if (api && isSelected(api)) {
      return;
    }
    api = await whenever((one) => isOld() || one.getDisplayedRowCount() > place.row, 600);
    if (!api || isOld()) {
      return;
    }
    api.ensureIndexVisible(place.row, "middle");
    api = await whenever((one) => isOld() || one.getRowNode(place.feature), 600);
    if (api && !isOld()) {
      api.getRowNode(place.feature).setSelected(true, true, "api");
    }
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.features = {
    // Ask for the rows again, because something that is not in the table's header has changed.
    refresh: function () {
      const api = apiOf(GRID);
      if (api) {
        api.purgeInfiniteCache();
      }
      return window.dash_clientside.no_update;
    },
    // Ask for the rows again if the address chooses others.
    chosen: function (search) {
      const now = selection(search || "");
      const api = apiOf(GRID);
      if (api && now !== chosen) {
        api.purgeInfiniteCache();
      }
      chosen = now;
      return window.dash_clientside.no_update;
    },
    // A row that is selected becomes part of the address, and the card shows its feature.
    selected: function (rows, sae) {
      const row = Array.isArray(rows) && rows[0];
      const query = new URLSearchParams(location.search);
      if (!row || query.get("feature") === row.id) {
        return window.dash_clientside.no_update;
      }
      query.set("sae", sae);
      query.set("feature", row.id);
      wanted = null;
      sent.push("?" + query.toString());
      return "?" + query.toString();
    },
    // The address, if it asks for something else than before, besides a feature.
    view: function (search) {
      const [host, query] = [document.getElementById("features-sought"), new URLSearchParams(search || "")];
      query.delete("feature");
      const [before, now] = [host.viewed, query.toString()];
      host.viewed = now;
      return before === undefined || before === now ? window.dash_clientside.no_update : search;
    },
    // The address, once the card that it asks for has been drawn.
    shown: async function () {
      if (!new URLSearchParams(location.search).get("feature")) {
        return window.dash_clientside.no_update;
      }
      const frame = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
      await frame();
      await frame();
      return location.search;
    },
    // What is chosen above the table becomes part of the address.
    autoencoder: function (sae, offered) {
      const asked = new URLSearchParams(location.search).get("sae");
      const now = [asked, offered.length && offered[0].value].find((name) => offered.some((one) => one.value === name));
      return !sae || sae === now ? window.dash_clientside.no_update : changed({ sae, feature: "" });
    },
    tab: function (view) {
      const now = new URLSearchParams(location.search).get("view");
      const isShown = view === (VIEWS.includes(now) ? now : "table");
      return isShown ? window.dash_clientside.no_update : changed({ view: view === "table" ? "" : view });
    },
    rows: function (set, value, against) {
      const query = new URLSearchParams(location.search);
      const isInAddress = Object.entries({ set, value, against }).every(([name, one]) => (query.get(name) || "") === (one || ""));
      if (isInAddress) {
        return window.dash_clientside.no_update; // also values that cannot be compared: a remark names them
      }
      return changed({ set, value, against: isComparable(value, against) ? against : "" });
    },
    all: function (clicks) {
      return clicks ? changed({ area: "" }) : window.dash_clientside.no_update;
    },
    // What the address asks for, if the table does not show it as selected. While keys repeat, the table is ahead of it.
    sought: function (search) {
      const place = sent.indexOf(search);
      sent = place < 0 ? [] : sent.slice(place + 1);
      if (place >= 0) {
        shownSae = new URLSearchParams(search).get("sae");
        return window.dash_clientside.no_update;
      }
      const query = new URLSearchParams(search || "");
      const [feature, sae, api] = [query.get("feature"), query.get("sae"), apiOf(GRID)];
      const isShown = feature && sae === shownSae && api && api.getSelectedRows().some((row) => row.id === feature);
      shownSae = sae;
      if (!feature) {
        show({ feature: null, row: null });
      }
      return isShown || !feature ? window.dash_clientside.no_update : search;
    },
    // A box or lasso on the map becomes part of the address, and the table shows the features in it.
    brushed: function (selected) {
      const area = selected && (corners(selected.lassoPoints) || ends(selected.range));
      if (!area) {
        return window.dash_clientside.no_update;
      }
      const query = new URLSearchParams(location.search);
      query.set("area", area.map((end) => Number(end.toPrecision(4))).join(","));
      query.delete("view");
      return "?" + query.toString();
    },
    // Ask for the rows in view again, because something that they show was written.
    renew: function (...read) {
      const api = apiOf(GRID);
      if (api && read.flat().some((one) => one && one.saved)) {
        api.refreshInfiniteCache();
      }
      return window.dash_clientside.no_update;
    },
    // A sentence if the table does not show the feature that the card shows.
    outside: function (search, ...found) {
      const feature = new URLSearchParams(search || "").get("feature");
      const triggers = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id);
      const places = ["features-place.data", "features-among.data"];
      told = places.reduce((last, name, at) => (triggers.includes(name) && found[at]) || last, told);
      const isOutside = feature && told && told.feature === feature && told.row === null;
      return isOutside ? ` Feature ${feature}, which the card shows, is not among them.` : "";
    },
    place: function (place) {
      if (place) {
        show(place);
      }
      return window.dash_clientside.no_update;
    },
  };

  window.dashAgGridFunctions = window.dashAgGridFunctions || {};
  window.dashAgGridFunctions.selectFocused = function (params) {
    const node = params.rowIndex === null ? null : params.api.getDisplayedRowAtIndex(params.rowIndex);
    if (node && node.data && !node.isSelected()) {
      node.setSelected(true, true, "keyboardSelectRow");
    }
  };

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest && event.target.closest("input, textarea, select, [contenteditable]");
    const search = document.querySelector("[data-search] input, input[data-search]");
    if (event.key === "/" && search && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });
})();
