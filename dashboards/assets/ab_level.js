// Level matching of an A/B group: every recording as loud as its quietest, by the loudness that the server measured.
(function () {
  "use strict";

  const { audios, state } = window.workbench.ab;
  const known = new Map(); // loudness in LUFS by URL

  async function loudness(side) {
    if (typeof side.level === "number") {
      return side.level;
    }
    if (!side.level) {
      throw new Error(side.name + " is silent or too short.");
    }
    if (!known.has(side.level)) {
      const answer = await fetch(side.level);
      if (!answer.ok) {
        throw new Error(await answer.text());
      }
      known.set(side.level, (await answer.json()).lufs);
    }
    return known.get(side.level);
  }

  function apply(group, sentence, gains) {
    audios(group).forEach((audio) => { audio.volume = 1; });
    group.querySelectorAll(".ab-side").forEach((card, place) => {
      const audio = card.querySelector("audio");
      if (audio && gains && gains[place] !== null) {
        audio.volume = Math.pow(10, gains[place] / 20);
      }
    });
    group.querySelector(".ab-gains").textContent = sentence;
  }

  async function match(group) {
    const now = state(group);
    group.querySelector(".ab-level").setAttribute("aria-pressed", String(now.matched));
    if (!now.matched) {
      apply(group, "");
      return;
    }
    const sides = now.sides;
    let levels;
    try {
      levels = await Promise.all(sides.map((side) => (side.missing ? null : loudness(side))));
    } catch (fault) {
      apply(group, "Levels cannot be matched: " + fault.message);
      return;
    }
    if (now.sides !== sides || !now.matched) {
      return; // changed while it was measured
    }
    const quietest = Math.min(...levels.filter((level) => level !== null));
    const gains = levels.map((level) => (level === null ? null : quietest - level));
    const told = sides.map((side, place) => (gains[place] === null ? "" : side.name + " " + signed(gains[place])));
    apply(group, "Applied: " + told.filter(Boolean).join(", ") + " dB (all at " + signed(quietest) + " LUFS).", gains);
  }

  const signed = (decibels) => (decibels > -0.05 ? "0.0" : "−" + Math.abs(decibels).toFixed(1));

  function setMatched(group, on) {
    state(group).matched = on;
    return match(group);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".ab-level");
    if (button) {
      const group = button.closest(".ab");
      setMatched(group, !state(group).matched);
    }
  });
  document.addEventListener("sideschange", (event) => match(event.target));

  window.workbench.ab.setMatched = setMatched;
})();
