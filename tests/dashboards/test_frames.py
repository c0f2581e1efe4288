"""The tables behind the figures hold the results' numbers, and say where there is none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses.statistics import benjamini_hochberg
from cache.errors import UserError
from dashboards.tables.features import (
    examples_frame,
    feature_frame,
    features_frame,
    trace_frame,
    training_frame,
)
from dashboards.tables.patching import (
    arms_frame,
    cells_frame,
    changes_frame,
    pairs_frame,
    patching_frame,
)
from dashboards.tables.probes import folds_frame, probes_frame
from dashboards.traces import activation_trace
from tests.dashboards.synthetic_study import (
    PLANTED,
    RUNS,
    SAE_SITES,
    UNDEFINED,
    WINDOWS,
    arm,
    null_arm,
    part_arms,
    patching_result,
)
from workbench.studies.study import Study

SITE = SAE_SITES[0]


BLOCKS_MAP = "patching-blocks"


def cells(result: xr.Dataset, **options: Any) -> pd.DataFrame:
    return cells_frame(result, **options).set_index(["concept", "arm"])


def test_patching_cells_equal_the_result(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    for scorer in ("embedded", "clap"):
        frame = cells_frame(result, scorer)
        assert len(frame) == 4 * (2 * 10 + 3 * 8)
        assert set(frame["scorer"]) == {scorer}
        for row in frame[frame["concept"] != UNDEFINED].itertuples():
            cell = result.sel(concept=row.concept, arm=row.arm, scorer=scorer)
            assert (row.impact, row.impact_lo, row.impact_hi) == (cell.impact, cell.impact_lo, cell.impact_hi)
            assert (row.p, row.denominator, row.n_pairs) == (cell.p, cell.denominator, cell.n_pairs)
            assert (row.null_lo, row.stability_hi) == (cell.null_lo, cell.stability_hi)
            assert row.direction == str(result.direction.sel(arm=row.arm).item())


def test_the_first_scorer_is_shown_unless_another_is_asked_for(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.impact.loc["tempo", "tf3", "clap"] = 0.5
    assert cells(result).loc[("tempo", "tf3"), "impact"] == 0.93
    assert cells(result, scorer="clap").loc[("tempo", "tf3"), "impact"] == 0.5
    with pytest.raises(UserError, match=r"scorer 'ear'.*embedded, clap"):
        cells_frame(result, "ear")


def test_patching_says_what_each_cell_means(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.impact.loc["tempo", "tf1"] = np.nan
    result.impact.loc[UNDEFINED, "tf4"] = 0.76  # a number that must not be shown
    status = cells(result)["status"]
    assert status["tempo", "tf3"] == "clear"
    assert status["tempo", "tf0"] == "not significant"
    assert status["tempo", "tf6"] == "inside null band"
    assert status["tempo", "tf1"] == "no score"
    assert status["tempo", "tf1 null random"] == "null arm"
    assert (status[UNDEFINED] == "undefined").all()
    assert cells(result).loc[UNDEFINED, ["impact", "impact_lo", "impact_hi", "p"]].isna().all(axis=None)


def test_a_cell_that_was_not_tested_is_not_clear(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.p_adjusted.loc["tempo", "tf3"] = np.nan
    assert cells(result)["status"]["tempo", "tf3"] == "not significant"


def test_an_impact_below_the_null_band_is_clear_too(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    for name, value in (("impact", -0.3), ("impact_lo", -0.4), ("impact_hi", -0.2), ("p_adjusted", 0.01)):
        result[name].loc["tempo", "tf0"] = value
    assert cells(result)["status"]["tempo", "tf0"] == "clear"


def test_without_null_arms_there_is_no_band_to_lie_in(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result["null_lo"][:], result["null_hi"][:] = np.nan, np.nan
    assert cells(result)["status"]["tempo", "tf6"] == "clear"


def test_a_map_of_blocks_has_a_panel_for_each_direction(study: Study) -> None:
    frame = patching_frame(study.result(BLOCKS_MAP))
    assert list(dict.fromkeys(frame["panel"])) == ["sufficiency", "necessity"]
    assert set(frame["across"]) == set(frame["concept"]) == set(PLANTED)
    one = patching_frame(study.result(BLOCKS_MAP), concept="tempo")
    assert list(dict.fromkeys(one["across"])) == ["sufficiency", "necessity"]
    assert set(one["concept"]) == set(one["panel"]) == {"tempo"}


def test_a_map_of_steps_shows_one_concept_or_one_window(study: Study) -> None:
    result = study.result("patching-steps")
    windows = patching_frame(result)
    assert set(windows["concept"]) == {"instrument"}
    assert list(dict.fromkeys(windows["across"])) == list(WINDOWS)
    of_all = patching_frame(result, concept="all", column="steps 2–3")
    assert set(of_all["panel"]) == {"steps 2–3"} == set(of_all.loc[of_all["group"] == "cell", "column"])
    assert set(patching_frame(result, concept="all")["panel"]) == {"steps 0–1"}


def test_both_directions_of_a_part_have_panels_of_their_own(study: Study) -> None:
    result = patching_result(study, "parts", part_arms())
    one = patching_frame(result, concept="tempo")
    assert list(dict.fromkeys(zip(one["panel"], one["across"], strict=True))) == [
        ("sufficiency", "keys"), ("sufficiency", "values"), ("necessity", "keys"), ("necessity", "values"),
    ]  # fmt: skip
    assert not one.duplicated(["panel", "across", "label"]).any()
    every = patching_frame(result, concept="all", column="keys")
    assert list(dict.fromkeys(every["panel"])) == ["keys, sufficiency", "keys, necessity"]


def test_the_largest_null_arm_stands_for_its_kind(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.impact.loc["tempo", "tf5 null random"] = -0.4
    frame = patching_frame(result)
    nulls = frame[(frame["group"] == "null") & (frame["concept"] == "tempo")].set_index("label")
    assert set(nulls.index) == {f"null: {kind} (largest of 8)" for kind in ("unrelated", "random", "control")}
    assert nulls.loc["null: random (largest of 8)", ["arm", "impact"]].tolist() == ["tf5 null random", -0.4]
    assert set(nulls["panel"]) == {"sufficiency"}


def test_null_arms_of_other_names_keep_their_row(study: Study) -> None:
    arms = [
        *RUNS,
        arm("tf0", "a", "sufficiency"),
        arm("noise", "a", role="null"),
        arm("tf0", "b", role="null"),
    ]
    frame = patching_frame(patching_result(study, "parts", arms), concept="tempo")
    places = dict(zip(frame["arm"], zip(frame["label"], frame["across"], strict=True), strict=True))
    assert places == {"tf0 a": ("tf0", "a"), "noise a": ("noise", "a"), "tf0 b": ("null at tf0", "b")}


def test_what_an_arm_is_is_not_read_off_its_name(study: Study) -> None:
    arms = [
        *RUNS,
        {**arm("early", "a", "sufficiency"), "block": 3},
        {**arm("tf3 null random", "a", "sufficiency"), "block": -1},
        {**null_arm("early", "random", of="early a"), "arm": "chance"},
        {**arm("tf5", "a", "sufficiency", role="null"), "arm": "early a null control"},
    ]
    result = patching_result(study, "parts", arms)
    frame = patching_frame(result, concept="tempo", planted={"tempo": [3]})
    places = dict(zip(frame["arm"], zip(frame["label"], frame["across"], strict=True), strict=True))
    assert places == {
        "early a": ("early", "a"),
        "tf3 null random a": ("tf3 null random", "a"),
        "chance": ("null: random", "a"),
        "early a null control": ("tf5", "a"),
    }
    assert frame.set_index("arm")["planted"].to_dict() == {name: name == "early a" for name in places}


def test_planted_cells_are_marked(study: Study) -> None:
    assert "planted" not in patching_frame(study.result(BLOCKS_MAP))
    frame = patching_frame(study.result(BLOCKS_MAP), planted=PLANTED)
    marked = {(row.concept, row.arm) for row in frame[frame["planted"]].itertuples()}
    assert marked == {
        (concept, f"tf{block}{direction}")
        for concept, blocks in PLANTED.items()
        for block in blocks
        for direction in ("", " necessity")
    }


@pytest.mark.parametrize(
    ("options", "words"), [({"concept": "key"}, "tempo"), ({"column": "up"}, "necessity")]
)
def test_what_a_map_does_not_have_is_told(study: Study, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        patching_frame(study.result(BLOCKS_MAP), **options)


@pytest.mark.parametrize("direction", ["sufficiency", "necessity"])
def test_pairs_hold_scores_changes_and_audio(study: Study, direction: str) -> None:
    result = study.result(BLOCKS_MAP)
    name = "tf3" if direction == "sufficiency" else "tf3 necessity"
    frame = pairs_frame(result, "drums", name)
    last, runs = frame.iloc[-1], result.sel(concept="drums", pair=1, seed=101, scorer="embedded")
    for side, run in (("clean", "clean"), ("corrupt", "corrupt"), ("patched", name)):
        assert last[side] == runs.score.sel(arm=run)
        assert last[f"{side}_audio"] == f"audio/patching/blocks/drums/001-101/{run.replace(' ', '_')}.flac"
        assert (study.path / last[f"{side}_audio"]).is_file()
    ends = ("patched", "corrupt") if direction == "sufficiency" else ("clean", "patched")
    assert last["change"] == last[ends[0]] - last[ends[1]]
    assert last["change"] > 0
    assert last["whole"] == last["clean"] - last["corrupt"]


def test_pairs_that_were_not_run_are_not_listed(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    frame = pairs_frame(result, "drums", "tf3")
    assert list(zip(frame["pair"], frame["seed"], strict=True)) == [(0, 100), (0, 101), (1, 100), (1, 101)]
    failed = result.copy(deep=True)
    failed.score.loc["drums", 1, 101] = np.nan  # it was run and can be heard, but the scorer failed
    assert len(pairs_frame(failed, "drums", "tf3")) == 4
    assert set(changes_frame(result, "drums", "tf3")["pair"]) == {0, 1}


def test_changes_stand_beside_what_there_was_to_move(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    frame = changes_frame(result, "drums", "tf3 necessity", "clap")
    assert list(dict.fromkeys(frame["quantity"])) == ["clean − patched", "clean − corrupt"]
    pairs = pairs_frame(result, "drums", "tf3 necessity", "clap")
    assert frame.loc[frame["quantity"] == "clean − patched", "value"].tolist() == pairs["change"].tolist()
    assert changes_frame(result, "drums", "tf3")["quantity"].iloc[0] == "patched − corrupt"


def test_recordings_name_all_arms_that_sound_the_same(study: Study) -> None:
    frame = arms_frame(study.result(BLOCKS_MAP), "tempo", 0, 100)
    shared = frame.set_index("audio")["arms"]
    folder = "audio/patching/blocks/tempo/000-100"
    assert shared[f"{folder}/corrupt.flac"][:3] == ["corrupt", "tf0", "tf1"]
    assert shared[f"{folder}/tf3.flac"] == ["tf3"]
    assert sum(map(len, shared)) == study.result(BLOCKS_MAP).sizes["arm"]


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
