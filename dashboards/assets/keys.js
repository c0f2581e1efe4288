// Keys of the players work wherever the focus is: Space plays or pauses, digits choose the recording that is heard.
(function () {
  "use strict";

  const { answer, choose, hear, state, toggle } = window.workbench.ab;
  const TEXT =
    "input:not([readonly], [type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable=true], " +
    "[aria-expanded=true]";
  // What Space presses, where the keyboard brought the focus there.
  const PRESSED =
    "button, summary, input, [role=button], [role=option], [role=menuitem], [role=tab], [role=gridcell]";
  let pointed = false; // whether the focus was last moved by the mouse
  let handled = false; // whether the key that is down was one of ours

  document.addEventListener("pointerdown", () => { pointed = true; }, true);

  const isShown = (group) => group.isConnected && group.offsetParent !== null;

  // The group that plays, or that was used last, or the first on the page.
  function current(target) {
    const within = target.closest(".ab");
    const shown = [...document.querySelectorAll(".ab")].filter(isShown);
    const latest = window.workbench.ab.latest;
    return within || shown.find((one) => state(one).playing) || shown.find((one) => one === latest) || shown[0];
  }

  function inTest(group, key) {
    const letter = { 1: "a", 2: "b", 3: "x" }[key];
    if (letter) {
      hear(group, letter);
    } else if (/^[abAB]$/.test(key)) {
      answer(group, key.toLowerCase());
    }
    return Boolean(letter) || /^[abAB]$/.test(key);
  }

  function act(group, target, key) {
    if (key === " ") {
      const isPressed = target.matches(PRESSED) && !target.matches(".ab-play, .ab-switch") && !pointed;
      if (!isPressed) {
        toggle(group);
      }
      return !isPressed;
    }
    if (state(group).test) {
      return inTest(group, key);
    }
    const isDigit = /^[1-9]$/.test(key);
    if (isDigit) {
      choose(group, Number(key) - 1);
    }
    return isDigit;
  }

  // From the start of the page to the player in one step.
  const skip = window.workbench.ab.element("a", { href: "#", class: "skip-to-player", hidden: "" }, "Skip to the player");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    const group = current(skip);
    if (group) {
      group.querySelector(".ab-play").focus();
    }
  });
  document.addEventListener("focusin", () => { skip.hidden = !current(document.body); });
  document.addEventListener("sideschange", () => {
    if (!skip.isConnected) {
      document.body.prepend(skip);
    }
    requestAnimationFrame(() => { skip.hidden = !current(document.body); });
  });

  // In the capture phase, before a table or a graph takes the key for itself.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab" || event.key.startsWith("Arrow")) {
      pointed = false;
    }
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.target instanceof Element)) {
      return;
    }
    if (event.target.matches(TEXT) || event.target.closest("[role=dialog], [role=listbox], [role=menu]")) {
      return;
    }
    const group = current(event.target);
    handled = Boolean(group) && act(group, event.target, event.key);
    if (handled) {
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);
  document.addEventListener("keyup", (event) => {
    if (handled && event.key === " ") {
      event.preventDefault(); // Firefox presses buttons when the key comes up
    }
    handled = false;
  }, true);
})();
