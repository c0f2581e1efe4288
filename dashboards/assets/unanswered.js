// What was asked for while the server or its study was away is asked for again once it is back: a control that was
// moved meanwhile, a button that was pressed, a cell that was clicked. Of each only the last value, and nothing that has
// been answered since. A request that failed although neither is away, as when a network changed, is repeated once.
(function () {
  "use strict";

  const AWAY = [502, 503, 504]; // what a proxy answers for a server that is away, and the server for a study that is
  const unanswered = new Map(); // values by component and property, in the order in which they were asked for
  const repeated = new Set(); // names of what was repeated and is not answered yet
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

  // Ask again for what is still unanswered.
  function ask(names) {
    const changed = names.filter((name) => unanswered.has(name)).map((name) => unanswered.get(name));
    names.forEach((name) => unanswered.delete(name));
    changed.forEach(({ id, property, value }) => window.dash_clientside.set_props(id, { [property]: value }));
  }

  window.fetch = async function (address, options = {}) {
    if (options.method !== "POST" || !String(address).includes("_dash-update-component")) {
      return send.call(window, address, options);
    }
    const asked = changes(JSON.parse(options.body));
    asked.forEach(([name]) => unanswered.delete(name));
    const keep = async () => {
      asked.forEach(([name, change]) => unanswered.set(name, change));
      // The banner says so if it is away.
      if (!(await window.workbench.fault())) {
        const names = asked.map(([name]) => name).filter((name) => !repeated.has(name));
        names.forEach((name) => repeated.add(name));
        ask(names);
      }
    };
    try {
      const answer = await send.call(window, address, options);
      if (AWAY.includes(answer.status)) {
        keep();
      } else {
        asked.forEach(([name]) => repeated.delete(name));
      }
      return answer;
    } catch (error) {
      keep();
      throw error;
    }
  };

  document.addEventListener("reconnected", () => {
    repeated.clear();
    ask([...unanswered.keys()]);
  });
})();
