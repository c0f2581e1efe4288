// A slider of strength for A/B groups whose recordings have strengths: it plays the nearest one, at the same position.
(function () {
  "use strict";

  const { choose, state, switches } = window.workbench.ab;
  const STEPS = 100;

  // Places of the recordings that have a strength, in order of strength.
  function rendered(group) {
    const sides = state(group).sides;
    const places = sides.map((_, place) => place);
    const known = places.filter((place) => typeof sides[place].strength === "number" && !sides[place].missing);
    return known.sort((a, b) => sides[a].strength - sides[b].strength);
  }

  function fit(group) {
    const places = rendered(group);
    const sides = state(group).sides;
    const range = group.querySelector(".ab-range");
    group.querySelector(".ab-strength").hidden = places.length < 2;
    if (places.length >= 2) {
      const low = sides[places[0]].strength;
      const high = sides[places[places.length - 1]].strength;
      range.min = low;
      range.max = high;
      range.step = (high - low) / STEPS;
      follow(group);
    }
  }

  // The slider follows the recording that was chosen otherwise.
  function follow(group) {
    const now = state(group);
    const place = switches(group).findIndex((one) => one.getAttribute("aria-checked") === "true");
    const side = now.sides[place];
    const output = group.querySelector(".ab-nearest");
    if (side && typeof side.strength === "number") {
      if (!now.sliding) {
        group.querySelector(".ab-range").value = side.strength;
      }
      output.textContent = "plays " + side.name;
    } else {
      output.textContent = "";
    }
  }

  function slide(group, wanted) {
    const now = state(group);
    const away = (place) => Math.abs(now.sides[place].strength - wanted);
    const nearest = rendered(group).reduce((best, place) => (away(place) < away(best) ? place : best));
    now.sliding = true;
    if (switches(group)[nearest].getAttribute("aria-checked") !== "true") {
      choose(group, nearest);
    }
    now.sliding = false;
  }

  document.addEventListener("input", (event) => {
    if (event.target.matches(".ab-range")) {
      slide(event.target.closest(".ab"), Number(event.target.value));
    }
  });
  document.addEventListener("sideschange", (event) => fit(event.target));
  document.addEventListener("heardchange", (event) => follow(event.target));
})();
