// Ask the server again and again: show a banner while it does not respond, and follow changes of the study.
(function () {
  "use strict";

  const EVERY_MS = 3000;
  const PATIENCE_MS = 10000;
  const TEXT =
    "The dashboard is not responding: its server was stopped or the connection was lost. This page may be out of " +
    "date. Restart it with “workbench dashboard”; this message disappears once it responds.";
  let banner = null;

  // The version of what the pages show; null if the server does not respond.
  async function ask() {
    const prefix = JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
      const answer = await fetch(prefix + "_alive", options);
      return answer.status === 204 ? answer.headers.get("Study-Version") : null;
    } catch {
      return null;
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

  // Whatever follows the URL or the version is computed anew. A page that waits for its first result is laid out anew;
  // others keep their players, which may be playing.
  function follow(version) {
    const isWaiting = document.querySelector("#page .empty");
    const { pathname, search } = window.location;
    window.dash_clientside.set_props("content", { "data-version": version });
    window.dash_clientside.set_props("url", isWaiting ? { pathname, search } : { search });
  }

  async function watch() {
    if (!document.hidden) {
      const now = await ask();
      const content = document.getElementById("content");
      show(now === null);
      if (now !== null && content && content.dataset.version !== now) {
        follow(now);
      }
    }
    setTimeout(watch, EVERY_MS);
  }

  setTimeout(watch, EVERY_MS);
})();
