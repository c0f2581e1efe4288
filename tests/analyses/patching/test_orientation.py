"""The sides of descriptors: a planted effect adds up whichever prompt is the clean one, and noise does not."""

import numpy as np
import xarray as xr

from analyses.patching.impact import impact
from analyses.patching.orientation import orientation

FAST_SLOW = np.array([["fast", "slow"] * 6])


def measured(effects: np.ndarray, patched: float = 0.5, noise: float = 0.1, seed: int = 0) -> xr.DataArray:
    """Values of a descriptor and a judge in runs of pairs with these clean-corrupt differences, and of one cell."""
    rng = np.random.default_rng(seed)
    corrupt = rng.normal(5, 1, len(effects))
    runs = np.stack([corrupt + effects, corrupt, corrupt + patched * effects], axis=1)
    values = runs[None, :, None, :, None] + noise * rng.normal(size=(1, len(effects), 2, 3, 1))
    return xr.DataArray(
        np.concatenate([values, np.zeros_like(values)], axis=-1),
        dims=("concept", "pair", "seed", "arm", "scorer"),
        coords={
            "concept": ["tempo"],
            "arm": ["clean", "corrupt", "tf0"],
            "scorer": ["onset_rate", "judge"],
            "role": ("arm", ["run", "run", "cell"]),
            "direction": ("arm", ["", "", "sufficiency"]),
        },
    )


def signs(score: xr.DataArray, clean: np.ndarray, corrupt: np.ndarray) -> np.ndarray:
    return orientation(score, clean, corrupt, ["onset_rate"]).sel(scorer="onset_rate").values[0]


def test_a_planted_share_is_found_whichever_prompt_is_clean() -> None:
    clean, corrupt = FAST_SLOW, FAST_SLOW[:, ::-1]
    score = measured(np.where(clean[0] == "fast", 2.0, -2.0))
    found = orientation(score, clean, corrupt, ["onset_rate"])
    assert found.sel(scorer="onset_rate").values[0].tolist() == [1, -1] * 6
    assert (found.sel(scorer="judge") == 1).all()
    assert not bool(impact(score).defined.sel(scorer="onset_rate").item())
    result = impact(score * found).sel(scorer="onset_rate", arm="tf0").isel(concept=0)
    assert result.defined
    assert result.impact_lo < 0.5 < result.impact_hi
    assert abs(float(result.denominator) - 2) < 0.2


def test_values_that_no_two_pairs_compare_are_ordered_through_others() -> None:
    """Of a > b > c, the pair of a and c is told by those of a and b, and of b and c."""
    clean, corrupt = np.array([["a", "b", "a", "b"]]), np.array([["b", "c", "c", "a"]])
    assert signs(measured(np.array([2.0, 1.0, 3.0, -2.0])), clean, corrupt).tolist() == [1, 1, 1, -1]


def test_a_pair_without_others_of_its_values_has_no_side() -> None:
    clean, corrupt = np.array([["a", "a", "x"]]), np.array([["b", "b", "y"]])
    found = signs(measured(np.array([1.0, 1.0, 1.0])), clean, corrupt)
    assert found[:2].tolist() == [1, 1]
    assert np.isnan(found[2])
    assert np.isnan(signs(measured(np.array([1.0])), clean[:, :1], corrupt[:, :1])).all()


def test_pairs_that_were_not_run_tell_nothing() -> None:
    score = measured(np.where(FAST_SLOW[0] == "fast", 2.0, -2.0))
    score[:, 1:] = np.nan
    found = signs(score, FAST_SLOW, FAST_SLOW[:, ::-1])
    assert np.isnan(found[0])
    assert found[1:].tolist() == [-1, 1] * 5 + [-1]


def test_noise_is_no_effect() -> None:
    """In 200 maps of noise the difference is 0 on average; a sign of the pair's own would make it 0.8 deviations."""
    maps = xr.concat([measured(np.zeros(12), noise=1.0, seed=seed) for seed in range(200)], "concept")
    maps = maps.assign_coords(concept=range(200))
    clean = np.repeat(FAST_SLOW, 200, axis=0)
    found = maps * orientation(maps, clean, clean[:, ::-1], ["onset_rate"])
    whole = (found.sel(arm="clean") - found.sel(arm="corrupt")).sel(scorer="onset_rate")
    assert abs(float(whole.mean())) < 4 * np.sqrt(2) / np.sqrt(2 * 12 * 200)
