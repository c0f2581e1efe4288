"""Tables of steering results, and what is said about them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dashboards.figures import dose_response, ladder
from dashboards.summaries import steering_summary, steering_summary_notes
from dashboards.tables.steering import (
    arm_labels,
    checks_frame,
    chosen_frame,
    clips_frame,
    doses_frame,
    is_interpretable,
    steered_frame,
    strengths,
)
from dashboards.wording import positive_control, steering_notes, steering_sample
from tests.dashboards.synthetic_steering import EFFECTS, LEAK, PAIRS, PATCH, STRENGTHS, VECTOR
from workbench.studies.study import Study


@pytest.fixture(scope="module")
def result(study: Study) -> xr.Dataset:
    return study.result("steering-tempo")


def test_strengths_are_those_of_the_cells(result: xr.Dataset) -> None:
    assert strengths(result) == list(STRENGTHS)


def test_the_best_dose_of_a_way_without_scores_is_its_first(result: xr.Dataset) -> None:
    silent = result.assign(effect=result["effect"].where(result["row"] != VECTOR))
    assert chosen_frame(silent)["arm"].tolist() == [f"{PATCH} × 1", f"{VECTOR} × -1"]


def test_the_prompts_of_an_arm_have_three_scores(result: xr.Dataset) -> None:
    runs = steered_frame(result, f"{VECTOR} × 1", "tempo")
    assert len(runs) == PAIRS
    assert runs["steered"].to_numpy() - runs["unsteered"].to_numpy() == pytest.approx(EFFECTS[VECTOR, 1.0])
    assert runs["real"].to_numpy() - runs["unsteered"].to_numpy() == pytest.approx(EFFECTS["clean"])
    assert runs["corrupt_prompt"].tolist() == result["corrupt_prompt"].values.tolist()
    assert runs["noise_seed"].tolist() == result["noise_seed"].values.ravel().tolist()
    other = steered_frame(result.transpose("seed", ...), f"{VECTOR} × 2", "mood", "clap")
    assert other["steered"].to_numpy() - other["unsteered"].to_numpy() == pytest.approx(LEAK)


def test_the_clips_of_a_way_are_in_order_of_strength(result: xr.Dataset) -> None:
    clips = clips_frame(result, VECTOR, 1, 0, "tempo")
    assert clips["arm"].tolist() == [f"{VECTOR} × -1", "corrupt", f"{VECTOR} × 1", f"{VECTOR} × 2", "clean"]
    assert (
        clips["audio"].tolist()
        == result["audio"].sel(pair=1, seed=0, arm=clips["arm"].tolist()).values.tolist()
    )
    assert np.diff(clips["score"]) == pytest.approx([0.1, 0.3, 0.15, 0.15])


def test_what_makes_a_result_hard_to_believe_is_said(result: xr.Dataset) -> None:
    assert is_interpretable(result, "embedded")
    assert steering_notes(result) == steering_notes(result, "embedded") == []
    assert not is_interpretable(result, "clap")
    assert steering_notes(result, "clap") == [
        "Not interpretable: the scorer does not clearly tell fast from slow in clips of the real prompts.",
        f"Steers backwards: {VECTOR}.",
    ]
    assert checks_frame(result, "clap")["verdict"].tolist() == ["not clear", "backwards"]
    assert positive_control(result) == (
        "Positive control: embedded clearly tells the real prompts apart (fast − slow: 0.60 [0.50, 0.70])."
    )
    assert "clap does not clearly tell" in positive_control(result, "clap")
    assert steering_sample(result) == f"{PAIRS} pairs × 1 seed (n = {PAIRS})"


def test_the_sign_check_says_what_it_compares(result: xr.Dataset) -> None:
    assert checks_frame(result)["compared"].tolist() == ["from unsteered to 1", "from −1 to 1"]
    assert checks_frame(result)["verdict"].tolist() == ["the right way"] * 2


def test_a_sign_that_is_0_is_not_clear(result: xr.Dataset) -> None:
    still = result.assign({name: result[name] * 0.0 for name in ("upward", "upward_lo", "upward_hi")})
    assert checks_frame(still)["verdict"].tolist() == ["not clear"] * 2
    assert steering_notes(still) == []


def test_a_change_that_is_tiny_beside_the_real_prompts_has_no_clear_sign(result: xr.Dataset) -> None:
    tiny = result.assign({name: result[name] * 0.01 for name in ("upward", "upward_lo", "upward_hi")})
    assert checks_frame(tiny)["verdict"].tolist() == ["not clear"] * 2
    unknown = tiny.assign(denominator=tiny["denominator"] * float("nan"))
    assert checks_frame(unknown)["verdict"].tolist() == ["the right way"] * 2


def test_of_too_few_pairs_no_sign_is_told(result: xr.Dataset) -> None:
    few = result.isel(pair=slice(5))
    for scorer in ("embedded", "clap"):
        assert checks_frame(few, scorer)["verdict"].tolist() == ["too few pairs to tell"] * 2
        assert steering_notes(few, scorer)[-2:] == [
            "Intervals of so few pairs are little more than the range of the pairs.",
            "Sign check: too few pairs to tell.",
        ]


def test_one_pair_has_no_interval_to_speak_of(result: xr.Dataset) -> None:
    assert steering_notes(result.isel(pair=slice(1))) == ["Sign check: too few pairs to tell."]


def test_ways_whose_sign_cannot_be_told_are_named_beside_others(result: xr.Dataset) -> None:
    broken = (result["row"] == PATCH) & (result["pair"] > 0)
    some = result.assign(score=result["score"].where(~broken))
    assert steering_notes(some) == [f"Sign check: too few pairs to tell ({PATCH})."]


def test_without_strengths_above_0_there_is_no_sign_check(result: xr.Dataset) -> None:
    none = result.isel(way=slice(0))
    assert checks_frame(none).empty
    assert steering_notes(none) == []


def test_labels_are_short_and_tell_arms_apart() -> None:
    folder = "/home/somebody/" + "vectors/" * 8
    files = [f"{folder}caa.safetensors × 1", f"{folder}probe.safetensors × 1", "mood × -1"]
    assert arm_labels(files) == ["caa × 1", "probe × 1", "mood × -1"]
    same = [f"{folder}one/mood.safetensors × 1", f"{folder}two/mood.safetensors × 1"]
    assert arm_labels(same) == same
    assert len(arm_labels(["a" * 60 + " × 0.25"])[0]) == 30


def test_pairs_without_scores_do_not_count_for_the_sign(result: xr.Dataset) -> None:
    lost = (result["pair"] == 0) & (result["arm"] == f"{VECTOR} × -1")
    silent = result.assign(score=result["score"].where(~lost))
    assert checks_frame(silent)["pairs"].tolist() == [PAIRS, PAIRS - 1]
    assert checks_frame(silent)["verdict"].tolist() == ["the right way", "too few pairs to tell"]


def test_the_summary_says_how_p_was_corrected(result: xr.Dataset) -> None:
    corrected, few, randoms = steering_summary_notes(result)
    assert "Benjamini–Hochberg over the steered rows" in corrected
    steered = (result["role"] == "cell").sum().item()
    assert f"over {steered} rows none can be significant unless at least" in few
    number = (result["null_of"] == f"{VECTOR} × 1").sum().item()
    assert randoms == f"random: where 95 % of {number} random vectors lie."
    assert "at least 6 pairs are needed" in steering_summary_notes(result.isel(pair=slice(2)))[1]


def test_the_summary_names_the_concept_that_changes_most(result: xr.Dataset) -> None:
    table = steering_summary(result).set_index(["steering", "strength"])
    assert table.loc[(VECTOR, "2"), "other concepts"] == "mood −0.12"
    assert table.loc[(VECTOR, "1"), "change [95 %]"] == "0.30 [0.26, 0.34]"


def away_from(result: xr.Dataset) -> xr.Dataset:
    """The same result with every change turned round, as if the prompts with the positive value were steered."""
    turned = result.copy(deep=True)
    for name in ("effect", "null", "denominator"):
        low, high = -result[f"{name}_hi"], -result[f"{name}_lo"]
        turned = turned.assign({f"{name}_lo": low, f"{name}_hi": high})
    turned = turned.assign(effect=-result["effect"], denominator=-result["denominator"])
    return turned.assign_attrs(spec='{"steered": "positive"}')


def test_steering_away_is_told_as_such(result: xr.Dataset) -> None:
    away = away_from(result)
    names = ["arm", "best", "impact", "band_lo", "band_hi", "status"]
    pd.testing.assert_frame_equal(chosen_frame(away)[names], chosen_frame(result)[names])
    assert "(slow − fast: −0.60 [−0.70, −0.50])" in positive_control(away)
    doses = dose_response.response_frame(away)
    told = dose_response.write_caption(away, doses)
    assert "steering tempo from fast to slow" in told and "the prompt with slow in place of fast" in told
    rungs = ladder.rungs_frame(away)
    assert "tempo from fast to slow" in ladder.write_caption(away, rungs, ladder.LadderSpec(name="tempo"))


def test_next_to_no_strength_is_no_dose(result: xr.Dataset) -> None:
    floors = result.assign_coords(role=result["role"].where(result["arm"] != f"{VECTOR} × 1", "floor"))
    assert f"{VECTOR} × 1" not in set(doses_frame(floors)["arm"])
    assert f"{VECTOR} × 2" in set(doses_frame(floors)["arm"])
    assert strengths(floors) == [-1.0, 1.0, 2.0], "that of the patch"
