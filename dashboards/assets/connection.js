// Ask the server again and again: show a banner while it does not respond, and follow changes of the study. When it
// responds again, the document has an event "reconnected".
(function () {
  "use strict";

  const EVERY_MS = 3000;
  const PATIENCE_MS = 10000;
  const LONGEST = 500; // characters of the server's sentence
  const GONE =
    "The dashboard is not responding: its server was stopped or the connection was lost. This page may be out of " +
    "date. Restart it with “workbench dashboard”; once it responds, this message disappears, and what you have done " +
    "meanwhile is carried out.";
  let banner = null;

  // The version of what the pages show, or why there is none: the server's sentence, as for a study that was removed.
  async function ask() {
    const prefix = JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
      const answer = await fetch(prefix + "_alive", options);
      if (answer.status === 204) {
        return { version: answer.headers.get("Study-Version") };
      }
      const isText = (answer.headers.get("Content-Type") || "").startsWith("text/plain");
      return { fault: isText ? (await answer.text()).slice(0, LONGEST) : GONE };
    } catch {
      return { fault: GONE };
    }
  }

  function show(fault) {
    if (fault && !banner) {
      banner = document.createElement("div");
      banner.id = "connection";
      banner.setAttribute("role", "alert");
      document.body.append(banner);
    } else if (!fault && banner) {
      banner.remove();
      banner = null;
      document.dispatchEvent(new Event("reconnected"));
    }
    if (fault && banner.textContent !== fault) {
      banner.textContent = fault;
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

  // Whether the server responds, now; the banner says so if it does not.
  async function responds() {
    const { fault } = await ask();
    show(fault);
    return !fault;
  }
  window.workbench = window.workbench || {};
  window.workbench.responds = responds;

  async function watch() {
    if (!document.hidden) {
      const { version, fault } = await ask();
      const content = document.getElementById("content");
      show(fault);
      if (version && content && content.dataset.version !== version) {
        follow(version);
      }
    }
    setTimeout(watch, EVERY_MS);
  }

  setTimeout(watch, EVERY_MS);
})();
