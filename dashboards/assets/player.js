// Players: the playhead follows the audio, a click on the picture seeks, and only one clip plays at a time.
(function () {
  "use strict";

  function place(audio) {
    const player = audio.closest(".player");
    const playhead = player && player.querySelector(".playhead");
    if (playhead && audio.duration) {
      playhead.style.left = (100 * audio.currentTime) / audio.duration + "%";
    }
  }

  function follow(audio) {
    place(audio);
    if (!audio.paused) {
      requestAnimationFrame(() => follow(audio));
    }
  }

  // Media events do not bubble, so they are caught in the capture phase.
  document.addEventListener("play", (event) => {
    if (!event.target.closest(".player")) {
      return;
    }
    document.querySelectorAll("audio").forEach((other) => {
      if (other !== event.target) {
        other.pause();
      }
    });
    follow(event.target);
  }, true);
  document.addEventListener("seeked", (event) => place(event.target), true);

  document.addEventListener("click", (event) => {
    const picture = event.target.closest(".player .picture");
    const audio = picture && picture.closest(".player").querySelector("audio");
    if (audio && audio.duration) {
      const box = picture.getBoundingClientRect();
      audio.currentTime = (audio.duration * (event.clientX - box.left)) / box.width;
      place(audio);
    }
  });
})();
