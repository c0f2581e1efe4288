"""What the dashboard's pages have: their maps, what is done on them, their addresses, and what they show of results."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.browser.tab import Step
from workbench.studies.study import Study


@dataclass(frozen=True)
class Map:
    """A map at `view`: `parts` of the URL name the cell that was clicked, and `said` of them stand in `detail`.

    If the map appears only for a cell of another one, that is `first`.
    """

    view: str
    graph: str
    parts: tuple[str, ...]
    detail: str
    said: tuple[str, ...]
    first: str = ""


MAPS = (
    Map(
        "/patching?shown=all", "patching-pairs-graph", ("pair", "seed"), "#cell-players", (), "patching-graph"
    ),
    Map(
        "/probes", "probes-graph", ("concept", "site", "step"), "#probe-numbers", ("concept", "site", "step")
    ),
    Map("/steering", "steering-effects-graph", ("shown", "arm"), "#steered-numbers", ("shown",)),
    Map("/steering", "dose-response-graph", ("arm",), "#steered-players", ()),
    Map("/steering", "ladder-graph", ("arm",), "#steered-players", ()),
    Map("/evaluation", "alignment-preservation-graph", ("arm", "direction"), "#evaluation-heard", ("arm",)),
    Map("/comparison", "patching-compare-graph", ("concept", "row"), "#compare-cell", ("concept", "row")),
)
"""The maps of a study, without those of patching, which it may have several of."""
STEPS = {
    "/": (Step("row", "clips-grid"), Step("type", "clip-search", "song")),
    "/patching": (
        Step("cell", "patching-graph"),
        Step("row", "pairs-grid"),
        Step("cell", "patching-pairs-graph"),
        Step("choose", "patching-scorer"),
    ),
    "/probes": (
        Step("cell", "probes-graph"),
        Step("choose", "probes-quantity"),
        Step("choose", "probes-part"),
    ),
    "/features": (Step("row", "features-grid"), Step("type", "feature-search", "tempo")),
    "/feature-pairs": (Step("choose", "pairs-order"), Step("choose", "pairs-by")),
    "/clip": (Step("choose", "firing-order"), Step("choose", "firing-step")),
    "/steering": (
        Step("cell", "steering-effects-graph"),
        Step("cell", "dose-response-graph"),
        Step("row", "steered-grid"),
        Step("cell", "ladder-graph"),
        Step("choose", "steering-strength"),
    ),
    "/evaluation": (
        Step("cell", "alignment-preservation-graph"),
        Step("choose", "evaluation-measure"),
        Step("row", "evaluation-grid"),
        Step("choose", "evaluation-method"),
    ),
    "/comparison": (Step("cell", "patching-compare-graph"), Step("choose", "compare-column")),
}
"""What is done again and again on each page."""
SCHEME = Step("press", "#color-scheme")
PLAYING = {
    "/": (
        "#clip-player",
        STEPS["/"][:1],
        (Step("type", "clip-search", "song"), Step("type", "clips-find", "tempo")),
    ),
    "/patching?shown=all": (
        "#cell-players",
        STEPS["/patching"][:1],
        (
            Step("choose", "patching-scorer"),
            Step("press", "#all-arms"),
            Step("type", "pairs-filter", "fast"),
            Step("choose", "patching-shown"),
            SCHEME,
        ),
    ),
    "/features": (
        "#feature-clips",
        STEPS["/features"][:1],
        (Step("type", "feature-search", "tempo"), Step("press", "#feature-quantiles"), SCHEME),
    ),
    "/clip": ("#firing-picture", (), (*STEPS["/clip"], SCHEME)),
    "/steering": (
        "#steered-players",
        STEPS["/steering"][1:2],
        (
            Step("choose", "steering-strength"),
            Step("choose", "steering-scorer"),
            Step("row", "vectors-grid"),
            SCHEME,
        ),
    ),
    "/evaluation?concept=tempo": (
        "#evaluation-player",
        STEPS["/evaluation"][:1],
        (
            Step("choose", "evaluation-measure"),
            Step("choose", "evaluation-method"),
            Step("row", "evaluation-grid"),
            SCHEME,
        ),
    ),
}
"""Pages with sound: where, the steps until there is one, and those while it plays, which leave its recording."""
NAMES = {
    "/": ("clip", "find", "page"),
    "/patching": (
        "result",
        "scorer",
        "shown",
        "column",
        "concept",
        "arm",
        "pair",
        "seed",
        "arms",
        "find",
        "page",
    ),
    "/probes": ("concept", "site", "step", "part", "quantity", "find", "page"),
    "/features": ("sae", "feature", "view", "set", "value", "against", "area"),
    "/feature-pairs": ("sae", "with", "by", "order", "page"),
    "/clip": ("sae", "clip", "step", "by", "second"),
    "/steering": ("result", "scorer", "shown", "strength", "arm", "pair", "seed", "pack", "site"),
    "/evaluation": ("result", "concept", "direction", "scorer", "measure", "method", "arm", "pair", "seed"),
    "/comparison": ("other", "result", "scorer", "column", "concept", "row"),
    "/imported": ("model", "threshold"),
}
"""The parts of the URL of each page."""
WRONG = (
    *(
        "nonsense",
        "-1",
        "9" * 30,
        "1e999",
        "nan",
        "null",
        "²",
        "1,2,3",
        "0x10",
        "%",
        "+",
        "'\"`",
        "[[[[",
        "{}",
    ),
    *("../../etc/passwd", "\x00", "a" * 4000, "<x-evil onmouseover=alert(1)>b</x-evil>", "مرحبا 🎵", "%{x}"),
)
APPEAR = {
    "/patching": "#patching-graph .main-svg",
    "/probes": "#probes-graph .main-svg",
    "/features": "#features-grid .ag-row",
    "/feature-pairs": "#pairs-table table",
    "/clip": "#firing-features a",
    "/steering": "#ladder-graph .main-svg",
    "/evaluation": "#alignment-preservation-graph .main-svg",
    "/comparison": "#patching-compare-graph .main-svg",
}
"""What each page shows of results."""
KIND = {
    "/patching": "patching",
    "/probes": "probes",
    "/features": "sae",
    "/feature-pairs": "sae",
    "/clip": "sae",
    "/steering": "steering",
    "/evaluation": "benchmark",
    "/comparison": "patching",
}
"""The kind of result that a page shows."""


def maps_of(study: Study) -> list[Map]:
    """The maps that the study has results for."""
    names = [name.partition("-")[2] for name in study.result_names() if name.startswith("patching-")]
    cell = ("concept", "arm")
    patching = [
        Map(
            f"/patching?result={quote(name)}&shown=all&column=-",
            "patching-graph",
            cell,
            "#cell-numbers",
            cell,
        )
        for name in names
    ]
    kinds = {name.partition("-")[0] for name in study.result_names()}
    return [*patching, *(one for one in MAPS if KIND.get(one.view.partition("?")[0]) in kinds)]


def shown_paths(results: Path) -> list[str]:
    """The pages that a folder of results has something for."""
    names = [file.stem for file in results.glob("*.nc")]
    kinds = {name.partition("-")[0] for name in names}
    has_two = sum(name.startswith("sae-") for name in names) > 1
    return [path for path in APPEAR if KIND[path] in kinds and (path != "/feature-pairs" or has_two)]
