"""On paper no text lies over another or beyond the page, and every number lies in its cell."""

import itertools
import re
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dashboards.drawing.paper import PAPER_STYLE, Width
from dashboards.figures import (
    FIGURES,
    dose_response,
    feature,
    feature_clip,
    ladder,
    make_spec,
    patching_comparison,
    patching_map,
    patching_pairs,
    probe_folds,
    probe_maps,
    steering_effects,
)
from dashboards.tables.comparison import Map, compare_maps
from dashboards.tables.patching import UNTESTED
from workbench.spectrogram import FLOOR_DB, mel_spectrogram
from workbench.studies.study import Study

WIDTHS: tuple[Width, ...] = ("single", "double")
SIZES = [(4, 8), (8, 24), (30, 24), (100, 24), (1, 57)]
NUMBER = re.compile(r"−?\d+\.\d\d")
TALLEST = 11.0  # inches


@pytest.fixture(autouse=True)
def paper_style() -> Any:
    """The figures' own settings."""
    with matplotlib.style.context(["default", {**PAPER_STYLE, "font.family": ["DejaVu Sans"]}]):
        yield


def texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Text, Bbox]]:
    """All text that is really drawn, with the room that it takes, in pixels."""
    canvas, drawn, draw = FigureCanvasAgg(figure), [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer)))
    canvas.draw()
    found = {id(text): text for text in drawn if text.get_visible() and text.get_text().strip()}
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in found.values()]


def overlapping(boxes: list[Bbox]) -> np.ndarray:
    """Places of each two boxes that have a point in common; all pairs at once, since there are hundreds of boxes."""
    low, high = (np.array([getattr(box, side) for box in boxes]).reshape(-1, 2) for side in ("min", "max"))
    common = (low[:, None] <= high) & (low <= high[:, None])
    return np.argwhere(np.triu(common.all(axis=-1), k=1))


