// A blind test of an A/B group (ABX): X is A or B at random, the listener says which, and chance is given as p.
(function () {
  "use strict";

  const TRIALS = 12; // fixed beforehand, so that nobody stops at a lucky moment
  const { choose, element, setMatched, state } = window.workbench.ab;
  const HELP =
    "X is A or B, at random in each of " + TRIALS + " trials. Listen as often as you like (keys 1, 2, 3 play A, B, X), " +
    "then answer (keys A, B). The levels are matched. The result comes after the last trial.";

  // Chance of at least `right` correct answers of `n` by guessing: the upper tail of a binomial distribution at 1/2.
  function chance(right, n) {
    let term = Math.pow(0.5, n); // of 0 correct answers
    let sum = 0;
    for (let k = 0; k <= n; k += 1) {
      sum += k >= right ? term : 0;
      term *= (n - k) / (k + 1);
    }
    return sum;
  }

  const written = (p) => (p < 0.001 ? "p < 0.001" : "p = " + p.toFixed(3));

  function draw(test) {
    test.x = Math.random() < 0.5 ? "a" : "b";
  }

  function chooser(letter, sides, place) {
    const select = element("select", { class: "ab-pick", "data-letter": letter, "aria-label": "recording " + letter.toUpperCase() });
    sides.forEach((side, number) => {
      const option = element("option", { value: String(number) }, side.name);
      option.disabled = Boolean(side.missing);
      option.selected = number === place;
      select.append(option);
    });
    return element("label", {}, letter.toUpperCase() + " ", select);
  }

  function button(text, name, value, key) {
    return element("button", { class: "ab-button", type: "button", [name]: value, "aria-keyshortcuts": key }, text);
  }

  function start(group) {
    const now = state(group);
    const present = now.sides.flatMap((side, place) => (side.missing ? [] : [place]));
    now.test = { a: present[0], b: present[present.length - 1], answers: 0, right: 0 };
    draw(now.test);
    group.classList.add("testing");
    group.querySelector(".ab-blind").setAttribute("aria-pressed", "true");
    group.querySelector(".ab-test").replaceChildren(
      element("div", { class: "ab-picks" }, chooser("a", now.sides, now.test.a), chooser("b", now.sides, now.test.b)),
      element(
        "div", { class: "ab-answers" },
        button("Play A", "data-hear", "a", "1"), button("Play B", "data-hear", "b", "2"),
        button("Play X", "data-hear", "x", "3"),
        button("X is A", "data-answer", "a", "a"), button("X is B", "data-answer", "b", "b"),
      ),
      element("div", { class: "ab-result", role: "status" }),
      element("div", { class: "ab-help" }, HELP),
    );
    setMatched(group, true);
    hear(group, "x");
    tell(group);
  }

  function stop(group) {
    delete state(group).test;
    group.classList.remove("testing");
    group.querySelector(".ab-blind").setAttribute("aria-pressed", "false");
    group.querySelector(".ab-test").replaceChildren();
  }

  function tell(group) {
    const now = state(group);
    const test = now.test;
    const done = test.answers === TRIALS;
    const isSame = now.sides[test.a].audio === now.sides[test.b].audio;
    const sentence = isSame
      ? "A and B are the same recording: choose two different ones."
      : done
        ? test.right + " of " + TRIALS + " right, " + written(chance(test.right, TRIALS)) + " (binomial, one-sided)."
        : "Trial " + (test.answers + 1) + " of " + TRIALS + ".";
    group.querySelector(".ab-result").textContent = sentence;
    group.querySelectorAll("[data-answer]").forEach((one) => { one.disabled = done || isSame; });
    group.querySelectorAll(".ab-pick").forEach((one) => { one.disabled = test.answers > 0 && !done; });
  }

  function hear(group, letter) {
    const test = state(group).test;
    choose(group, test[letter === "x" ? test.x : letter]);
    group.querySelectorAll("[data-hear]").forEach((one) => {
      one.setAttribute("aria-pressed", String(one.dataset.hear === letter));
    });
  }

  function answer(group, letter) {
    const test = state(group).test;
    if (test.answers === TRIALS || group.querySelector("[data-answer]").disabled) {
      return;
    }
    test.answers += 1;
    test.right += letter === test.x ? 1 : 0;
    draw(test);
    hear(group, "x");
    tell(group);
  }

  function pick(group, letter, place) {
    const test = state(group).test;
    Object.assign(test, { [letter]: place, answers: 0, right: 0 });
    draw(test);
    hear(group, "x");
    tell(group);
  }

  document.addEventListener("click", (event) => {
    const group = event.target.closest(".ab");
    const pressed = event.target.closest(".ab-blind, [data-hear], [data-answer]");
    if (!group || !pressed) {
      return;
    }
    if (pressed.matches(".ab-blind")) {
      (state(group).test ? stop : start)(group);
    } else if (pressed.dataset.hear) {
      hear(group, pressed.dataset.hear);
    } else {
      answer(group, pressed.dataset.answer);
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches(".ab-pick")) {
      pick(event.target.closest(".ab"), event.target.dataset.letter, Number(event.target.value));
    }
  });
  document.addEventListener("sideschange", (event) => {
    if (state(event.target).test) {
      stop(event.target); // other recordings: the answers so far were about the old ones
    }
  });

  Object.assign(window.workbench.ab, { answer, chance, hear });
})();
