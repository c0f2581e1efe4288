// Keys of the players work wherever the focus is: Space plays or pauses, digits choose the recording that is heard. Of
// several players on a page, they play the one that was touched or focused last, which says so.
(function () {
  "use strict";

  const ab = window.workbench.ab;
  const { answer, choose, hear, state, toggle } = ab;
  const TEXT =
    "input:not([readonly], [type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable=true], " +
    "[aria-expanded=true]";
  // What Space presses, where the keyboard brought the focus there.
  const PRESSED =
    "button, summary, input, [role=button], [role=option], [role=menuitem], [role=tab], [role=gridcell]";
  let pointed = false; // whether the focus was last moved by the mouse
  let handled = false; // whether the key that is down was one of ours

  const isShown = (group) => group.isConnected && group.offsetParent !== null;
  const all = () => [...document.querySelectorAll(".ab")];

  // The group that was touched or focused last, or the first on the page.
  function current() {
    const shown = all().filter(isShown);
    return shown.find((one) => one === ab.latest) || shown[0];
  }

  // Mark the group that the keys play; the others say that they do not.
  function mark() {
    const played = current();
    all().forEach((one) => one.classList.toggle("keyed", one === played));
    skip.hidden = !played;
  }

  function touch(event) {
    const group = event.target instanceof Element && event.target.closest(".ab");
    if (group) {
      ab.latest = group;
    }
    mark();
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
  const skip = ab.element("a", { href: "#", class: "skip-to-player", hidden: "" }, "Skip to the player");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    const group = current();
    if (group) {
      group.querySelector(".ab-play").focus();
    }
  });
  document.addEventListener("pointerdown", (event) => {
    pointed = true;
    touch(event);
  }, true);
  document.addEventListener("focusin", touch);
  document.addEventListener("sideschange", () => {
    if (!skip.isConnected) {
      document.body.prepend(skip);
    }
    requestAnimationFrame(mark);
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
    const group = current();
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
