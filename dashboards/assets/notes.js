// What is written on a feature's card: what could not be saved says so; unanswered.js has it saved later.
(function () {
  "use strict";

  const KINDS = ["label", "note", "sets", "star"];
  let fields = []; // of the open card: what each shows since it was left, and what is saved of it

  // A value as it is kept: a star as "1" or "", sets in order.
  function kept(value) {
    if (Array.isArray(value)) {
      return JSON.stringify([...new Set(value.map((one) => one.trim()))].sort());
    }
    return value === true ? "1" : (value || "").trim();
  }
  const isUnsaved = (field) => kept(field.value) !== kept(field.saved);
  const say = ({ kind, of }, children) => window.dash_clientside.set_props({ kind: `said-${kind}`, of }, { children });

  async function explain() {
    const fault = fields.some(isUnsaved) && (await window.workbench.fault());
    if (fault) {
      fields.filter(isUnsaved).forEach((field) => {
        say(field, `Not saved: ${fault} The ${field.kind} will be saved as soon as it is back.`);
      });
    }
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.notes = {
    // A field was left or saved, or another card was opened: values, what is saved, and what is said, each by kind.
    left: function (...parts) {
      const ids = window.dash_clientside.callback_context.inputs_list;
      fields = KINDS.flatMap((kind, at) =>
        parts[at].map((value, place) => ({
          kind,
          of: ids[at][place].id.of,
          value,
          saved: parts[at + KINDS.length][place].value,
          said: parts[at + 2 * KINDS.length][place],
        })),
      );
      const isSolved = (field) => !isUnsaved(field) && JSON.stringify(field.said || "").includes("Not saved");
      fields.filter(isSolved).forEach((field) => say(field, ""));
      explain();
      return window.dash_clientside.no_update;
    },
  };

  const inputOf = ({ kind, of }) => document.getElementById(JSON.stringify({ kind, of }));

  // A field that is being written in has another text than when it was left.
  function isShownUnsaved(field) {
    const input = inputOf(field);
    const shown = field.kind === "star" ? input?.checked : input?.value;
    return field.kind !== "sets" && input && kept(shown) !== kept(field.saved);
  }

  // The browser's Back takes the card away without leaving the field that is being written in, which saves it.
  window.addEventListener("popstate", () => {
    const input = document.activeElement;
    if (input && fields.some((field) => inputOf(field) === input)) {
      input.blur();
    }
  });

  window.addEventListener("beforeunload", (event) => {
    if (fields.some(isShownUnsaved)) {
      event.preventDefault();
    }
  });
})();
