// On the page of a clip, a click or an arrow key chooses the second and the denoising step whose features are listed.
(function () {
  "use strict";

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const rounded = (second) => Math.round(100 * second) / 100;
  const middle = (place, token) => rounded((place + 0.5) * token); // of a token, in which it stays when rounded
  const within = (place, count) => Math.min(Math.max(place, 0), count - 1);

  // They become part of the address, which everything on the page follows.
  function choose(moment) {
    const query = new URLSearchParams(location.search);
    Object.entries(moment).forEach(([name, value]) => {
      if (value === null) {
        query.delete(name);
      } else {
        query.set(name, value);
      }
    });
    window.dash_clientside.set_props("url", { search: "?" + query.toString() });
  }

  document.addEventListener("click", (event) => {
    const picture = event.target.closest("#firing-picture .picture");
    const strip = event.target.closest("#firing-steps");
    if (!picture && !strip) {
      return;
    }
    const box = (picture || strip).getBoundingClientRect();
    const across = Math.max((event.clientX - box.left) / box.width, 0);
    if (picture) {
      choose({ second: rounded(across * Number(document.getElementById("firing-picture").dataset.seconds)) });
      return;
    }
    const { steps, token, tokens } = JSON.parse(strip.dataset.steps);
    const down = (event.clientY - box.top) / box.height;
    choose({
      second: middle(within(Math.floor(across * tokens), tokens), token),
      step: steps[within(Math.floor(down * steps.length), steps.length)],
    });
  });

  document.addEventListener("keydown", (event) => {
    const strip = event.target.closest && event.target.closest("#firing-steps");
    if (!strip || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (event.key === "Escape") {
      choose({ second: null, step: null });
    } else if (MOVES[event.key]) {
      event.preventDefault();
      const { steps, token, tokens } = JSON.parse(strip.dataset.steps);
      const query = new URLSearchParams(location.search);
      const [across, down] = MOVES[event.key];
      const second = query.has("second") ? Math.floor(Number(query.get("second")) / token + 1e-6) + across : 0;
      const step = query.has("step") ? steps.indexOf(Number(query.get("step"))) + down : 0;
      choose(across ? { second: middle(within(second, tokens), token) } : { step: steps[within(step, steps.length)] });
    }
  });
})();
