"""Probe maps show the quantity that was asked for, and a click finds its probe."""

import numpy as np
import pytest

from dashboards.figures import probe_maps
from tests.dashboards.figures.helpers import caption, table_of
from workbench.studies.study import Study


def test_a_click_finds_each_probe(study: Study) -> None:
    frame = table_of(study, "probes", part="mlp")
    figure = probe_maps.draw_screen(frame, "accuracy")
    assert len(figure.data) == 4 * probe_maps.TRACES
    for curve in range(0, len(figure.data), probe_maps.TRACES):
        cells = figure.data[curve].customdata
        for row, column in np.ndindex(cells.shape[:2]):
            assert probe_maps.probe_at(frame, curve, column + 0.5, row + 0.5) == tuple(cells[row, column][:3])


@pytest.mark.parametrize("quantity", ["accuracy", "control", "selectivity"])
def test_probe_maps_show_the_quantity(study: Study, quantity: str) -> None:
    frame = table_of(study, "probes", part="cross_attn")
    drawn = np.concatenate(
        [
            np.ravel(trace.z)
            for trace in probe_maps.draw_screen(frame, quantity).data
            if trace.type == "heatmap"
        ]
    )
    assert drawn.tolist() == frame[quantity].tolist()
    written = [
        float(text.replace("−", "-"))
        for trace in probe_maps.draw_screen(frame, quantity).data
        if trace.type == "scatter" and trace.mode == "text"
        for text in trace.text
    ]
    np.testing.assert_allclose(written, frame[quantity], atol=0.00501)


def test_clicks_beside_all_probes_find_none(study: Study) -> None:
    frame = table_of(study, "probes", part="mlp")
    for curve, x, y in ((99, 0.5, 0.5), (0, -1.5, 0.5), (0, 0.5, 1e6)):
        assert probe_maps.probe_at(frame, curve, x, y) is None


def test_the_caption_says_what_was_held_out_and_how_p_is_computed(study: Study) -> None:
    first, *others = dict.fromkeys(table_of(study, "probes")["concept"])
    text = caption(study, "probes")
    assert f"contexts (prompts that differ only in the concept) for {', '.join(others)}" in text
    assert f"single prompts for {first}." in text
    assert "t distribution fitted to the accuracies" in text
    assert "not given below 0.0001" in text
    assert "cross-validated by prompt" not in text
    site = table_of(study, "probes")["site"].iloc[0]
    for concept, unit in ((first, "single prompts"), (others[0], "contexts")):
        assert f"Held out whole: {unit}" in caption(study, "probe-folds", concept=concept, site=site, step=2)
