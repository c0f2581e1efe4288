// The lab: a key renders from anywhere on the page, and what was rendered is heard as soon as it is there.
(function () {
  "use strict";

  // Milliseconds between questions about a job that has been asked for a number of seconds.
  const PACES = [[5, 150], [60, 500], [Infinity, 2000]];
  const UNREACHABLE_MS = 3000;
  const TAB = "lab-page";
  let latest = { job: "", since: 0 };

  // The name of this tab, which the browser keeps only while the page is loaded again: a copy of the tab gets its own.
  let tabName = null;
  function takeName() {
    tabName = tabName || sessionStorage.getItem(TAB);
    sessionStorage.removeItem(TAB);
  }
  takeName();
  window.addEventListener("pageshow", takeName); // also of a page that the browser had kept
  window.addEventListener("pagehide", () => tabName && sessionStorage.setItem(TAB, tabName));

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.lab = {
    // The name of this tab, by which the server knows it again after a reload: it has one clip at a time.
    tab(_, fresh) {
      tabName = tabName || fresh;
      return tabName;
    },
    // Often while something is about to happen, seldom for a long job or while the server does not answer.
    pace(_, asked) {
      const job = asked && asked.jobs.length ? asked.jobs[asked.jobs.length - 1] : "";
      if (job !== latest.job) {
        latest = { job, since: Date.now() };
      }
      const seconds = (Date.now() - latest.since) / 1000;
      const pace = PACES.find(([most]) => seconds < most)[1];
      return document.getElementById("connection") ? UNREACHABLE_MS : pace;
    },
    // The clips that an address asks for, and what is said of them, unless something has been asked for meanwhile.
    opened([recalled, said], asked) {
      const none = window.dash_clientside.no_update;
      return asked.jobs.length ? [none, none] : [recalled, said || none];
    },
    // What is said of a strength or a switch of a clip that has been made, if it is moved while the server is away.
    async moved(_strengths, _switches, asked) {
      const fault = asked && asked.jobs.length && (await window.workbench.fault());
      return fault ? `${fault} ${LATER}` : window.dash_clientside.no_update;
    },
    // Whether nothing more will become of the page's latest job, given the last one that is over.
    isOver: (asked, over) => !asked || !asked.jobs.length || asked.jobs[asked.jobs.length - 1] === over,
    // The step of the slider of a strength, by the method that steers through the prompt.
    stepOf: (method) => (method === "pci" ? 1 : 0.1),
  };

  let asked = false; // a person has asked for a clip that has not been heard yet

  // It is asked for again by unanswered.js.
  const LATER = "This clip will be rendered as soon as it is back.";

  // Nothing is rendered for a strength that was moved back meanwhile: what is said of the clip is asked for again.
  document.addEventListener("reconnected", () => {
    const status = document.getElementById("lab-status");
    if (status && status.textContent.endsWith(LATER)) {
      window.dash_clientside.set_props("lab-tick", { n_intervals: 0 });
    }
  });

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
      window.workbench.fault().then((fault) => {
        if (fault) {
          window.dash_clientside.set_props("lab-status", { children: `${fault} ${LATER}` });
        }
      });
    }
  });

  const cards = () => [...document.querySelectorAll("#lab-edits .lab-card")];
  const WAIT_MS = 5000;

  // Focus what `find` gives as soon as the number of cards has changed.
  function focusThen(find) {
    const before = cards().length;
    const observer = new MutationObserver(() => {
      if (cards().length !== before) {
        observer.disconnect();
        find()?.focus();
      }
    });
    observer.observe(document.getElementById("lab-edits"), { childList: true });
    setTimeout(() => observer.disconnect(), WAIT_MS);
  }

  // Whoever adds or removes an edit by the keyboard goes on in the new card, or at the one in the place of the removed.
  document.addEventListener("click", (event) => {
    if (event.detail) {
      return; // by the mouse
    }
    const card = event.target.closest(".lab-card");
    if (event.target.closest('[id*="lab-add"]')) {
      focusThen(() => cards().at(-1).querySelector("input"));
    } else if (card && event.target.closest('[id*="lab-remove"]')) {
      const place = cards().indexOf(card);
      focusThen(() => {
        const next = cards()[Math.min(place, cards().length - 1)];
        return next ? next.querySelector('[id*="lab-remove"]') : document.querySelector('[id*="lab-add"]');
      });
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
