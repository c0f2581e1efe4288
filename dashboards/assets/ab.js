// A/B comparison: all recordings of a group play in sync and one is audible, so that switching keeps the position.
(function () {
  "use strict";

  const DRIFT = 0.03; // seconds that the recordings may drift apart before they are realigned
  const KEY_FRACTION = 0.05; // of the length, for one press of an arrow key

  const switches = (group) => [...group.querySelectorAll(".ab-switch")];
  const audios = (group) => [...group.querySelectorAll("audio")];

  function audible(group) {
    const on = switches(group).find((one) => one.getAttribute("aria-checked") === "true" && !one.disabled);
    return on && on.closest(".ab-side").querySelector("audio");
  }

  function show(group) {
    const audio = audible(group);
    if (!audio) {
      return;
    }
    const length = audio.duration || Number(group.dataset.seconds);
    const percent = Math.min(100, (100 * audio.currentTime) / length);
    group.querySelectorAll(".playhead").forEach((line) => { line.style.left = percent + "%"; });
    group.querySelector(".ab-done").style.width = percent + "%";
    const seek = group.querySelector(".ab-seek");
    seek.setAttribute("aria-valuenow", percent.toFixed(0));
    seek.setAttribute("aria-valuetext", audio.currentTime.toFixed(1) + " seconds");
    group.querySelector(".ab-time").textContent = audio.currentTime.toFixed(1) + " / " + length.toFixed(1) + " s";
    const play = group.querySelector(".ab-play");
    play.textContent = audio.paused ? "Play" : "Pause";
    play.setAttribute("aria-label", audio.paused ? "play" : "pause");
  }

  // The audible recording leads; the others follow, muted.
  function align(group) {
    const lead = audible(group);
    audios(group).forEach((audio) => {
      audio.muted = audio !== lead;
      if (audio !== lead && Math.abs(audio.currentTime - lead.currentTime) > DRIFT) {
        audio.currentTime = lead.currentTime;
      }
    });
  }

  function follow(group) {
    show(group);
    const lead = audible(group);
    if (lead && !lead.paused && group.isConnected) {
      requestAnimationFrame(() => follow(group));
    }
  }

  function toggle(group) {
    const lead = audible(group);
    if (!lead) {
      return;
    }
    if (!lead.paused) {
      audios(group).forEach((audio) => audio.pause());
      align(group);
    } else {
      document.querySelectorAll("audio").forEach((other) => {
        if (!group.contains(other)) {
          other.pause();
        }
      });
      if (lead.ended) {
        lead.currentTime = 0;
      }
      align(group);
      audios(group).forEach((audio) => audio.play().catch(() => {}));
      follow(group);
    }
    show(group);
  }

  function choose(group, chosen) {
    const before = audible(group);
    if (!chosen || chosen.disabled || !before) {
      return;
    }
    const place = before.currentTime;
    const playing = !before.paused;
    switches(group).forEach((one) => one.setAttribute("aria-checked", String(one === chosen)));
    const after = audible(group);
    if (Math.abs(after.currentTime - place) > DRIFT) {
      after.currentTime = place;
    }
    if (playing && after.paused) {
      after.play().catch(() => {});
    }
    align(group);
    show(group);
  }

  function seek(group, fraction) {
    const lead = audible(group);
    if (lead && lead.duration) {
      lead.currentTime = lead.duration * Math.min(1, Math.max(0, fraction));
      align(group);
      show(group);
    }
  }

  function position(event, element) {
    const box = element.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  }

  document.addEventListener("click", (event) => {
    const group = event.target.closest(".ab");
    if (!group) {
      return;
    }
    const place = event.target.closest(".ab-seek, .picture");
    if (event.target.closest(".ab-play")) {
      toggle(group);
    } else if (event.target.closest(".ab-switch")) {
      choose(group, event.target.closest(".ab-switch"));
    } else if (place) {
      seek(group, position(event, place));
    }
  });

  document.addEventListener("keydown", (event) => {
    const group = event.target.closest && event.target.closest(".ab");
    if (!group || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    const lead = audible(group);
    const step = { ArrowRight: KEY_FRACTION, ArrowLeft: -KEY_FRACTION }[event.key];
    if (/^[1-9]$/.test(event.key)) {
      choose(group, switches(group)[Number(event.key) - 1]);
    } else if (event.key === " ") {
      toggle(group);
    } else if (step && lead && lead.duration) {
      seek(group, lead.currentTime / lead.duration + step);
    } else if (event.key === "Home") {
      seek(group, 0);
    } else {
      return;
    }
    event.preventDefault();
  });

  // Media events do not bubble, so they are caught in the capture phase.
  ["seeked", "loadedmetadata", "pause", "ended", "emptied"].forEach((name) => {
    document.addEventListener(name, (event) => {
      const group = event.target.closest && event.target.closest(".ab");
      if (group) {
        show(group);
      }
    }, true);
  });
})();