def check(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Assert that nothing overlaps or sticks out; gives all that is written."""
    placed = texts(figure, monkeypatch)
    point = figure.dpi / 72
    for text, box in placed:
        assert box.x0 > -point and box.y0 > -point, text.get_text()
        assert box.x1 < figure.bbox.x1 + point and box.y1 < figure.bbox.y1 + point, text.get_text()
    for one, other in overlapping([box.padded(-0.4 * point) for _, box in placed]):
        raise AssertionError(f"{placed[one][0].get_text()!r} and {placed[other][0].get_text()!r}")
    for text, box in placed:
        if text.axes is not None and text in text.axes.texts and NUMBER.fullmatch(text.get_text()):
            corners = text.axes.transData.inverted().transform(box.get_points())
            middle = np.array(text.get_position())
            assert np.abs(corners - middle).max() <= 0.5, text.get_text()
    return [text.get_text() for text, _ in placed]


def map_frame(concepts: int, blocks: int, status: str = "clear") -> pd.DataFrame:
    """A map of many concepts with long names in both directions, and a null row below one of them."""
    rng = np.random.default_rng(0)
    cells = [
        {
            "panel": panel,
            "across": f"{concept}: a rather long name, {concept}",
            "concept": f"{concept}: a rather long name, {concept}",
            "label": label,
            "block": int(label[2:]) if label.startswith("tf") else -1,
            "direction": panel,
            "column": panel,
            "largest_of": 24 if label.startswith("null") else 1,
            "group": "null" if label.startswith("null") else "cell",
            "impact": rng.normal(0.3, 0.5),
            "status": status if concept else "undefined",
            "n_pairs": 3 if status == UNTESTED else 12,
            "p": 0.25,
        }
        for panel in ("sufficiency", "necessity")
        for concept in range(concepts)
        for label in [*(f"tf{block}" for block in range(blocks)), "null: unrelated"]
        if panel == "sufficiency" or not label.startswith("null")
    ]
    frame = pd.DataFrame(cells)
    frame.loc[frame["status"] == "undefined", "impact"] = np.nan
    return frame


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
def test_maps_of_any_size_can_be_read(
    size: tuple[int, int], width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = patching_map.draw_paper(map_frame(*size), width)
    assert figure.get_figheight() < TALLEST
    shown = check(figure, monkeypatch)
    assert any(name.startswith(("0:", "0…")) for name in shown)
    assert (size != (4, 8)) or sum(bool(NUMBER.fullmatch(text)) for text in shown) >= 2 * 3 * 8


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_of_a_studys_own_map_fit_one_column(
    study: Study, width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ({}, {"name": "steps"}, {"concept": "tempo"}):
        frame = FIGURES["patching"].table(study, make_spec(study, "patching", options))
        shown = check(patching_map.draw_paper(frame, width), monkeypatch)
        numbers = sum(bool(NUMBER.fullmatch(text)) for text in shown)
        assert numbers == frame["impact"].notna().sum()


def test_a_map_of_too_few_pairs_says_how_small_p_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in WIDTHS:
        written = " ".join(check(patching_map.draw_paper(map_frame(4, 8, UNTESTED), width), monkeypatch))
        assert "3 pairs: smallest possible p is 0.25" in written
    assert "smallest" not in " ".join(check(patching_map.draw_paper(map_frame(4, 8), "single"), monkeypatch))


def probe_frame(concepts: int, blocks: int, steps: int) -> pd.DataFrame:
    rows = itertools.product(range(concepts), range(blocks), range(steps))
    frame = pd.DataFrame(rows, columns=["concept", "block", "step"])
    values = np.random.default_rng(0).random(len(frame))
    return frame.assign(
        concept=[f"{concept}: a rather long name" for concept in frame["concept"]],
        accuracy=np.where(frame["block"] == 0, np.nan, values),
        q_value=np.where(frame["block"] == 0, np.nan, 0.5 * values),
        chance=np.where(frame["concept"] == 0, np.nan, 0.5),
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [(4, 8, 4), (5, 24, 8), (20, 24, 12), (100, 24, 8), (1, 3, 1)])
def test_probe_maps_of_any_size_can_be_read(
    size: tuple[int, int, int], width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = probe_maps.draw_paper(probe_frame(*size), "accuracy", width)
    assert figure.get_figheight() < TALLEST
    assert "nan" not in " ".join(check(figure, monkeypatch))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [(4, 8), (30, 24)])
def test_comparisons_of_any_size_can_be_read(
    size: tuple[int, int], width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = map_frame(*size)
    cells = frame[(frame["panel"] == "sufficiency") & (frame["group"] == "cell")]
    cells = cells.assign(row=cells["label"], impact_lo=cells["impact"] - 0.1, impact_hi=np.nan)
    maps = [Map(f"a study with quite a long name {side}", cells, size[1]) for side in "ab"]
    check(patching_comparison.draw_paper(compare_maps(maps[0], maps[1], 3, []), width), monkeypatch)


@pytest.mark.parametrize("width", WIDTHS)
def test_features_of_many_values_can_be_read(width: Width, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [f"concept {number}=value with a long name {number}" for number in range(400)]
    panels = [
        pd.DataFrame({"panel": "histogram", "label": "", "x": np.zeros(20), "value": np.nan}),
        pd.DataFrame({"panel": "step_profile", "label": "", "x": np.arange(60.0), "value": 0.0}),
        pd.DataFrame(
            {
                "panel": "auroc",
                "label": values,
                "value": np.linspace(0.2, 1, 400),
                "value_lo": 0.1,
                "value_hi": 1.0,
            }
        ),
    ]
    panels[2].loc[7, "value"] = np.nan
    figure = feature.draw_paper(pd.concat(panels, ignore_index=True), width)
    assert figure.get_figheight() < TALLEST
    written = check(figure, monkeypatch)
    assert "30 of 400 values furthest from 0.5" in written


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("figure", "options"),
    [
        ("patching-pairs", {"concept": "drums", "arm": "tf3 necessity"}),
        ("probe-folds", {"concept": "drums", "site": "tf4.mlp", "step": 4}),
        ("probe-descriptors", {}),
        ("sae-training", {}),
        ("sae-quality", {}),
        ("feature", {"feature": 7}),
        ("feature", {"feature": 47}),  # a dead one
        ("feature-clip", {"feature": 5, "clip": 3}),
        ("dose-response", {}),
        ("ladder", {}),
        ("ladder", {"scorer": "clap"}),  # undefined
        ("steering-effects", {}),
        ("vector-reliability", {}),
        ("alignment-preservation", {}),
        ("alignment-preservation", {"across": "preservation", "scorer": "deaf"}),  # hidden
        ("method-ranking", {"concept": "tempo"}),
        ("method-ranking", {"scorer": "deaf"}),
        ("leakage", {}),
    ],
)
def test_the_other_figures_can_be_read(
    study: Study, figure: str, options: dict[str, Any], width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(study, figure, {**options, "width": width})
    drawn = FIGURES[figure].paper(study, spec, FIGURES[figure].table(study, spec))
    assert "nan" not in " ".join(check(drawn, monkeypatch))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("ways", [12, 40])
def test_steering_figures_of_many_ways_can_be_read(
    study: Study, ways: int, width: Width, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{way}: a rather long name of a vector, {way}" for way in range(ways)]
    rungs = FIGURES["ladder"].table(study, make_spec(study, "ladder", {}))
    rungs = pd.concat(
        [rungs.iloc[[1]].assign(way=name, arm=f"{name} × 2") for name in names], ignore_index=True
    )
    assert ladder.draw_paper(rungs, width).get_figheight() < TALLEST
    check(ladder.draw_paper(rungs, width), monkeypatch)
    doses = FIGURES["dose-response"].table(study, make_spec(study, "dose-response", {}))
    cell = doses[doses["way"] == "vector"]
    doses = pd.concat(
        [doses, *(cell.assign(way=name, concept="c" * 90) for name in names)], ignore_index=True
    )
    drawn = dose_response.draw_paper(doses, width)
    assert drawn.get_figheight() < TALLEST
    check(drawn, monkeypatch)
    leaks = FIGURES["steering-effects"].table(study, make_spec(study, "steering-effects", {}))
    cell = leaks[leaks["arm"] == "vector × 2"]
    leaks = pd.concat(
        [leaks, *(cell.assign(way=name, arm=f"{name} × 2") for name in names)], ignore_index=True
    )
    drawn = steering_effects.draw_paper(leaks, width)
    assert drawn.get_figheight() < TALLEST
    check(drawn, monkeypatch)


def test_figures_of_nothing_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = pd.DataFrame({"concept": "c" * 90, "site": "tf0.mlp", "step": 1, "fold": range(12)})
    check(
        probe_folds.draw_paper(folds.assign(accuracy=np.nan, control=np.nan, chance=np.nan), "single"),
        monkeypatch,
    )
    moved = pd.DataFrame({"concept": "c" * 90, "arm": "a" * 90, "quantity": ["a", "b"], "value": np.nan})
    check(patching_pairs.draw_paper(moved, "single"), monkeypatch)
    check(patching_map.draw_paper(map_frame(1, 4), "single"), monkeypatch)


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent().padded(-3)
    image = np.asarray(canvas.buffer_rgba())[::-1]
    return image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1), :3]


@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_a_silent_clip_is_white(samples: int) -> None:
    mel = mel_spectrogram(np.zeros((2, samples), dtype=np.float32), 16000)
    assert (mel == FLOOR_DB).all()
    rows = [(step, 0.1 * token, 0.0) for step in (0, 1) for token in range(10)]
    trace = pd.DataFrame(rows, columns=["step", "seconds", "value"])
    assert (pixels(feature_clip.draw_paper(trace, mel, 1.0, "single")) == 255).all()
    loud = mel_spectrogram(np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32), 16000)
    assert (pixels(feature_clip.draw_paper(trace, loud, 1.0, "single")) < 128).any()
