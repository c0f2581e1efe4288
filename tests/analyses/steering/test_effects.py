"""Effects of steering: means, intervals, null bands and sign checks on planted scores."""

import numpy as np
import pytest
import xarray as xr

from analyses.steering.effects import changes, effects, restored_impacts, sign_checks
from tests.tolerances import assert_close

PAIRS = 8
ARMS = [  # name, row, strength, role, null_of
    ("clean", "", 0.0, "run", ""),
    ("corrupt", "", 0.0, "run", ""),
    ("up × -1", "up", -1.0, "cell", ""),
    ("up × 1", "up", 1.0, "cell", ""),
    ("up × 2", "up", 2.0, "cell", ""),
    ("down × 1", "down", 1.0, "cell", ""),
    ("random 1 × 2", "random 1", 2.0, "null", "up × 2"),
    ("random 2 × 2", "random 2", 2.0, "null", "up × 2"),
]
MOVED = {"clean": 0.8, "corrupt": 0.0, "up × -1": -0.1, "up × 1": 0.2, "up × 2": 0.5, "down × 1": -0.3}


def planted(noise: float = 0.02) -> xr.DataArray:
    """Scores of the concept `mood`, which the arms move, and of `tempo`, which none does."""
    draws = np.random.default_rng(0)
    names = [arm[0] for arm in ARMS]
    moved = np.array([MOVED.get(name, 0.0) for name in names])
    base = draws.uniform(0.1, 0.2, (PAIRS, 2))[..., None]
    own = base + moved + noise * draws.standard_normal((PAIRS, 2, len(ARMS)))
    other = 0.9 + noise * draws.standard_normal((PAIRS, 2, len(ARMS)))
    labels = zip(("arm", "row", "strength", "role", "null_of"), zip(*ARMS, strict=True), strict=True)
    coords = {name: ("arm", list(values)) for name, values in labels}
    dims = ("concept", "pair", "seed", "arm", "scorer")
    return xr.DataArray(
        np.stack([own, other])[..., None], {"concept": ["mood", "tempo"], "scorer": ["one"], **coords}, dims
    )


def planted_changes() -> xr.DataArray:
    return changes(planted(), "mood", 1e-4)


def test_an_effect_is_the_mean_change_from_the_unsteered_run() -> None:
    score = planted()
    found = effects(changes(score, "mood", 0.0)).isel(scorer=0)
    expected = (score - score.sel(arm="corrupt", drop=True)).mean(("pair", "seed")).isel(scorer=0)
    assert_close(found.effect.transpose(*expected.dims).values, expected.values)
    own = found.sel(concept="mood")
    for arm, moved in MOVED.items():
        assert own.effect.sel(arm=arm) == pytest.approx(moved, abs=0.03)
    assert (own.effect_lo.sel(arm="up × 2") > 0.4) and (own.effect_hi.sel(arm="up × 2") < 0.6)
    assert float(own.effect.sel(arm="corrupt")) == 0


def test_a_moved_score_is_significant_and_another_is_not() -> None:
    found = effects(planted_changes()).isel(scorer=0)
    assert found.p.sel(concept="mood", arm="up × 2") == pytest.approx(2 / 2**PAIRS), "all pairs agree"
    assert found.p_adjusted.sel(concept="mood", arm="up × 2") < 0.05
    assert found.p_adjusted.sel(concept="tempo", arm="up × 2") > 0.05
    assert found.p.sel(arm=["clean", "corrupt"]).isnull().all()
    assert found.p_adjusted.sel(arm="random 1 × 2").isnull().all(), "null arms are not tested"


def test_the_null_band_is_that_of_an_arms_own_nulls() -> None:
    own = effects(planted_changes()).isel(scorer=0).sel(concept="mood")
    of_up = own.sel(arm="up × 2")
    nulls = own.effect.sel(arm=["random 1 × 2", "random 2 × 2"])
    assert of_up.null_lo < nulls.min() and nulls.max() < of_up.null_hi
    assert of_up.null_hi - of_up.null_lo < 0.1
    assert own.null_lo.drop_sel(arm="up × 2").isnull().all()


def test_missing_scores_are_left_out_and_do_not_count_as_zero() -> None:
    score = planted(noise=0.0)
    score.loc[{"pair": 0, "arm": "up × 1"}] = np.nan
    score.loc[{"pair": 1, "seed": 0, "arm": "up × 1"}] = np.nan
    score.loc[{"arm": "down × 1"}] = np.nan
    own = effects(changes(score, "mood", 1e-4)).isel(scorer=0).sel(concept="mood")
    assert own.effect.sel(arm="up × 1") == pytest.approx(0.2)
    assert np.isnan(own.effect.sel(arm="down × 1"))


def test_the_sign_check_finds_a_vector_that_steers_backwards() -> None:
    found = sign_checks(planted_changes().sel(concept="mood", drop=True)).isel(scorer=0)
    assert found.way.values.tolist() == ["up", "down"]
    assert found.upward.sel(way="up") == pytest.approx(0.3, abs=0.05), "from -1 to 1, not to 2"
    assert found.upward.sel(way="down") == pytest.approx(-0.3, abs=0.05), "from the unsteered run"
    assert found.upward_hi.sel(way="down") < 0 < found.upward_lo.sel(way="up")


def test_strengths_below_0_alone_are_compared_with_the_unsteered_run() -> None:
    change = planted_changes().sel(concept="mood", drop=True)
    found = sign_checks(change.sel(arm=change.strength <= 0)).isel(scorer=0)
    assert found.way.values.tolist() == ["up"]
    assert found.upward.sel(way="up") == pytest.approx(-change.sel(arm="up × -1").mean().item())


def test_a_change_as_small_as_a_rounding_error_has_no_sign() -> None:
    score = planted(noise=0.0)
    score.loc[{"arm": "down × 1"}] = score.sel(arm="corrupt") - 1e-9
    score.loc[{"concept": "tempo", "arm": "up × 1"}] = score.sel(concept="tempo", arm="corrupt") + 1e-9
    change = changes(score, "mood", 1e-4)
    found, check = (
        effects(change).isel(scorer=0),
        sign_checks(change.sel(concept="mood", drop=True)).isel(scorer=0),
    )
    assert (change.sel(arm="down × 1") == 0).all()
    assert found.p.sel(concept="mood", arm="down × 1") == found.p.sel(concept="tempo", arm="up × 1") == 1
    assert float(check.upward.sel(way="down")) == float(check.upward_hi.sel(way="down")) == 0
    assert found.effect.sel(concept="mood", arm="up × 2") == pytest.approx(0.5)


def test_steering_away_restores_the_fall_of_the_real_prompts_score() -> None:
    score = planted().sel(concept=["mood"])
    directed = score.assign_coords(
        direction=("arm", ["" if role == "run" else "sufficiency" for role in score["role"].values])
    )
    towards = restored_impacts(directed, 1e-4)
    away = restored_impacts(-directed, 1e-4, "positive")
    cells = directed["role"].values != "run"
    for name in ("impact", "impact_lo", "impact_hi"):
        assert_close(away[name].values[cells], towards[name].values[cells])
    assert_close(away.denominator.values, -towards.denominator.values)
    assert_close(away.denominator_lo.values, -towards.denominator_hi.values)
    assert away.defined.all() and (away.denominator_hi < 0).all()
    assert not restored_impacts(directed, 1e-4, "positive").defined.any(), "the wrong way"
