// The frame: links lead back to what each page showed last, the tab is titled by what is shown, a button opens the
// navigation on small screens.
(function () {
  "use strict";

  const LONGEST = 60; // characters of the selection in the title
  const SETTLED_MS = 300; // until the server is asked what it says of the address

  const prefix = () =>
    JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;

  // The path of a page ("/patching") from the path of a URL, as `page_path` in links.py.
  const pageOf = (pathname) => "/" + pathname.slice(prefix().length - 1).replace(/^\/+|\/+$/g, "");

  function remembered(key) {
    try {
      return JSON.parse(sessionStorage.getItem(key)) || {};
    } catch {
      return {};
    }
  }

  // A selection in words: its values, and the names of those that are only numbers.
  function described(search) {
    const parts = [...new URLSearchParams(search)].map(([name, value]) =>
      /^-?\d/.test(value) ? name + " " + value : value);
    const text = parts.join(", ");
    return text.length > LONGEST ? text.slice(0, LONGEST - 1) + "…" : text;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    shell: {
      follow(pathname, search, ids, labels, study, folder) {
        const key = "selections of " + folder;
        const pages = ids.map((id) => id.page);
        const here = pages.includes(pageOf(pathname || "/")) ? pageOf(pathname || "/") : pages[0];
        const searches = { ...remembered(key), [here]: search || "" };
        sessionStorage.setItem(key, JSON.stringify(searches));
        document.title = [labels[pages.indexOf(here)], described(search), study].filter(Boolean).join(" · ");
        return [
          pages.map((page) => prefix() + page.slice(1) + (searches[page] || "")),
          pages.map((page) => page === here),
          false,
        ];
      },
      // The selection, once its page has had time to be drawn.
      settled() {
        return new Promise((resolve) => { setTimeout(() => resolve(location.search), SETTLED_MS); });
      },
      collapse(opened, navbar) {
        return { ...navbar, collapsed: { mobile: !opened } };
      },
    },
  });
})();
