// A/B comparison: all recordings of a group play in sync and one is audible, so that switching keeps the position.
// A group is an element of class "ab"; its attribute data-sides describes the recordings as JSON. A change of the
// attribute replaces only what differs, so that playback, position and the audible recording are kept.
(function () {
  "use strict";

  const DRIFT = 0.03; // seconds that the recordings may drift apart before they are realigned
  const LOST = 0.4; // seconds after which a muted recording jumps to its place instead of catching up
  const KEY_FRACTION = 0.05; // of the length, for one press of an arrow key
  const MOST_KEYS = 9; // recordings that a digit chooses

  const states = new WeakMap(); // per group: sides, place (s), playing, loop, gains, asked
  const workbench = (window.workbench = window.workbench || {});

  // Call `update` with every element of a class, now and later, and again whenever its attribute changes.
  workbench.watch = (name, attribute, update) => {
    const all = (node) => [...(node.classList.contains(name) ? [node] : []), ...node.getElementsByClassName(name)];
    new MutationObserver((changes) => {
      changes.forEach((change) => {
        if (change.type === "attributes") {
          update(change.target);
        } else {
          [...change.addedNodes].filter((node) => node instanceof HTMLElement).forEach((node) => all(node).forEach(update));
        }
      });
    }).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: [attribute] });
    const first = () => all(document.documentElement).forEach(update);
    if (document.readyState === "loading") {
      document.addEventListener("DOMContentLoaded", first); // once all scripts listen
    } else {
      first();
    }
  };

  workbench.element = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    Object.entries(attributes || {}).forEach(([name, value]) => made.setAttribute(name, value));
    made.append(...children);
    return made;
  };
  const element = workbench.element;

  const switches = (group) => [...group.querySelectorAll(".ab-switch")];
  const audios = (group) => [...group.querySelectorAll("audio")];
  const isLoaded = (audio) => audio.readyState >= 1;
  const state = (group) => states.get(group);

  function audible(group) {
    const on = switches(group).find((one) => one.getAttribute("aria-checked") === "true" && !one.disabled);
    return on && on.closest(".ab-side").querySelector("audio");
  }

  // ---- what a group consists of -------------------------------------------------------------------------------

  function build(group) {
    const button = (name, text, title) =>
      element("button", { class: "ab-button " + name, type: "button", title: title, "aria-pressed": "false" }, text);
    const play = element("button", { class: "ab-play", type: "button", "aria-label": "play" }, "Play");
    const seek = element("div", {
      class: "ab-seek", role: "slider", tabindex: "0", "aria-label": "position", "aria-valuemin": "0",
      "aria-valuemax": "100", "aria-valuenow": "0",
    }, element("div", { class: "ab-done" }));
    const range = element("input", { type: "range", class: "ab-range", "aria-label": "strength" });
    group.append(
      element("div", { class: "ab-caption" }),
      element("div", { class: "ab-sides", role: "radiogroup", "aria-label": "audible recording" }),
      element("label", { class: "ab-strength" }, "Strength", range, element("output", { class: "ab-nearest" })),
      element("div", { class: "ab-transport" }, play, seek, element("span", { class: "ab-time" })),
      element(
        "div", { class: "ab-options" },
        button("ab-loop", "Loop", "Play again from the start at the end"),
        button("ab-level", "Match levels", "Play all recordings as loud as the quietest (ITU-R BS.1770)"),
        button("ab-blind", "Blind test (ABX)", "Is X the recording A or B? Tests whether you hear a difference"),
        element("span", { class: "ab-gains", "aria-live": "polite" }),
      ),
      element("div", { class: "ab-test" }),
      element("div", { class: "ab-help ab-keys" }),
      element("div", { class: "ab-help ab-no-keys" }, "The keys play another player on this page. Click this one, or move the focus here, to play it by keys."),
    );
    states.set(group, { sides: [], seconds: 0, place: 0, playing: false, loop: false, matched: false });
  }

  function buildSide() {
    const heading = ["ab-number", "ab-name", "number ab-detail"].map((name) => element("span", { class: name }));
    return element(
      "div", { class: "ab-side" },
      element("button", { class: "ab-switch", type: "button", role: "radio", "aria-checked": "false" }, ...heading),
      element("div", { class: "ab-note" }),
    );
  }

  // What the keys do in a group of so many recordings.
  function keyHelp(count) {
    const last = Math.min(count, MOST_KEYS);
    const digits = last < 4 ? [...Array(last).keys()].map((place) => place + 1).join(", ") : "1 to " + last;
    const choosing = last > 1 ? "; " + digits + " choose the recording you hear" : "";
    return "Keys, anywhere on the page: Space plays or pauses" + choosing + ". On the position: arrow keys skip 5 %.";
  }

  // Text of which parts are marked: those at odd places.
  function fillNote(note, parts) {
    note.replaceChildren(...parts.map((part, place) => (place % 2 ? element("mark", {}, part) : part)));
    note.title = parts.join("");
  }

  function fillMedia(card, side) {
    card.querySelectorAll(".fault").forEach((line) => line.remove());
    const old = card.querySelector("audio");
    if (side.missing) {
      card.querySelectorAll("audio, .picture, .ab-missing").forEach((one) => one.remove());
      card.append(element("div", { class: "ab-missing" }, side.missing));
      return;
    }
    card.querySelectorAll(".ab-missing").forEach((one) => one.remove());
    const name = "mel spectrogram, " + side.name;
    if (!old) {
      const picture = element("img", { src: side.mel, class: "mel", alt: name });
      card.append(
        element("div", { class: "picture" }, picture, element("div", { class: "playhead" })),
        element("audio", { src: side.audio, preload: "auto" }),
      );
    } else if (old.getAttribute("src") !== side.audio) {
      old.setAttribute("src", side.audio); // see "loadedmetadata"
      const picture = card.querySelector(".mel");
      picture.setAttribute("src", side.mel);
      picture.setAttribute("alt", name);
    }
  }

  function fillSide(card, side, number) {
    const chooser = card.querySelector(".ab-switch");
    const texts = { ".ab-number": String(number), ".ab-name": side.name, ".ab-detail": side.detail };
    Object.entries(texts).forEach(([part, text]) => { card.querySelector(part).textContent = text; });
    chooser.disabled = Boolean(side.missing);
    chooser.setAttribute("aria-label", "play " + side.name);
    fillNote(card.querySelector(".ab-note"), side.note);
    fillMedia(card, side);
  }

  // The recording to hear after a change: the one asked for, if that is new, or the one of the same name or place.
  function heardAfter(group, before, data) {
    const now = state(group);
    const exists = (place) => place >= 0 && place < now.sides.length && !now.sides[place].missing;
    const named = (name) => now.sides.findIndex((side) => side.name === name);
    const isNew = data.heard && data.heard !== now.asked;
    now.asked = data.heard;
    const wishes = [
      isNew ? named(data.heard) : -1, named(before.name), before.place, now.sides.findIndex((side) => !side.missing),
    ];
    return wishes.find(exists);
  }

  function update(group) {
    const text = group.dataset.sides;
    if (!states.has(group)) {
      build(group);
    }
    const now = state(group);
    if (now.text === text) {
      return;
    }
    now.text = text;
    const data = JSON.parse(text || "{}");
    const place = switches(group).findIndex((one) => one.getAttribute("aria-checked") === "true");
    const before = { place: place, name: place < 0 ? "" : now.sides[place].name };
    now.sides = data.sides || [];
    now.seconds = data.seconds || 0;
    group.hidden = !now.sides.length;
    group.querySelector(".ab-caption").textContent = data.caption || "";
    group.querySelector(".ab-keys").textContent = keyHelp(now.sides.length);
    const holder = group.querySelector(".ab-sides");
    while (holder.children.length > now.sides.length) {
      holder.lastChild.remove();
    }
    while (holder.children.length < now.sides.length) {
      holder.append(buildSide());
    }
    now.sides.forEach((side, number) => fillSide(holder.children[number], side, number + 1));
    const heard = heardAfter(group, before, data);
    switches(group).forEach((one, number) => one.setAttribute("aria-checked", String(number === heard)));
    audios(group).forEach((audio) => { audio.loop = now.loop; });
    group.dispatchEvent(new CustomEvent("sideschange", { bubbles: true }));
    if (!now.sides.length) {
      now.playing = false;
    }
    align(group);
    show(group);
  }

  // ---- playback -----------------------------------------------------------------------------------------------

  function show(group) {
    const audio = audible(group);
    const now = state(group);
    if (!audio || !now) {
      return;
    }
    if (isLoaded(audio) && !audio.seeking) {
      now.place = audio.currentTime;
    }
    const length = audio.duration || now.seconds;
    const percent = length ? Math.min(100, (100 * now.place) / length) : 0;
    group.querySelectorAll(".playhead").forEach((line) => { line.style.left = percent + "%"; });
    group.querySelector(".ab-done").style.width = percent + "%";
    const seek = group.querySelector(".ab-seek");
    seek.setAttribute("aria-valuenow", percent.toFixed(0));
    seek.setAttribute("aria-valuetext", now.place.toFixed(1) + " seconds");
    group.querySelector(".ab-time").textContent = now.place.toFixed(1) + " / " + length.toFixed(1) + " s";
    const play = group.querySelector(".ab-play");
    play.textContent = now.playing ? "Pause" : "Play";
    play.setAttribute("aria-label", now.playing ? "pause" : "play");
  }

  // The audible recording leads; the others follow, muted.
  function align(group) {
    const lead = audible(group);
    const now = state(group);
    audios(group).forEach((audio) => {
      audio.muted = audio !== lead;
      audio.playbackRate = 1;
      const place = lead && isLoaded(lead) ? lead.currentTime : now.place;
      if (audio !== lead && isLoaded(audio) && Math.abs(audio.currentTime - place) > DRIFT) {
        audio.currentTime = place;
      }
      if (now.playing && audio.paused && !audio.ended) {
        audio.play().catch(() => {});
      }
    });
  }

  // While they play, muted recordings catch up with the audible one by their speed, which nobody hears.
  function keepTogether(group, lead) {
    audios(group).filter((audio) => audio !== lead && isLoaded(audio) && !audio.seeking).forEach((audio) => {
      const behind = lead.currentTime - audio.currentTime;
      if (audio.paused && !audio.ended) {
        audio.play().catch(() => {}); // browsers may pause what is muted when they are short of time
      }
      if (Math.abs(behind) > LOST) {
        audio.currentTime = lead.currentTime;
      } else {
        const rate = Math.abs(behind) < DRIFT / 3 ? 1 : Math.min(1.25, Math.max(0.75, 1 + Math.round(behind * 20) / 10));
        if (rate !== audio.playbackRate) {
          audio.playbackRate = rate;
        }
      }
    });
  }

  function follow(group) {
    const lead = audible(group);
    const now = state(group);
    if (!lead || !now.playing || !group.isConnected) {
      return;
    }
    show(group);
    if (isLoaded(lead) && !lead.seeking) {
      keepTogether(group, lead);
    }
    requestAnimationFrame(() => follow(group));
  }

  function pause(group) {
    state(group).playing = false;
    audios(group).forEach((audio) => audio.pause());
    align(group);
    show(group);
  }

  function toggle(group) {
    const lead = audible(group);
    const now = state(group);
    if (!lead) {
      return;
    }
    if (now.playing) {
      pause(group);
      return;
    }
    document.querySelectorAll("audio").forEach((other) => {
      if (!group.contains(other)) {
        other.pause();
      }
    });
    if (lead.ended) {
      lead.currentTime = 0;
    }
    now.playing = true;
    align(group);
    follow(group);
  }

  function choose(group, place) {
    const chosen = switches(group)[place];
    if (!chosen || chosen.disabled) {
      return;
    }
    const now = state(group);
    const before = audible(group);
    if (before && isLoaded(before)) {
      now.place = before.currentTime;
    }
    switches(group).forEach((one) => one.setAttribute("aria-checked", String(one === chosen)));
    const after = audible(group);
    if (isLoaded(after) && Math.abs(after.currentTime - now.place) > DRIFT) {
      after.currentTime = now.place;
    }
    align(group);
    show(group);
    group.dispatchEvent(new CustomEvent("heardchange", { bubbles: true }));
  }

  function seek(group, fraction) {
    const lead = audible(group);
    if (lead && lead.duration) {
      lead.currentTime = lead.duration * Math.min(1, Math.max(0, fraction));
      state(group).place = lead.currentTime;
      align(group);
      show(group);
    }
  }

  function setLoop(group, on) {
    state(group).loop = on;
    audios(group).forEach((audio) => { audio.loop = on; });
    group.querySelector(".ab-loop").setAttribute("aria-pressed", String(on));
  }

  // ---- mouse, keys and media ----------------------------------------------------------------------------------

  function position(event, within) {
    const box = within.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  }

  document.addEventListener("click", (event) => {
    const group = event.target.closest(".ab");
    if (!group || !states.has(group)) {
      return;
    }
    const place = event.target.closest(".ab-seek, .picture");
    const chooser = event.target.closest(".ab-switch");
    if (event.target.closest(".ab-play")) {
      toggle(group);
    } else if (event.target.closest(".ab-loop")) {
      setLoop(group, !state(group).loop);
    } else if (chooser) {
      choose(group, switches(group).indexOf(chooser));
    } else if (place) {
      seek(group, position(event, place));
    }
  });

  document.addEventListener("keydown", (event) => {
    const group = event.target.closest && event.target.closest(".ab");
    if (!group || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select, input")) {
      return;
    }
    const lead = audible(group);
    const step = { ArrowRight: KEY_FRACTION, ArrowLeft: -KEY_FRACTION }[event.key];
    if (step && lead && lead.duration) {
      seek(group, lead.currentTime / lead.duration + step);
    } else if (event.key === "Home") {
      seek(group, 0);
    } else {
      return;
    }
    event.preventDefault();
  });

  // Media events do not bubble, so they are caught in the capture phase.
  function listen(name, act) {
    document.addEventListener(name, (event) => {
      const group = event.target.closest && event.target.closest(".ab");
      if (group && states.has(group)) {
        act(group, event.target);
      }
    }, true);
  }
  listen("seeked", show);
  listen("loadedmetadata", (group, audio) => {
    audio.currentTime = state(group).place;
    align(group);
    show(group);
  });
  listen("pause", (group, audio) => {
    if (audio === audible(group) && isLoaded(audio) && !audio.ended && !audio.error) { // see faults.js
      if (state(group).playing) {
        pause(group);
      }
    }
  });
  listen("ended", (group, audio) => {
    if (audio === audible(group)) {
      state(group).playing = false;
      show(group);
    }
  });

  workbench.ab = { audible, audios, choose, element, latest: null, seek, state, switches, toggle };
  workbench.watch("ab", "data-sides", update);
})();
