// Ask the server again and again: show a banner while it does not respond or the study is away, and follow changes of
// the study. When it is back, the document has an event "reconnected".
(function () {
  "use strict";

  const EVERY_MS = 3000;
  const PATIENCE_MS = 10000;
  const LONGEST = 500; // characters of the server's sentence
  const SILENT = "The dashboard is not responding.";
  const STOPPED = "Its server was stopped or the connection was lost. This page may be out of date.";
  const THEN = "Once it is back, this message disappears, and what you have done meanwhile is carried out.";
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
      return { fault: (isText && (await answer.text()).trim().slice(0, LONGEST)) || SILENT };
    } catch {
      return { fault: SILENT };
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
    const said = [fault, ...(fault === SILENT ? [STOPPED, document.body.dataset.again] : []), THEN].join(" ");
    if (fault && banner.textContent !== said) {
      banner.textContent = said;
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

  // Why nothing can be asked for now, in a sentence, which the banner says as well; nothing if it can.
  async function fault() {
    const { fault } = await ask();
    show(fault);
    return fault;
  }
  window.workbench = window.workbench || {};
  window.workbench.fault = fault;

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
