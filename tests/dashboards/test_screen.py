"""What is drawn on screen is what the tables say, and a click finds its cell again."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.utils import PlotlyJSONEncoder

from dashboards.drawing import palette
from dashboards.drawing.grids import cell_at, lay_out
from dashboards.figures import FIGURES, make_spec
from dashboards.screen.comparison import comparison_map, comparison_scatter
from dashboards.screen.features import feature_panels, sae_training
from dashboards.screen.patching import changes, patching_map
from dashboards.screen.probes import TRACES, probe_at, probe_folds, probes_map
from tests.dashboards.synthetic_study import UNDEFINED
from workbench.studies.study import Study


def numbers(study: Study, figure: str, /, **options: Any) -> Any:
    return FIGURES[figure].frame(study, make_spec(study, figure, options))


MAPS: list[dict[str, Any]] = [{}, {"name": "steps"}, {"name": "blocks", "concept": "tempo"}]


@pytest.mark.parametrize("options", MAPS)
def test_every_patching_cell_shows_its_number_or_says_undefined(
    study: Study, options: dict[str, Any]
) -> None:
    frame = numbers(study, "patching", **options)
    shown: dict[tuple[str, str], str] = {}
    for trace in patching_map(frame).data:
        if trace.type == "heatmap":
            for z, text, data in zip(
                np.ravel(trace.z), np.ravel(trace.text), trace.customdata.reshape(-1, 3), strict=True
            ):
                if not np.isnan(z):
                    assert (data[0], data[1]) not in shown
                    shown[data[0], data[1]] = text
    assert len(shown) == len(frame)
    for row in frame.itertuples():
        expected = "undefined" if row.concept == UNDEFINED else f"{row.impact:.2f}"
        assert shown[row.concept, row.arm] == expected


@pytest.mark.parametrize("options", MAPS)
def test_only_unclear_cells_are_hatched(study: Study, options: dict[str, Any]) -> None:
    frame = numbers(study, "patching", **options)
    lines = [trace for trace in patching_map(frame).data if trace.type == "scatter"]
    ends = [(x, y) for trace in lines for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
    middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    unclear = frame[frame["status"].isin(["not significant", "inside null band"])]
    assert {cell_at(frame, x, y) for x, y in middles} == set(
        zip(unclear["concept"], unclear["arm"], strict=True)
    )
    if options.get("name") != "steps":
        assert ("tempo", "tf6") in {cell_at(frame, x, y) for x, y in middles}


@pytest.mark.parametrize("options", MAPS)
def test_a_click_finds_each_patching_cell(study: Study, options: dict[str, Any]) -> None:
    frame = numbers(study, "patching", **options)
    found = set()
    for trace in patching_map(frame).data:
        if trace.type == "heatmap":
            for row, column in np.ndindex(trace.customdata.shape[:2]):
                x = (trace.x[column] + trace.x[column + 1]) / 2
                y = (trace.y[row] + trace.y[row + 1]) / 2
                cell = cell_at(frame, x, y)
                assert cell == (tuple(trace.customdata[row, column][:2]) if cell else None)
                found.add(cell)
    assert found - {None} == set(zip(frame["concept"], frame["arm"], strict=True))


def test_beside_the_cells_there_is_nothing_to_click(study: Study) -> None:
    frame = numbers(study, "patching")
    assert cell_at(frame, 0.5, 10.2) is None  # the gap above the null arms
    assert cell_at(frame, 4.2, 0.5) is None  # the gap between the panels
    assert cell_at(frame, 4.6, 0.5) == ("instrument", "tf0 necessity")
    assert cell_at(frame, 19.0, 0.5) is None


def test_rows_that_one_panel_lacks_leave_its_other_cells_in_place() -> None:
    frame = pd.DataFrame(
        {
            "panel": ["left", "left", "right", "right"],
            "across": "c",
            "label": ["tf0", "all", "tf0", "tf10"],
            "block": [0, -1, 0, 10],
            "group": "cell",
            "impact": [0.1, 0.2, 0.3, 0.4],
        }
    )
    grid = lay_out(frame)
    assert list(grid.tops) == ["tf0", "tf10", "all"]
    left, right = grid.sections
    np.testing.assert_array_equal(left.numbers("impact"), [[0.1], [np.nan], [0.2]])
    np.testing.assert_array_equal(right.numbers("impact"), [[0.3], [0.4], [np.nan]])
    assert left.tops == right.tops == [0, 1, 2]


def test_changes_are_drawn_with_one_dot_a_run_and_its_prompts(study: Study) -> None:
    frame = numbers(study, "patching-pairs", concept="drums", arm="tf3")
    dots = [trace for trace in changes(frame, (1, 101)).data if trace.type == "scatter"]
    assert [list(trace.x) for trace in dots] == [
        frame.loc[frame["quantity"] == quantity, "value"].tolist()
        for quantity in ("patched − corrupt", "clean − corrupt")
    ]
    first = frame.iloc[0]
    assert list(dots[0].customdata[0]) == [0, "100", first["clean_prompt"], first["corrupt_prompt"]]
    assert [colour == palette.PLANTED for colour in dots[0].marker.line.color] == [False, False, False, True]


def test_a_click_finds_each_probe(study: Study) -> None:
    frame = numbers(study, "probes", part="mlp")
    figure = probes_map(frame, "accuracy")
    assert len(figure.data) == 4 * TRACES
    for curve in range(0, len(figure.data), TRACES):
        cells = figure.data[curve].customdata
        for row, column in np.ndindex(cells.shape[:2]):
            assert probe_at(frame, curve, column + 0.5, row + 0.5) == tuple(cells[row, column][:3])


@pytest.mark.parametrize("quantity", ["accuracy", "control", "selectivity"])
def test_probe_maps_show_the_quantity(study: Study, quantity: str) -> None:
    frame = numbers(study, "probes", part="cross_attn")
    drawn = np.concatenate(
        [np.ravel(trace.z) for trace in probes_map(frame, quantity).data if trace.type == "heatmap"]
    )
    assert drawn.tolist() == frame[quantity].tolist()


def test_planted_and_selected_cells_are_outlined(study: Study) -> None:
    planted = patching_map(numbers(study, "patching", truth=True)).layout.shapes
    assert len(planted) == 2 * 5
    assert {shape.line.color for shape in planted} == {palette.PLANTED}
    assert not patching_map(numbers(study, "patching")).layout.shapes
    chosen = patching_map(numbers(study, "patching"), ("tempo", "tf3 necessity")).layout.shapes
    assert {(shape.x0, shape.y0) for shape in chosen} == {(5.5, 3)}


def test_folds_are_drawn_with_their_control_and_chance(study: Study) -> None:
    frame = numbers(study, "probe-folds", concept="tempo", site="tf3.mlp", step=2)
    figure = probe_folds(frame)
    assert [list(bar.y) for bar in figure.data] == [frame["accuracy"].tolist(), frame["control"].tolist()]
    assert figure.layout.shapes[0].y0 == 0.5


def test_training_and_feature_figures_draw_their_tables(study: Study) -> None:
    training = numbers(study, "sae-training")
    curve = training[(training["measure"] == "dead_fraction") & (training["split"] == "training")]
    assert list(sae_training(training).data[3].y) == curve["value"].tolist()
    feature = numbers(study, "feature", feature=5)
    bars = feature_panels(feature).data[2]
    scores = feature[feature["panel"] == "auroc"].set_index("label")["value"]
    shown = dict(bars.customdata)
    assert shown == {label: f"{score:.3f}" for label, score in scores.items()}


def test_the_colour_scale_has_equal_steps_of_lightness() -> None:
    lightness = np.array([_lightness(colour) for colour in palette.SEQUENTIAL])
    assert np.abs(np.diff(lightness) - np.diff(lightness).mean()).max() < 0.5


def _lightness(colour: str) -> float:
    """CIE L* of a hexadecimal sRGB colour."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16


