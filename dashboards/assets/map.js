// Maps and plots by keyboard: a graph is one tab stop, arrow keys move a cursor over its cells or points, Enter selects.
(function () {
  "use strict";

  const READ_MS = 90; // until Plotly has drawn the label of a cell
  const HELP = "Arrow keys move over the cells or points, Enter selects one.";
  const { element } = window.workbench.ab;
  const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

  const cursor = element("div", { class: "map-cursor", hidden: "", "aria-hidden": "true" });
  const live = element("div", { class: "map-live", role: "status" });
  let at = null; // the graph and the target of the cursor
  let reading = 0;

  const plotOf = (graph) => graph.querySelector(".js-plotly-plot");

  // ---- cells and points as rectangles in pixels of the page ---------------------------------------------------

  function axes(plot, trace) {
    const named = (name, letter) => plot._fullLayout[letter + "axis" + (name || letter).slice(1)];
    return [named(trace.xaxis, "x"), named(trace.yaxis, "y")];
  }

  const subplot = (trace) => (trace.xaxis || "x") + (trace.yaxis || "y");

  // Middle and width of each column or row of a heatmap, whose places may be edges, middles or categories.
  function bands(places, count, axis) {
    const values = places && places.length ? [...places] : [...Array(count).keys()];
    const pixels = values.map((value) => axis.d2p(value));
    if (values.length === count + 1) {
      return pixels.slice(1).map((end, n) => [(end + pixels[n]) / 2, Math.abs(end - pixels[n])]);
    }
    const width = pixels.length > 1 ? Math.abs(pixels[1] - pixels[0]) : Math.abs(axis._length);
    return pixels.map((middle) => [middle, width]);
  }

  function cellsOf(plot, trace, curve) {
    const [xaxis, yaxis] = axes(plot, trace);
    const columns = bands(trace.x, trace.z[0].length, xaxis);
    const rows = bands(trace.y, trace.z.length, yaxis);
    const found = [];
    [...trace.z].forEach((line, row) => {
      [...line].forEach((value, column) => {
        if (value !== null && value !== undefined && !Number.isNaN(Number(value))) {
          const [[x, width], [y, height]] = [columns[column], rows[row]];
          const place = { x: xaxis.p2d(x), y: yaxis.p2d(y), curveNumber: curve };
          const hover = { curveNumber: curve, xval: xaxis.p2c(x), yval: yaxis.p2c(y) };
          const middle = { x: xaxis._offset + x, y: yaxis._offset + y };
          found.push({ ...middle, width, height, number: [row, column], isCell: true, place, curve, hover, subplot: subplot(trace) });
        }
      });
    });
    return found;
  }

  function pointsOf(plot, trace, curve) {
    const [xaxis, yaxis] = axes(plot, trace);
    const size = 22;
    const markers = (trace.marker && trace.marker.size) || 0; // one for all, or one for each
    const radius = (number) => Math.max(3, (typeof markers === "number" ? markers : markers[number]) / 2); // as Plotly's
    return [...(trace.x || [])].flatMap((value, number) => {
      const [x, y] = [xaxis.d2p(value), yaxis.d2p((trace.y || [])[number])];
      if (!Number.isFinite(x) || !Number.isFinite(y)) {
        return [];
      }
      const place = { x: value, y: trace.y[number], curveNumber: curve, pointNumber: number };
      const about = trace.customdata && trace.customdata[number];
      if (Array.isArray(about)) {
        place.customdata = about;
      }
      const hover = { curveNumber: curve, pointNumber: number };
      const middle = { x: xaxis._offset + x, y: yaxis._offset + y };
      return [{ ...middle, width: size, height: size, radius: radius(number), number, place, curve, hover, subplot: subplot(trace) }];
    });
  }

  function targets(graph) {
    const plot = plotOf(graph);
    if (!plot || !plot._fullData) {
      return [];
    }
    return plot._fullData.flatMap((trace, curve) => {
      if (trace.visible !== true || trace.hoverinfo === "skip") {
        return [];
      }
      if (trace.type === "heatmap") {
        return cellsOf(plot, trace, curve);
      }
      const isDrawn = trace.type === "scatter" && (trace.mode || "").includes("markers");
      return isDrawn ? pointsOf(plot, trace, curve) : [];
    });
  }

  // Say that a place was clicked. The time tells two clicks on the same place apart, and which of two graphs' clicks was
  // the last; those that Plotly tells Dash of have it, too.
  function click(graph, place) {
    window.dash_clientside.set_props(graph.id, { clickData: { points: [place], timestamp: Date.now() } });
  }

  // ---- the cursor ---------------------------------------------------------------------------------------------

  const isSame = (a, b) => a && b && a.curve === b.curve && String(a.number) === String(b.number);

  function place() {
    const plot = at && plotOf(at.graph);
    const found = plot && at.target && targets(at.graph).find((one) => isSame(one, at.target));
    cursor.hidden = !found || document.activeElement !== at.graph;
    if (!cursor.hidden) {
      const box = plot.getBoundingClientRect();
      cursor.style.left = box.left + window.scrollX + found.x - found.width / 2 + "px";
      cursor.style.top = box.top + window.scrollY + found.y - found.height / 2 + "px";
      cursor.style.width = found.width + "px";
      cursor.style.height = found.height + "px";
    }
  }

  // The nearest in a direction; being off the line counts more than being far.
  function next(from, [dx, dy], all) {
    const cost = (one) => {
      const [x, y] = [one.x - from.x, one.y - from.y];
      const along = x * dx + y * dy;
      const aside = Math.abs(dx ? y : x);
      return along > 2 && aside < 4 * along ? along + 3 * aside : Infinity;
    };
    return all.reduce((best, one) => (cost(one) < (best ? cost(best) : Infinity) ? one : best), null);
  }

  function read(graph) {
    const texts = [...graph.querySelectorAll(".hoverlayer .hovertext text")];
    const lines = texts.flatMap((text) => {
      const parts = [...text.querySelectorAll("tspan.line")];
      return (parts.length ? parts : [text]).map((part) => part.textContent.trim());
    });
    live.textContent = lines.filter(Boolean).join(", ");
  }

  function move(graph, target) {
    at = { graph, target };
    place();
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    window.Plotly.Fx.hover(plotOf(graph), [target.hover], target.subplot);
    clearTimeout(reading);
    reading = setTimeout(() => read(graph), READ_MS);
  }

  function start(graph) {
    const all = targets(graph);
    const kept = at && at.graph === graph && all.find((one) => isSame(one, at.target));
    const plot = plotOf(graph);
    const asked = all.find((one) => plot._fullData[one.curve].meta === "start"); // such as what is selected
    return kept || asked || all.reduce((best, one) => (!best || one.y + one.x < best.y + best.x ? one : best), null);
  }

  function press(graph, key) {
    const from = start(graph);
    if (!from) {
      return false;
    }
    if (key === "Enter") {
      click(graph, from.place);
      return true;
    }
    const found = next(from, DIRECTIONS[key], targets(graph));
    if (found) {
      move(graph, found);
    }
    return true;
  }

  document.addEventListener("keydown", (event) => {
    const graph = event.target instanceof Element && event.target.matches(".graph") ? event.target : null;
    const isOurs = event.key === "Enter" || event.key in DIRECTIONS;
    if (graph && isOurs && !event.ctrlKey && !event.altKey && !event.metaKey && press(graph, event.key)) {
      event.preventDefault();
    }
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches(".graph") && event.target.matches(":focus-visible")) {
      const from = start(event.target);
      if (from) {
        move(event.target, from);
      }
    }
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.matches(".graph")) {
      cursor.hidden = true;
      live.textContent = "";
      const plot = plotOf(event.target);
      if (plot && plot._fullLayout) {
        window.Plotly.Fx.unhover(plot);
      }
    }
  });
  new ResizeObserver(place).observe(document.documentElement);

  window.workbench.maps = { click, plotOf, targets };
  window.workbench.watch("graph", "data-map", (graph) => {
    const panel = graph.closest(".mantine-Paper-root");
    const title = panel && panel.querySelector(".mantine-Title-root");
    graph.tabIndex = 0;
    graph.setAttribute("role", "application");
    graph.setAttribute("aria-label", (title ? title.textContent + ". " : "") + HELP);
    if (!live.isConnected) {
      document.body.append(cursor, live);
    }
    new MutationObserver(() => { if (at && at.graph === graph) { requestAnimationFrame(place); } }).observe(graph, {
      attributes: true, attributeFilter: ["style", "height"], subtree: true,
    });
  });
})();
