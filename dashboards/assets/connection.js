// Show a banner while the server is not responding.
(function () {
  "use strict";

  const EVERY_MS = 3000;
  const PATIENCE_MS = 10000;
  const TEXT =
    "The dashboard is not responding: its server was stopped or the connection was lost. This page may be out of " +
    "date. Restart it with “workbench dashboard”; this message disappears once it responds.";
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
