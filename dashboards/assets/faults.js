// Load audio again that fails, and show the server's explanation where an image or audio cannot be loaded.
(function () {
  "use strict";

  const TRIES = 3;
  const tries = new WeakMap(); // per audio: how often it was loaded again since it last played

  // Chromium gives audio up now and then while it seeks ("demuxer seek failed"), though the file is whole.
  function loadAgain(audio) {
    const count = tries.get(audio) || 0;
    if (count < TRIES) {
      tries.set(audio, count + 1);
      audio.load();
    }
    return count < TRIES;
  }

  async function explain(media) {
    const holder = media.closest(".player, .ab-side");
    if (!holder) {
      return;
    }
    let sentence;
    try {
      const answer = await fetch(media.currentSrc || media.src);
      if (answer.ok && media.tagName === "AUDIO" && loadAgain(media)) {
        return;
      }
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

  document.addEventListener("playing", (event) => tries.delete(event.target), true);

  // Error events do not bubble, so they are caught in the capture phase.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement || event.target instanceof HTMLMediaElement) {
      explain(event.target);
    }
  }, true);
})();
