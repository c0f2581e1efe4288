// What the server did not answer is asked again once it responds: a control that was moved meanwhile, a button that was
// pressed, a cell that was clicked. Of each only the last value, and nothing that has been answered since.
(function () {
  "use strict";

  const AWAY = [502, 503, 504]; // what a proxy answers for a server that is away
  const unanswered = new Map(); // values by component and property, in the order in which they were asked for
  const send = window.fetch;

  // What changed, by component and property; all inputs of a callback that is called for the first time.
  function changes({ inputs, changedPropIds }) {
    const named = inputs.flat().map(({ id, property, value }) => {
      const name = typeof id === "object" ? JSON.stringify(id, Object.keys(id).sort()) : id;
      return [`${name}.${property}`, { id, property, value }];
    });
    const changed = named.filter(([name]) => !changedPropIds.length || changedPropIds.includes(name));
    return changed.filter(([, { property }]) => property !== "n_intervals"); // asked again anyway
  }

  window.fetch = async function (address, options = {}) {
    if (options.method !== "POST" || !String(address).includes("_dash-update-component")) {
      return send.call(window, address, options);
    }
    const asked = changes(JSON.parse(options.body));
    asked.forEach(([name]) => unanswered.delete(name));
    const keep = () => {
      asked.forEach(([name, change]) => unanswered.set(name, change));
      window.workbench.responds(); // the banner says so if it does not
    };
    try {
      const answer = await send.call(window, address, options);
      if (AWAY.includes(answer.status)) {
        keep();
      }
      return answer;
    } catch (error) {
      keep();
      throw error;
    }
  };

  document.addEventListener("reconnected", () => {
    const changed = [...unanswered.values()];
    unanswered.clear();
    changed.forEach(({ id, property, value }) => window.dash_clientside.set_props(id, { [property]: value }));
  });
})();
