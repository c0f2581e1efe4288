// A click on a cell of a map always gives that cell. Plotly forgets what the mouse is over whenever a figure is drawn
// anew, and loses the next click; and it looks only now and then what the mouse is over, so that a fast click gives the
// cell before. Such clicks are sent from here.
(function () {
  "use strict";

  const STILL = 4; // pixels that the mouse may move during a click
  const WAIT_MS = 40; // for Plotly's own event
  const { click, plotOf, targets } = window.workbench.maps;

  function cellAt(graph, event) {
    const box = plotOf(graph).getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const within = (one) => Math.abs(one.x - x) <= one.width / 2 && Math.abs(one.y - y) <= one.height / 2;
    return targets(graph).find((one) => one.isCell && within(one));
  }

  document.addEventListener("pointerdown", (down) => {
    const graph = down.button === 0 && down.target.closest(".graph");
    if (!graph || !down.target.matches(".nsewdrag")) {
      return;
    }
    const plot = plotOf(graph);
    let isSent = false;
    const hear = (told) => {
      const [point, cell] = [told.points[0], cellAt(graph, down)];
      isSent = true;
      if (cell && ["x", "y", "curveNumber"].some((part) => cell.place[part] !== point[part])) {
        click(graph, cell.place);
      }
    };
    plot.on("plotly_click", hear);
    document.addEventListener("pointerup", (up) => {
      setTimeout(() => {
        plot.removeListener("plotly_click", hear);
        const isClick = Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY) < STILL;
        const cell = isClick && !isSent && graph.isConnected && cellAt(graph, up);
        if (cell) {
          click(graph, cell.place);
        }
      }, WAIT_MS);
    }, { capture: true, once: true });
  }, true);
})();
