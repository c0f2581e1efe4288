// A click on a map or plot always gives the cell or point that was under the mouse when its button went down. Plotly
// forgets what the mouse is over whenever a figure is drawn anew, and loses the next click; and it looks only now and
// then what the mouse is over, so that a fast click gives the place before. Such clicks are sent from here.
(function () {
  "use strict";

  const STILL = 4; // pixels that the mouse may move during a click
  const WAIT_MS = 40; // for Plotly's own event
  const { click, plotOf, targets } = window.workbench.maps;
  let press = null; // the last one on a graph: where, on which cells and points, and whether Plotly told of its click

  // The cell under the mouse; or the point nearest to it, and those of which a marker is under it, as Plotly finds them.
  function under(graph, event) {
    const box = plotOf(graph).getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const away = (one) => Math.hypot(one.x - x, one.y - y);
    const within = (one) => Math.abs(one.x - x) <= one.width / 2 && Math.abs(one.y - y) <= one.height / 2;
    const found = targets(graph).filter(within).sort((a, b) => away(a) - away(b));
    return found.filter((one, place) => one.isCell || place === 0 || away(one) <= one.radius);
  }

  function isSame(target, point) {
    const parts = target.isCell ? ["curveNumber", "x", "y"] : ["curveNumber", "pointNumber"];
    return parts.every((part) => target.place[part] === point[part]);
  }

  // Plotly tells of a click while the mouse button goes up, so that it is the click of the last press.
  function hear({ points: [point] }) {
    if (press) {
      press.isTold = true;
      if (press.found.length && !press.found.some((one) => isSame(one, point))) {
        click(press.graph, press.found[0].place);
      }
    }
  }

  document.addEventListener("pointerdown", (down) => {
    press = null;
    const graph = down.button === 0 && down.target.matches(".nsewdrag") && down.target.closest(".graph");
    if (graph) {
      const plot = plotOf(graph);
      plot.removeListener("plotly_click", hear); // once, whether or not the plot has been made anew
      plot.on("plotly_click", hear);
      press = { graph, found: under(graph, down), isTold: false, x: down.clientX, y: down.clientY };
    }
  }, true);

  document.addEventListener("pointerup", (up) => {
    const one = press;
    if (one && one.found.length && Math.hypot(up.clientX - one.x, up.clientY - one.y) < STILL) {
      setTimeout(() => {
        if (one === press && !one.isTold && one.graph.isConnected) { // a later press would be undone
          click(one.graph, one.found[0].place);
        }
      }, WAIT_MS);
    }
  }, true);
})();
