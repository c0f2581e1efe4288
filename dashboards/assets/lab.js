// The lab: a key renders from anywhere on the page, and what was rendered is heard as soon as it is there.
(function () {
  "use strict";

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.lab = {
    // Whether nothing more will become of the page's latest job, given the last one that is over.
    isOver: (asked, over) => !asked || !asked.jobs.length || asked.jobs[asked.jobs.length - 1] === over,
    // The step of the slider of a strength, by the method that steers through the prompt.
    stepOf: (method) => (method === "pci" ? 1 : 0.1),
  };

  let asked = false; // a person has asked for a clip that has not been heard yet

  const isText = (element) =>
    element.isContentEditable || element.matches("textarea, select, input:not([type=checkbox]):not([type=range])");
  const acts = (element) => element.matches("button, a, [role=slider], [role=switch], [role=combobox], input");

  document.addEventListener("keydown", (event) => {
    const button = document.getElementById("lab-render");
    if (!button || event.altKey || event.metaKey || event.repeat) {
      return;
    }
    const typed = isText(event.target);
    const renders = event.ctrlKey
      ? event.key === "Enter"
      : !typed && (event.key === "g" || event.key === "G" || (event.key === "Enter" && !acts(event.target)));
    if (renders) {
      event.preventDefault();
      if (typed) {
        event.target.blur(); // fields report what was typed when they are left
      }
      setTimeout(() => button.click(), 0);
    }
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("#lab-render")) {
      asked = true;
    }
  });

  const COPIED = "Copied";
  const REFUSED = "Copy it from the link's menu"; // browsers refuse scripts the clipboard on pages without HTTPS

  document.addEventListener("click", (event) => {
    const button = event.target.closest("#lab-copy-link");
    if (!button) {
      return;
    }
    const say = (text) => {
      const label = button.querySelector(".mantine-Button-label") || button;
      const usual = label.dataset.usual || label.textContent;
      label.dataset.usual = usual;
      label.textContent = text;
      setTimeout(() => (label.textContent = usual), 2000);
    };
    const address = document.getElementById("lab-link").href;
    const copied = navigator.clipboard ? navigator.clipboard.writeText(address) : Promise.reject();
    copied.then(() => say(COPIED), () => say(REFUSED));
  });

  // The player has other recordings: the latest is chosen already (see components/ab.py).
  document.addEventListener("sideschange", (event) => {
    const ab = window.workbench.ab;
    if (event.target.id !== "lab-players" || !asked || !ab.state(event.target).sides.length) {
      return;
    }
    asked = false;
    ab.latest = event.target;
    setTimeout(() => {
      if (!ab.state(event.target).playing) {
        ab.toggle(event.target);
      }
    }, 0);
  });
})();
