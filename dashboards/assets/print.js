// Printing: the sheet names what the controls choose, short tables are whole, and nothing is wider than the sheet.
(function () {
  "use strict";

  const WIDTH = 640; // CSS pixels for a figure or table: of a sheet of A4 or Letter, inside a panel
  const MOST_ROWS = 100;
  let line = null;
  let shrunk = [];
  let opened = []; // tables with all their rows, and the heights that they have on the screen

  // What the controls of the page show, which are not printed themselves.
  function chosen() {
    return [...document.querySelectorAll("#page .controls:not(.printed) label[for]")].flatMap(label => {
      const field = document.getElementById(label.htmlFor);
      return field && field.value && !label.closest("[hidden]") ? [`${label.textContent}: ${field.value}`] : [];
    });
  }

  // Draw all rows of a table, unless there are many or only some have been loaded, and on one sheet.
  function open(table) {
    table.style.breakInside = "avoid"; // its height is fixed, so that a part on the next sheet would lie on what follows
    const api = window.dash_ag_grid.getApi(table.id);
    const count = api.getDisplayedRowCount();
    if (api.getGridOption("rowModelType") === "clientSide" && count > 0 && count <= MOST_ROWS) {
      opened.push({ table, api, height: table.style.height });
      api.setGridOption("domLayout", "print");
      const last = api.getDisplayedRowAtIndex(count - 1);
      table.style.height = `${table.querySelector(".ag-header").offsetHeight + last.rowTop + last.rowHeight + 4}px`;
    }
  }

  function close({ table, api, height }) {
    table.style.height = height;
    api.setGridOption("domLayout", "normal");
  }

  function before() {
    after();
    line = document.createElement("p");
    line.className = "print-only";
    line.textContent = chosen().join("  ·  ");
    document.body.prepend(line);
    // They keep the layout that they have on the screen, and shrink as a whole.
    const tables = [...document.querySelectorAll("#page .ag-root-wrapper")].map(table => table.closest("[id]"));
    tables.forEach(open);
    shrunk = [...document.querySelectorAll("#page .graph"), ...tables].filter(part => part.offsetWidth > WIDTH);
    for (const part of shrunk) {
      const width = part.offsetWidth;
      part.style.width = `${width}px`;
      part.style.zoom = WIDTH / width;
    }
  }

  function after() {
    if (line) line.remove();
    opened.forEach(close);
    for (const part of shrunk) part.style.width = part.style.zoom = "";
    line = null;
    shrunk = [];
    opened = [];
  }

  window.addEventListener("beforeprint", before);
  window.addEventListener("afterprint", after);
})();
