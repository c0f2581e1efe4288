"""Reliability of directions, against directions that are known."""

import numpy as np
import pytest
import xarray as xr

from analyses.steering.reliability import (
    HALVINGS,
    cosine_in_words,
    cosine_with_truth,
    reliability,
    reliability_of_refits,
    unknown_reliability,
)

CHANNELS = 4000
GROUPS, PAIRS = 10, 50
NOISE = 2.0  # standard deviation of the sum over a group's pairs, in each channel


def planted(truth: float, seed: int = 0, groups: int = GROUPS) -> np.ndarray:
    """Sums (group, pass, step, channel): a direction with `truth` in every channel for each pair, and noise."""
    noise = np.random.default_rng(seed).normal(0, NOISE, (groups, 1, 2, CHANNELS))
    return noise + truth * PAIRS / groups


def test_the_cosine_of_halves_is_that_of_the_signal_and_its_noise() -> None:
    """Halves of sums have the signal n/2 · t and the noise variance g/2 · s²."""
    for truth in (0.0, 0.1, 0.3):
        found = reliability({"tf0.mlp": planted(truth)}, ["cond"], PAIRS)
        signal, noise = (truth * PAIRS / 2) ** 2, GROUPS / 2 * NOISE**2
        expected = signal / (signal + noise)
        np.testing.assert_allclose(found.split_half.values, expected, atol=0.03)
        assert (found.split_half_lo <= found.split_half).all() and (
            found.split_half <= found.split_half_hi
        ).all()


def test_the_learning_curve_rises_with_pairs_to_the_halves() -> None:
    found = reliability({"tf0.mlp": planted(0.2)}, ["cond"], PAIRS).sel(site="tf0.mlp")
    assert found.pairs.values.tolist() == [5, 10, 15, 20, 25]
    n = np.arange(1, 6)
    expected = (0.2 * 5 * n) ** 2 / ((0.2 * 5 * n) ** 2 + n * NOISE**2)
    np.testing.assert_allclose(found.learning.sel({"pass": "cond", "step": 1}).values, expected, atol=0.03)
    np.testing.assert_allclose(found.learning.isel(pairs=-1).values, found.split_half.values, atol=0.01)


def test_steps_are_compared_by_the_direction_of_all_pairs() -> None:
    sums = np.zeros((2, 1, 3, 2))
    sums[:, 0, 0], sums[:, 0, 1] = [1.0, 0.0], [1.0, 1.0]
    found = reliability({"tf0.mlp": sums}, ["cond"], 8).steps.sel({"site": "tf0.mlp", "pass": "cond"})
    assert found.sel(step=0, step_b=1).item() == pytest.approx(np.sqrt(0.5))
    assert found.sel(step=1, step_b=1).item() == pytest.approx(1.0)
    assert found.sel(step=2).isnull().all(), "a direction that is zero has no cosine"


def test_tokens_count_like_channels() -> None:
    sums = planted(0.2)
    by_token = sums.reshape(GROUPS, 1, 2, 40, 100)
    one, other = (reliability({"tf0.mlp": values}, ["cond"], PAIRS) for values in (sums, by_token))
    np.testing.assert_allclose(one.split_half.values, other.split_half.values)


def test_one_pair_has_no_reliability() -> None:
    found = reliability({"tf0.mlp": planted(0.2, groups=1)}, ["cond"], 1)
    assert found.split_half.isnull().all()
    assert found.sizes["pairs"] == 0
    assert found.steps.notnull().all()


@pytest.mark.parametrize("groups", [2, 3])
def test_a_single_halving_has_no_interval(groups: int) -> None:
    sums = planted(0.2, groups=groups)
    refits = reliability_of_refits(
        lambda chosen: {"tf0.mlp": sums[chosen].sum(axis=0)}, groups, ["cond"], groups, draws=20
    )
    for found in (reliability({"tf0.mlp": sums}, ["cond"], groups), refits):
        assert found.split_half.notnull().all()
        for end in (found.split_half_lo, found.split_half_hi):
            assert end.isnull().all() if groups == 2 else end.notnull().all()


@pytest.mark.parametrize(
    ("cosine", "shown"),
    [(0.99583, "0.996"), (0.99972, "> 0.999"), (1.0, "1"), (1 - 1e-12, "1"), (-0.2, "-0.2")],
)
def test_a_cosine_is_never_rounded_up_to_1(cosine: float, shown: str) -> None:
    assert cosine_in_words(cosine) == shown


def test_sites_and_passes_are_labelled() -> None:
    first, second = planted(0.0), planted(0.3)
    both = np.concatenate([first, second], axis=1)
    found = reliability({"tf1.mlp": both, "tf0.mlp": both[:, ::-1]}, ["cond", "null"], PAIRS)
    assert float(found.split_half.sel({"site": "tf1.mlp", "pass": "null", "step": 0})) > 0.7
    assert float(found.split_half.sel({"site": "tf0.mlp", "pass": "cond", "step": 0})) > 0.7
    assert float(found.split_half.sel({"site": "tf0.mlp", "pass": "null", "step": 0})) < 0.1


@pytest.mark.parametrize("groups", [GROUPS, 5, 1])
def test_refits_of_mean_differences_are_compared_like_them(groups: int) -> None:
    sums = {"tf1.mlp": planted(0.2, groups=groups), "tf0.mlp": planted(0.0, groups=groups)}

    def refit(chosen: np.ndarray) -> dict[str, np.ndarray]:
        return {site: values[chosen].sum(axis=0) for site, values in sums.items()}

    expected = reliability(sums, ["cond"], PAIRS)
    found = reliability_of_refits(refit, groups, ["cond"], PAIRS, draws=HALVINGS)
    xr.testing.assert_allclose(found, expected)


def test_without_draws_only_steps_are_compared() -> None:
    sums = planted(0.2)
    found = reliability_of_refits(
        lambda chosen: {"tf0.mlp": sums[chosen].sum(axis=0)}, GROUPS, ["cond"], PAIRS, 0
    )
    assert found.split_half.isnull().all() and found.learning.isnull().all()
    assert found.steps.notnull().all()


def test_the_cosine_with_the_truth_is_estimated_from_halves() -> None:
    """It is known here: the truth has the same number in every channel."""
    for truth in (0.1, 0.2, 0.5):
        sums = planted(truth)
        found = float(cosine_with_truth(reliability({"tf0.mlp": sums}, ["cond"], PAIRS).split_half).mean())
        mean = sums.sum(axis=0)[0]
        known = mean.sum(axis=-1) / np.linalg.norm(mean, axis=-1) / np.sqrt(CHANNELS)
        assert found == pytest.approx(known.mean(), abs=0.03)


def test_what_is_unknown_is_not_a_number() -> None:
    unknown = unknown_reliability(["tf0.mlp"], ["cond", "null"], 3)
    assert all(values.isnull().all() for values in unknown.values())
    assert dict(unknown.sizes) == {"site": 1, "pass": 2, "step": 3, "pairs": 0, "step_b": 3}
    halves = xr.DataArray([-0.1, 0.0, np.nan])
    assert cosine_with_truth(halves).isnull().all()
