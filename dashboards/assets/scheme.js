// Run before the page is drawn: the colours chosen by the switch or, before any choice, the system's. The switch keeps
// the choice under this name.
(function () {
  "use strict";

  let chosen = null;
  try {
    chosen = localStorage.getItem("mantine-color-scheme-value");
  } catch {
    // a browser that keeps nothing
  }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.mantineColorScheme = ["light", "dark"].includes(chosen) ? chosen : system;
})();
