// Printing: the sheet names what the controls choose, and nothing is wider than the sheet.
(function () {
  "use strict";

  const WIDTH = 640; // CSS pixels for a figure or table: of a sheet of A4 or Letter, inside a panel
  let line = null;
  let shrunk = [];

  // What the controls of the page show, which are not printed themselves.
  function chosen() {
    return [...document.querySelectorAll("#page .controls:not(.printed) label[for]")].flatMap(label => {
      const field = document.getElementById(label.htmlFor);
      return field && field.value && !label.closest("[hidden]") ? [`${label.textContent}: ${field.value}`] : [];
    });
  }

  function before() {
    after();
    line = document.createElement("p");
    line.className = "print-only";
    line.textContent = chosen().join("  ·  ");
    document.body.prepend(line);
    // They keep the layout that they have on the screen, and shrink as a whole.
    const tables = [...document.querySelectorAll("#page .ag-root-wrapper")].map(table => table.closest("[id]"));
    shrunk = [...document.querySelectorAll("#page .graph"), ...tables].filter(part => part.offsetWidth > WIDTH);
    for (const part of shrunk) {
      const width = part.offsetWidth;
      part.style.width = `${width}px`;
      part.style.zoom = WIDTH / width;
    }
  }

  function after() {
    if (line) line.remove();
    for (const part of shrunk) part.style.width = part.style.zoom = "";
    line = null;
    shrunk = [];
  }

  window.addEventListener("beforeprint", before);
  window.addEventListener("afterprint", after);
})();
