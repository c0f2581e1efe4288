"""Tables of patching results hold the results' numbers, and say where there is none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cache.errors import UserError
from dashboards.figures import (
    patching_pairs,
)
from dashboards.tables.patching import arms_frame, cells_frame, pair_notes, pairs_frame
from dashboards.tables.patching import tested_cells as cells_tested
from tests.dashboards.synthetic_study import (
    BLOCKS_MAP,
    UNDEFINED,
)
from workbench.studies.study import Study


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
    result = result.isel(arm=np.flatnonzero(result["role"] != "null"))
    assert cells(result)["status"]["tempo", "tf6"] == "clear"


def test_a_cell_within_the_interval_of_its_own_null_arm_is_not_clear(study: Study) -> None:
    """Even if the band over all null arms, most of which do nothing, is narrower."""
    result = study.result(BLOCKS_MAP).copy(deep=True)
    assert cells(result)["status"]["tempo", "tf3"] == "clear"
    own = str(result.arm[(result.null_of == "tf3").values][0].item())
    result.impact_hi.loc["tempo", own] = 0.95
    result.impact_lo.loc["tempo", own] = 0.4
    assert cells(result)["status"]["tempo", "tf3"] == "inside null band"
    assert cells(result)["status"]["mood", "tf3"] != "inside null band"


def test_cells_that_a_screening_left_out_were_not_run(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.audio.loc[{"concept": "tempo", "arm": "tf1"}] = ""
    result.impact.loc["tempo", "tf1"] = np.nan
    assert cells(result)["status"]["tempo", "tf1"] == "no score", (
        "without a screening it was run, but overflowed"
    )
    result.attrs["screened"] = "{}"
    assert cells(result)["status"]["tempo", "tf1"] == "screened out"
    assert cells(result)["status"]["tempo", "tf3"] == "clear"


def test_the_family_of_the_correction_counts_every_cell_of_defined_concepts(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    of_concept, defined = int((result.role == "cell").sum()), int(result.defined.sel(scorer="embedded").sum())
    assert cells_tested(result) == of_concept * defined
    result.p_adjusted.loc["tempo", "tf1"] = np.nan  # left out by a screening
    assert cells_tested(result) == of_concept * defined


@pytest.mark.parametrize(
    ("pairs", "p", "is_told"), [(6, 2 / 2**6, True), (6, 4 / 2**6, False), (12, 0.001, False)]
)
def test_a_p_that_cannot_be_smaller_is_told(study: Study, pairs: int, p: float, is_told: bool) -> None:
    frame = cells(study.result(BLOCKS_MAP)).reset_index()
    frame["n_pairs"], frame["p"], frame["status"] = pairs, p, "not significant"
    told = [f"{pairs} pairs: the smallest possible p, 0.0312, is not significant after the correction over the map's "
            "cells. Use more pairs or fewer cells."]  # fmt: skip
    assert pair_notes(frame) == (told if is_told else [])


@pytest.mark.parametrize("direction", ["sufficiency", "necessity"])
def test_pairs_hold_scores_changes_and_audio(study: Study, direction: str) -> None:
    result = study.result(BLOCKS_MAP)
    name = "tf3" if direction == "sufficiency" else "tf3 necessity"
    frame = pairs_frame(result, "drums", name)
    last, runs = frame.iloc[-1], result.sel(concept="drums", pair=1, seed=1, scorer="embedded")
    for side, run in (("clean", "clean"), ("corrupt", "corrupt"), ("patched", name)):
        assert last[side] == runs.score.sel(arm=run)
        assert last[f"{side}_audio"] == f"audio/patching/blocks/drums/001-1/{run.replace(' ', '_')}.flac"
        assert (study.path / last[f"{side}_audio"]).is_file()
    ends = ("patched", "corrupt") if direction == "sufficiency" else ("clean", "patched")
    assert last["change"] == last[ends[0]] - last[ends[1]]
    assert last["change"] > 0
    assert last["whole"] == last["clean"] - last["corrupt"]


def test_pairs_that_were_not_run_are_not_listed(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    frame = pairs_frame(result, "drums", "tf3")
    assert list(zip(frame["pair"], frame["seed"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    failed = result.copy(deep=True)
    failed.score.loc["drums", 1, 1] = np.nan  # it was run and can be heard, but the scorer failed
    assert len(pairs_frame(failed, "drums", "tf3")) == 4
    assert set(patching_pairs.changes_frame(result, "drums", "tf3")["pair"]) == {0, 1}


def test_recordings_name_all_arms_that_sound_the_same(study: Study) -> None:
    frame = arms_frame(study.result(BLOCKS_MAP), "tempo", 0, 0)
    shared = frame.set_index("audio")["arms"]
    folder = "audio/patching/blocks/tempo/000-0"
    assert shared[f"{folder}/corrupt.flac"][:3] == ["corrupt", "tf0", "tf1"]
    assert shared[f"{folder}/tf3.flac"] == ["tf3"]
    assert sum(map(len, shared)) == study.result(BLOCKS_MAP).sizes["arm"]
