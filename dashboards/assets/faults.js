// Load audio again that fails, and show the server's explanation where an image or audio cannot be loaded.
(function () {
  "use strict";

  const AGAIN_MS = [50, 250, 1000, 3000];
  const tries = new WeakMap(); // per audio: how often it was loaded again since it last played

  const isReadError = (audio) => audio.error.code === MediaError.MEDIA_ERR_NETWORK;

  // Chromium gives audio up that seeks while other players load the same file ("demuxer seek failed"), which is whole.
  function loadAgain(audio) {
    const count = tries.get(audio) || 0;
    if (count === AGAIN_MS.length) {
      return false;
    }
    tries.set(audio, count + 1);
    setTimeout(() => audio.error && audio.load(), AGAIN_MS[count]);
    return true;
  }

  async function explain(media) {
    const holder = media.closest(".player, .ab-side");
    if (!holder) {
      return;
    }
    let sentence;
    try {
      const answer = await fetch(media.currentSrc || media.src);
      if (answer.ok && media.tagName === "AUDIO" && (!media.error || (isReadError(media) && loadAgain(media)))) {
        return; // it has another recording by now, or is loaded again
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

  // While an audio plays, its time is told several times a second.
  document.addEventListener("timeupdate", ({ target }) => !target.error && !target.seeking && tries.delete(target), true);

  // Error events do not bubble, so they are caught in the capture phase.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement || event.target instanceof HTMLMediaElement) {
      explain(event.target);
    }
  }, true);
})();
