"""A tab of a real browser with the dashboard: what to do in it, when it has answered, what it shows, what is wrong."""

import html
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Response

QUIET_MS = 60  # without a request or a change, after which the page has answered
# Counts the requests of callbacks, and notes when the mouse or a key was last pressed and the page last changed.
WATCH = """
window.use = { asked: 0, open: 0, pressed: 0, changed: 0 };
const sent = window.fetch;
window.fetch = async (...given) => {
  const isCallback = String(given[0].url || given[0]).includes("_dash-update-component");
  use.asked += isCallback; use.open += isCallback;
  try { return await sent(...given); }
  finally { if (isCallback) { use.open -= 1; use.changed = performance.now(); } }
};
["pointerdown", "keydown"].forEach(kind =>
  document.addEventListener(kind, () => { use.pressed = performance.now(); }, true));
new MutationObserver(changes => {
  if (changes.some(one => !(one.target.closest || (() => null)).call(one.target, ".ab, .playhead, .hoverlayer"))) {
    use.changed = performance.now();
  }
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""
IS_QUIET = "quiet => use.open === 0 && performance.now() - Math.max(use.changed, use.pressed) > quiet"
# The cells and points of a map that can be clicked apart from others, and what each is about.
TARGETS = """
id => {
  const graph = document.getElementById(id), { plotOf, targets } = window.workbench.maps;
  const near = (a, b) => Math.abs(a.x - b.x) < 3 && Math.abs(a.y - b.y) < 3;
  const all = targets(graph);
  return all.filter(one => one.isCell || !all.some(other => other !== one && near(one, other))).map(one => {
    const { customdata, text } = plotOf(graph)._fullData[one.curve], [row, column] = [one.number].flat();
    const about = customdata ? (one.isCell ? customdata[row][column] : customdata[row]) : [text && text[row]];
    return { x: one.x, y: one.y, about: [...(about || [])].map(part => part === null ? null : String(part)) };
  }).filter(one => one.about[0]);
}
"""
PLACE = """
([id, x, y]) => {
  const plot = window.workbench.maps.plotOf(document.getElementById(id));
  let box = plot.getBoundingClientRect();
  if (box.top + y < 60 || box.top + y > innerHeight - 20) {
    window.scrollBy(0, box.top + y - innerHeight / 2);
    box = plot.getBoundingClientRect();
  }
  const scroller = plot.closest(".scroll");
  if (scroller && (box.left + x < 0 || box.left + x > innerWidth)) {
    scroller.scrollBy(box.left + x - innerWidth / 2, 0);
    box = plot.getBoundingClientRect();
  }
  return [box.left + x, box.top + y];
}
"""
STATE = """
() => JSON.stringify({
  url: location.pathname + location.search,
  selects: [...document.querySelectorAll("#page .controls input")].map(one => one.value),
  rows: [...new Set([...document.querySelectorAll(".ag-row-selected")].map(one => one.getAttribute("row-id")))],
  numbers: [...document.querySelectorAll("#page .numbers")].filter(one => one.checkVisibility())
    .map(one => one.innerText),
  sounds: [...document.querySelectorAll("#page audio")].map(one => one.getAttribute("src")),
})
"""


@dataclass(frozen=True)
class Step:
    """Something that a person does: `kind` is a method of `Tab`, `where` a component's id or a selector."""

    kind: str
    where: str
    value: str = ""

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.kind} {self.where}"


@dataclass
class Tab:
    """A tab of a browser, at pages of the dashboard at `address`; `faults` gets what the console and server say."""

    context: BrowserContext
    address: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the tab."""
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.add_init_script(WATCH)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(f"{self.page.url}: {error}"))
        self.page.on("response", self._look)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{self.page.url}: {message.text[:300]}")

    def _look(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"{response.status} of {response.url[:200]}")

    def open(self, view: str, shown: str = "#page h1") -> None:
        """Load a page, until it shows something and is quiet."""
        self.page.goto(self.address + view)
        self.page.locator(shown).first.wait_for()
        self.settle(500)

    def settle(self, quiet: int = QUIET_MS) -> None:
        """Wait until the page has answered."""
        self.page.wait_for_function(IS_QUIET, arg=quiet)

    def do(self, step: Step, number: int) -> float:
        """Do a step for the `number`-th time; return milliseconds from the last press to the last change."""
        getattr(self, step.kind)(step, number)
        self.settle()
        return float(self.page.evaluate("() => use.changed - use.pressed"))

    def query(self) -> dict[str, str]:
        """The selection in the URL."""
        return dict(parse_qsl(urlsplit(self.page.url).query))

    def state(self) -> str:
        """What the page shows, as text."""
        return str(self.page.evaluate(STATE))

    def targets(self, graph: str) -> list[dict[str, Any]]:
        """The cells and points of a map: `x` and `y` in its pixels, and `about`, its names."""
        found: list[dict[str, Any]] = self.page.evaluate(TARGETS, graph)
        for one in found:
            one["about"] = [None if name is None else html.unescape(name) for name in one["about"]]
        return found

    def hit(self, graph: str, target: dict[str, Any]) -> None:
        """Click a cell or point with the mouse."""
        x, y = self.page.evaluate(PLACE, [graph, target["x"], target["y"]])
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.up()

    def cell(self, step: Step, number: int) -> None:
        """Click a cell or point of a map."""
        found = self.targets(step.where)
        self.hit(step.where, found[(7 * number) % len(found)])

    def row(self, step: Step, number: int) -> None:
        """Click one of the first rows of a table."""
        rows = self.page.locator(f"#{step.where} .ag-center-cols-container .ag-row")
        rows.nth(number % min(4, rows.count())).click(position={"x": 20, "y": 8})

    def choose(self, step: Step, number: int) -> None:
        """Choose another option of a select."""
        del number
        self.page.locator(f"#{step.where}").click()
        self.page.locator(
            "[role=option][aria-selected=false]:visible, [role=option]:not([aria-selected]):visible"
        ).first.click()

    def press(self, step: Step, number: int) -> None:
        """Press a button."""
        del number
        self.page.locator(step.where).first.click()

    def type(self, step: Step, number: int) -> None:
        """Type into a field, and empty it the next time."""
        self.page.locator(f"#{step.where}").fill(step.value if number % 2 == 0 else "")
        self.page.wait_for_timeout(350)  # the field waits for the end of the typing
