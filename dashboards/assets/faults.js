// Show the server's explanation where an image or audio cannot be loaded.
(function () {
  "use strict";

  async function explain(media) {
    const holder = media.closest(".player, .ab-side");
    if (!holder) {
      return;
    }
    let sentence;
    try {
      const answer = await fetch(media.currentSrc || media.src);
      if (answer.ok) {
        sentence = media.tagName === "AUDIO" ? "This browser cannot play the recording: the file may be damaged." : "";
      } else if ((answer.headers.get("Content-Type") || "").startsWith("text/plain")) {
        sentence = await answer.text();
      } else {
        sentence = "The server could not create this image or audio; see its terminal for the reason.";
      }
    } catch {
      return; // the server is down, which the banner says
    }
    if (sentence && (await window.workbench.fault())) {
      return; // the study is away, which the banner says
    }
    if (sentence && ![...holder.querySelectorAll(".fault")].some((one) => one.textContent === sentence)) {
      const line = document.createElement("div");
      line.className = "fault";
      line.setAttribute("role", "note");
      line.textContent = sentence;
      holder.append(line);
    }
  }

  // Error events do not bubble, so they are caught in the capture phase.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement || event.target instanceof HTMLMediaElement) {
      explain(event.target);
    }
  }, true);
})();
