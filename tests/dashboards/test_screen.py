"""What is drawn on screen is what the tables say, and a click finds its cell again."""

from typing import Any

import numpy as np
import pytest

from dashboards import palette
from dashboards.figures import FIGURES, make_spec
from dashboards.screen.features import feature_panels, sae_training
from dashboards.screen.patching import cell_at, patching_map
from dashboards.screen.probes import TRACES, probe_at, probe_folds, probes_map
from tests.dashboards.synthetic_study import UNDEFINED
from workbench.study import Study


def numbers(study: Study, name: str, **options: Any) -> Any:
    return FIGURES[name].frame(study, make_spec(study, name, options))


def test_every_patching_cell_shows_its_number_or_says_undefined(study: Study) -> None:
    frame = numbers(study, "patching")
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


def test_only_cells_with_zero_in_their_interval_are_hatched(study: Study) -> None:
    frame = numbers(study, "patching")
    lines = [trace for trace in patching_map(frame).data if trace.type == "scatter"]
    ends = [(x, y) for trace in lines for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
    middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    hatched = {cell_at(frame, x, y) for x, y in middles}
    unclear = frame[frame["status"] == "contains zero"]
    assert hatched == set(zip(unclear["concept"], unclear["arm"], strict=True))


def test_a_click_finds_each_patching_cell(study: Study) -> None:
    frame = numbers(study, "patching")
    for trace in patching_map(frame).data:
        if trace.type == "heatmap":
            for row, column in np.ndindex(trace.customdata.shape[:2]):
                x = (trace.x[column] + trace.x[column + 1]) / 2
                y = (trace.y[row] + trace.y[row + 1]) / 2
                assert cell_at(frame, x, y) == tuple(trace.customdata[row, column][:2])
    assert cell_at(frame, 0.5, 8.2) is None  # the gap between blocks and sets
    assert cell_at(frame, 9.0, 0.5) is None


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
    assert len(planted) == 5
    assert {shape.line.color for shape in planted} == {palette.PLANTED}
    assert not patching_map(numbers(study, "patching")).layout.shapes
    chosen = patching_map(numbers(study, "patching"), ("tempo", "tf3")).layout.shapes
    assert {(shape.x0, shape.y0) for shape in chosen} == {(1, 3)}


def test_folds_are_drawn_with_their_control_and_chance(study: Study) -> None:
    frame = numbers(study, "probe-folds", concept="tempo", site="tf3.mlp", step=2)
    figure = probe_folds(frame)
    assert [list(bar.y) for bar in figure.data] == [frame["accuracy"].tolist(), frame["control"].tolist()]
    assert figure.layout.shapes[0].y0 == 0.5


def test_training_and_feature_figures_draw_their_tables(study: Study) -> None:
    training = numbers(study, "sae-training")
    curve = training[(training["measure"] == "dead_share") & (training["split"] == "training")]
    assert list(sae_training(training).data[3].y) == curve["value"].tolist()
    feature = numbers(study, "feature", feature=5)
    bars = feature_panels(feature).data[2]
    scores = feature[feature["panel"] == "auroc"].set_index("label")["value"]
    assert dict(zip(bars.y, bars.customdata, strict=True)) == scores.to_dict()


def test_the_colour_scale_has_equal_steps_of_lightness() -> None:
    lightness = np.array([_lightness(colour) for colour in palette.SEQUENTIAL])
    assert np.abs(np.diff(lightness) - np.diff(lightness).mean()).max() < 0.5


def _lightness(colour: str) -> float:
    """CIE L* of a hexadecimal sRGB colour."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16
