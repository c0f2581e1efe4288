// The menu of an export button closes when a format is chosen, at a click elsewhere, and at Escape.
(function () {
  "use strict";

  const opened = () => [...document.querySelectorAll("details.export[open]")];

  document.addEventListener("click", (event) => {
    const isChosen = event.target.closest(".export button");
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
})();
