// Explanations: an element with the attribute data-tip shows its text while the mouse is over it or it has the focus.
(function () {
  "use strict";

  const GAP = 6; // pixels between an element and its explanation
  const MARGIN = 8; // pixels to the edges of the window
  let tip = null;
  let about = null;

  function hide() {
    if (tip) {
      tip.remove();
      about.removeAttribute("aria-describedby");
      tip = about = null;
    }
  }

  // Below the element, or above it where there is no room.
  function show(element) {
    if (element === about) {
      return;
    }
    hide();
    about = element;
    tip = document.createElement("div");
    tip.className = tip.id = "tip";
    tip.setAttribute("role", "tooltip");
    tip.textContent = element.dataset.tip;
    if (!element.hasAttribute("aria-label")) { // which says the same
      element.setAttribute("aria-describedby", tip.id);
    }
    document.body.append(tip);
    const [at, own] = [element.getBoundingClientRect(), tip.getBoundingClientRect()];
    const left = Math.min(at.left + at.width / 2 - own.width / 2, window.innerWidth - own.width - MARGIN);
    const isRoom = at.bottom + GAP + own.height <= window.innerHeight;
    tip.style.left = `${Math.max(MARGIN, left)}px`;
    tip.style.top = `${isRoom ? at.bottom + GAP : Math.max(MARGIN, at.top - GAP - own.height)}px`;
  }

  function follow(event) {
    const element = event.target.closest ? event.target.closest("[data-tip], .tip") : null;
    if (element && element !== tip) {
      show(element);
    } else if (!element) {
      hide();
    }
  }

  document.addEventListener("mouseover", follow);
  document.addEventListener("focusin", follow);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { hide(); } });
})();
