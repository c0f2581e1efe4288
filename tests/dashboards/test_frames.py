"""The tables behind the figures hold the results' numbers, and say where there is none."""

import numpy as np
import pytest
import xarray as xr

from analyses.statistics import benjamini_hochberg
from dashboards.frames.features import (
    examples_frame,
    feature_frame,
    features_frame,
    trace_frame,
    training_frame,
)
from dashboards.frames.patching import map_arms, pairs_frame, patching_frame
from dashboards.frames.probes import folds_frame, probes_frame
from dashboards.traces import activation_trace
from tests.dashboards.synthetic_study import PLANTED, SAE_SITES, UNDEFINED
from workbench.study import Study

SITE = SAE_SITES[0]


def test_patching_cells_equal_the_result(study: Study) -> None:
    result = study.result("patching")
    frame = patching_frame(result)
    assert len(frame) == 4 * (8 + 2)
    for row in frame[frame["concept"] != UNDEFINED].itertuples():
        cell = result.sel(concept=row.concept, arm=row.arm)
        assert (row.impact, row.impact_lo, row.impact_hi) == (cell.impact, cell.impact_lo, cell.impact_hi)
        assert (row.denominator, row.n) == (cell.denominator, cell.n)


def test_patching_says_what_each_cell_means(study: Study) -> None:
    result = study.result("patching").copy(deep=True)
    result.impact.loc["tempo", "tf1"] = np.nan
    result.impact.loc[UNDEFINED, "tf4"] = 0.76  # a number that must not be shown
    cells = patching_frame(result).set_index(["concept", "arm"])
    assert cells.loc[("tempo", "tf3"), "status"] == "clear"
    assert cells.loc[("tempo", "tf0"), "status"] == "contains zero"
    assert cells.loc[("tempo", "tf1"), "status"] == "no score"
    assert (cells.loc[UNDEFINED, "status"] == "undefined").all()
    assert cells.loc[UNDEFINED, ["impact", "impact_lo", "impact_hi"]].isna().all(axis=None)


def test_an_impact_below_zero_is_clear_too(study: Study) -> None:
    result = study.result("patching").copy(deep=True)
    for name, value in (("impact", -0.3), ("impact_lo", -0.4), ("impact_hi", -0.2)):
        result[name].loc["tempo", "tf0"] = value
    assert patching_frame(result).set_index(["concept", "arm"]).loc[("tempo", "tf0"), "status"] == "clear"


def test_arms_are_in_the_networks_order() -> None:
    result = xr.Dataset(coords={"arm": ["clean", "tf10", "all", "corrupt", "tf2", "tf2+tf10"]})
    assert map_arms(result) == (["tf2", "tf10"], ["all", "tf2+tf10"])


def test_planted_cells_are_marked(study: Study) -> None:
    assert "planted" not in patching_frame(study.result("patching"))
    frame = patching_frame(study.result("patching"), PLANTED)
    marked = {(row.concept, row.arm) for row in frame[frame["planted"]].itertuples()}
    assert marked == {(concept, f"tf{block}") for concept, blocks in PLANTED.items() for block in blocks}


def test_pairs_hold_the_scores_and_audio_of_three_arms(study: Study) -> None:
    result = study.result("patching")
    frame = pairs_frame(result, "drums", "tf3")
    assert list(zip(frame["pair"], frame["seed"], strict=True)) == [(0, 100), (0, 101), (1, 100), (1, 101)]
    last, runs = frame.iloc[-1], result.sel(concept="drums", pair=1, seed=101)
    for side, arm in (("clean", "clean"), ("corrupt", "corrupt"), ("patched", "tf3")):
        assert last[side] == runs.score.sel(arm=arm)
        assert last[f"{side}_audio"] == f"audio/patching/drums/001-101/{arm}.flac"
        assert (study.path / last[f"{side}_audio"]).is_file()


def test_probes_equal_the_result(study: Study) -> None:
    result = study.result("probes")
    frame = probes_frame(result)
    assert len(frame) == result["p_value"].size
    for row in frame.sample(40, random_state=0).itertuples():
        cell = result.sel(concept=row.concept, site=row.site, step=row.step)
        assert (row.accuracy, row.accuracy_lo, row.accuracy_hi) == (
            cell.accuracy_mean,
            cell.accuracy_lo,
            cell.accuracy_hi,
        )
        assert (row.control, row.selectivity, row.chance, row.sigma) == (
            cell.control_mean,
            cell.selectivity,
            cell.chance,
            cell.sigma,
        )
        assert row.site == f"tf{row.block}.{row.part}"


def test_probes_are_corrected_over_the_whole_result(study: Study) -> None:
    result = study.result("probes")
    frame = probes_frame(result)
    assert sorted(frame["q_value"]) == sorted(benjamini_hochberg(result["p_value"].values).ravel())
    assert (frame["q_value"] >= frame["p_value"]).all()
    assert frame["q_value"].min() > frame["p_value"].min()


def test_sites_are_in_order_of_computation(study: Study) -> None:
    frame = probes_frame(study.result("probes"))
    assert list(dict.fromkeys(frame["part"])) == ["cross_attn", "mlp"]
    of_part = frame[frame["part"] == "mlp"]
    assert list(dict.fromkeys(of_part["block"])) == list(range(8))


def test_folds_equal_the_result(study: Study) -> None:
    result = study.result("probes")
    frame = folds_frame(result, "mood", "tf5.mlp", 2)
    cell = result.sel(concept="mood", site="tf5.mlp", step=2)
    assert frame["accuracy"].tolist() == cell.accuracy.values.tolist()
    assert frame["control"].tolist() == cell.control.values.tolist()


def test_training_ends_with_the_held_out_figures(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    frame = training_frame(result)
    held_out = frame[frame["split"] == "held-out"].set_index("measure")["value"]
    assert held_out["explained_variance"] == result.final_explained_variance
    loss = frame[(frame["measure"] == "loss") & (frame["split"] == "training")]
    assert loss["value"].tolist() == result.loss.values.tolist()


def test_features_name_the_concept_they_tell_apart_best(study: Study) -> None:
    frame = features_frame(study.result(f"sae-{SITE}")).set_index("feature")
    assert (frame.loc[3, "best_value"], frame.loc[3, "best_auroc"]) == ("instrument=trumpet", 0.97)
    assert not frame.loc[47, "alive"]
    assert frame.loc[47, "best_value"] == ""
    assert np.isnan(frame.loc[47, "best_auroc"])


def test_one_feature_equals_the_result(study: Study) -> None:
    one = study.result(f"sae-{SITE}").sel(feature=5)
    panels = dict(iter(feature_frame(study.result(f"sae-{SITE}"), 5).groupby("panel")))
    assert panels["histogram"]["value"].tolist() == one.hist_count.values.tolist()
    assert panels["step_profile"]["x"].tolist() == one.step.values.tolist()
    assert panels["auroc"]["label"].tolist() == one["value"].values.tolist()


def test_a_dead_feature_has_no_examples(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    assert examples_frame(result, 5)["clip"].tolist() == [5, 6, 7, 8, 9]
    assert examples_frame(result, 47).empty


def test_a_trace_becomes_one_row_for_each_step_and_token(study: Study) -> None:
    trace = activation_trace(study, SITE, 5, 3)
    frame = trace_frame(trace, 5, 3)
    assert len(frame) == trace.size
    row = frame.iloc[frame["value"].argmax()]
    assert row["value"] == trace.values.max() > 0
    assert row["value"] == pytest.approx(float(trace.sel(step=row["step"]).isel(token=int(row["token"]))))
    assert row["seconds"] == trace["seconds"].values[int(row["token"])]
