// Where a picture or a sound cannot be made, the server's sentence on why stands in its place.
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
        sentence = media.tagName === "AUDIO" ? "This browser cannot play the recording: its file may be damaged." : "";
      } else if ((answer.headers.get("Content-Type") || "").startsWith("text/plain")) {
        sentence = await answer.text();
      } else {
        sentence = "The server could not make this picture or sound; its terminal says why.";
      }
    } catch {
      return; // the server is gone, which the banner says
    }
    if (sentence && ![...holder.querySelectorAll(".fault")].some((one) => one.textContent === sentence)) {
      const line = document.createElement("div");
      line.className = "fault";
      line.setAttribute("role", "note");
      line.textContent = sentence;
      holder.append(line);
    }
  }

  // Error events do not bubble, but they can be caught on their way down.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement || event.target instanceof HTMLMediaElement) {
      explain(event.target);
    }
  }, true);
})();