HOSTILE = "<b>lo-fi</b> & %{x} $$ [red]"
SHOWN = "&lt;b&gt;lo-fi&lt;/b&gt; &amp; %&#123;x} $$ [red]"


@pytest.mark.parametrize("column", ["concept", "arm", "label", "across", "panel"])
def test_names_on_a_patching_map_are_text(study: Study, column: str) -> None:
    frame = numbers(study, "patching")
    frame[column] = HOSTILE + frame[column].astype(str)
    _expect_text(patching_map(frame))


def test_names_on_the_other_figures_are_text(study: Study) -> None:
    pairs = numbers(study, "patching-pairs", concept="tempo", arm="tf3")
    _expect_text(changes(pairs.assign(clean_prompt=HOSTILE)))
    _expect_text(changes(pairs.assign(corrupt_prompt=HOSTILE)))
    probes = numbers(study, "probes")
    _expect_text(probes_map(probes.assign(concept=HOSTILE + probes["concept"]), "accuracy"))
    feature = numbers(study, "feature", site="tf3.cross_attn", feature=5)
    _expect_text(feature_panels(feature.assign(label=HOSTILE + feature["label"])))


def test_names_of_compared_maps_are_text() -> None:
    sides = {"impact": 0.5, "impact_lo": 0.4, "impact_hi": 0.6}
    cells = pd.DataFrame(
        [{"map": HOSTILE, "concept": "c", "row": "tf0", "block": 0, "status": "clear", **sides}]
    )
    for column in ("map", "concept", "row"):
        _expect_text(comparison_map(cells.assign(**{column: HOSTILE})))
    both = {f"{name}_{side}": value for side in ("left", "right") for name, value in sides.items()}
    matched = pd.DataFrame([{"concept": "c", "row": "tf0", **both}])
    _expect_text(comparison_scatter(matched, (HOSTILE, "other")))
    for column in ("concept", "row"):
        _expect_text(comparison_scatter(matched.assign(**{column: HOSTILE}), ("this", "other")))


def _expect_text(figure: Any) -> None:
    """The hostile name is in the figure, and everywhere in the way that Plotly shows letter by letter."""
    told = json.dumps(figure.to_plotly_json(), cls=PlotlyJSONEncoder, ensure_ascii=False)
    assert SHOWN in told
    assert "<b>lo-fi" not in told
    assert "%{x} $$" not in told
