"""Maps of ridge probes: their numbers, what is hatched, and what is said where there are none."""

import numpy as np
import pytest

from cache.errors import UserError
from dashboards.figures import probe_descriptors
from dashboards.figures.probe_descriptors import ProbeDescriptorsSpec
from dashboards.summaries import ridge_summary
from tests.dashboards.figures.helpers import caption, table_of
from tests.dashboards.synthetic_study import DESCRIBED
from workbench.studies.study import Study


def test_the_table_has_every_ridge_probe_of_a_part(study: Study) -> None:
    result, frame = study.result("probes"), table_of(study, "probe-descriptors", part="mlp")
    assert list(dict.fromkeys(frame["concept"])) == list(DESCRIBED)
    assert set(frame["part"]) == {"mlp"}
    for row in frame.to_dict("records"):
        one = result.sel(descriptor=row["concept"], site=row["site"], step=row["step"])
        numbers = (row["r2"], row["r2_lo"], row["r2_hi"], row["control"])
        assert numbers == tuple(map(float, (one.r2, one.r2_lo, one.r2_hi, one.r2_control)))
        assert row["n"] == one.descriptor_n
    assert frame["q_value"].min() > result.r2_p.min()


def test_maps_show_r2_with_the_descriptors_unit(study: Study) -> None:
    figure = probe_descriptors.draw_screen(table_of(study, "probe-descriptors", part="mlp"))
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["<b>onset_rate</b>  (onsets per second)", "<b>brightness</b>  (Hz)"]
    heatmap = figure.data[0]
    assert np.nanmax(heatmap.z) == pytest.approx(0.9)
    assert "R² 0.900 [0.850, 0.940]" in str(heatmap.customdata)
    told = caption(study, "probe-descriptors")
    assert "onset_rate: 12 clips of 6 prompts; brightness: 10 clips of 5 prompts" in told


def test_the_best_probe_of_each_descriptor(study: Study) -> None:
    table = ridge_summary(study.result("probes"))
    assert table["descriptor"].tolist() == list(DESCRIBED)
    assert set(table["R² [95 %]"]) == {"0.90 [0.85, 0.94]"}
    concepts_only = study.result("probes").drop_dims("descriptor")
    assert ridge_summary(concepts_only).empty


def test_without_descriptors_the_command_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    concepts_only = study.result("probes").drop_dims("descriptor")
    monkeypatch.setattr(probe_descriptors, "load_result", lambda *_: concepts_only)
    with pytest.raises(UserError, match=r"are of no descriptor.*--descriptor brightness"):
        ProbeDescriptorsSpec.complete(study, {})
