// A banner while the server does not answer; it goes away when it does again.
(function () {
  "use strict";

  const EVERY_MS = 3000;
  const PATIENCE_MS = 10000;
  const TEXT =
    "The dashboard does not answer: its server was stopped, or the connection is lost. What is shown may be old. " +
    "Start it again with “workbench dashboard”; this note goes away when it answers.";
  let banner = null;

  async function answers() {
    const prefix = JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
      return (await fetch(prefix + "_alive", options)).status === 204;
    } catch {
      return false;
    }
  }

  function show(gone) {
    if (gone && !banner) {
      banner = document.createElement("div");
      banner.id = "connection";
      banner.setAttribute("role", "alert");
      banner.textContent = TEXT;
      document.body.append(banner);
    } else if (!gone && banner) {
      banner.remove();
      banner = null;
    }
  }

  async function watch() {
    if (!document.hidden) {
      show(!(await answers()));
    }
    setTimeout(watch, EVERY_MS);
  }

  setTimeout(watch, EVERY_MS);
})();
