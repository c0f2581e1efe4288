// Players of one recording each: the playhead follows the audio, a click on the picture seeks, one plays at a time.
// An element of class "players" describes its recordings as JSON in its attribute data-recordings. A change of the
// attribute leaves the players alone whose recordings stay.
(function () {
  "use strict";

  const PICTURE_HELP = "Mel spectrogram with a range of 80 dB. Click to seek.";
  const STRIP_HELP = "The feature's activation: denoising steps from top to bottom, time from left to right.";
  const { element } = window.workbench.ab;

  // ---- what a player consists of ------------------------------------------------------------------------------

  function media(one) {
    if (one.missing) {
      return [element("div", { class: "ab-missing" }, one.missing)];
    }
    const picture = element(
      "div", { class: "picture" },
      element("img", { src: one.mel, class: "mel", alt: "mel spectrogram", title: PICTURE_HELP }),
    );
    if (one.overlay) {
      picture.append(element("img", { src: one.overlay, class: "overlay", alt: "activation over time" }));
    }
    picture.append(element("div", { class: "playhead" }));
    const parts = [picture];
    if (one.strip) {
      const about = { class: "strip", alt: "activation at each step", title: STRIP_HELP };
      parts.push(element("img", { src: one.strip, ...about }));
    }
    const ticks = [0, 0.5, 1].map((fraction) => element("span", {}, Number((one.seconds * fraction).toPrecision(6)) + " s"));
    parts.push(element("div", { class: "seconds" }, ...ticks));
    parts.push(element("audio", { src: one.audio, controls: "", preload: "metadata", "aria-label": one.title || "recording" }));
    return parts;
  }

  function build(one) {
    const player = element(
      "div", { class: "player" },
      element("div", { class: "player-head" }, element("span", { class: "player-title" }), element("span", { class: "number" })),
      element("div", { class: "ab-note" }),
      ...media(one),
    );
    player.dataset.recording = identity(one);
    return player;
  }

  function fill(player, one) {
    const [title, detail] = player.querySelector(".player-head").children;
    title.textContent = one.title;
    title.title = one.hover || one.title;
    detail.textContent = one.detail;
    player.querySelector(".player-head").hidden = !one.title && !one.detail;
    const note = player.querySelector(".ab-note");
    note.hidden = !one.note.length;
    note.replaceChildren(...one.note.map((part, place) => (place % 2 ? element("mark", {}, part) : part)));
    note.title = one.note.join("");
  }

  // Recordings with the same sound and pictures are the same.
  const identity = (one) => JSON.stringify([one.audio, one.overlay, one.strip, one.missing]);

  function update(host) {
    const recordings = JSON.parse(host.dataset.recordings || "[]");
    const old = [...host.children];
    recordings.forEach((one, place) => {
      const found = old.findIndex((player) => player.dataset.recording === identity(one));
      const player = found < 0 ? build(one) : old.splice(found, 1)[0];
      fill(player, one);
      if (host.children[place] !== player) {
        host.insertBefore(player, host.children[place] || null);
      }
    });
    old.forEach((player) => player.remove());
  }

  // ---- playback -----------------------------------------------------------------------------------------------

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

  window.workbench.watch("players", "data-recordings", update);
})();
