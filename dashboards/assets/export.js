// The menus of export buttons. One closes when a format is chosen, at a click elsewhere, and at Escape.
(function () {
  "use strict";

  const { element } = window.workbench.ab;

  function build(host) {
    const formats = host.dataset.formats.split(" ").map((format) =>
      element("button", { type: "button", "data-format": format }, format.toUpperCase()));
    const said = element("div", {}, "Figure, CSV, LaTeX, caption, provenance");
    host.replaceChildren(element("details", {}, element("summary", {}, "Export"), element("div", {}, said, ...formats)));
  }

  const opened = () => [...document.querySelectorAll(".export details[open]")];

  document.addEventListener("click", (event) => {
    const isChosen = event.target.closest(".export button");
    if (isChosen) {
      const asked = { key: isChosen.closest(".export").dataset.key, format: isChosen.dataset.format, at: Date.now() };
      window.dash_clientside.set_props("export-asked", { data: asked });
    }
    opened().filter((menu) => isChosen || !menu.contains(event.target)).forEach((menu) => { menu.open = false; });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      opened().forEach((menu) => {
        menu.open = false;
        menu.querySelector("summary").focus();
      });
    }
  });

  window.workbench.watch("export", "data-key", build);
})();
