"""The agreement of two judges' maps: planted rankings, their intervals, and what has none."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analyses.patching.agreement import agreement
from analyses.patching.impact import RESOLUTION, impact
from tests.analyses.patching.test_impact import noisy

EXACT = RESOLUTION["float32"]


def agreed(score: xr.DataArray) -> xr.Dataset:
    return agreement(score, impact(score).impact, EXACT)


def judged(*effects: list[float], pairs: int = 12, noise: float = 0.02) -> xr.DataArray:
    """Scores by a judge for each list of the cells' effects, with noise of each pair and judge."""
    rng = np.random.default_rng(1)
    values = np.stack([np.r_[1.0, 0.0, each] for each in effects], axis=1)  # arm, scorer
    score = values + noise * rng.normal(size=(1, pairs, 1, *values.shape))
    n = len(effects[0])
    return xr.DataArray(
        score,
        dims=("concept", "pair", "seed", "arm", "scorer"),
        coords={
            "concept": ["tempo"],
            "arm": ["clean", "corrupt", *(f"tf{i}" for i in range(n))],
            "scorer": [f"judge{i}" for i in range(len(effects))],
            "role": ("arm", ["run"] * 2 + ["cell"] * n),
            "direction": ("arm", [""] * 2 + ["sufficiency"] * n),
        },
    )


def test_it_is_the_rank_correlation_of_two_maps_with_an_interval_around_it() -> None:
    score = noisy(8, 3)
    cells = impact(score).impact.sel(concept="tempo", arm=score.role == "cell")
    expected = stats.spearmanr(*(cells.sel(scorer=name).clip(min=0) for name in ("a", "b"))).statistic
    found = agreed(score).sel(concept="tempo")
    np.testing.assert_allclose(found.agreement, [[1.0, expected], [expected, 1.0]])
    low, high = (float(found[f"agreement_{end}"].sel(scorer="a", scorer_b="b")) for end in ("lo", "hi"))
    assert -1 <= low < expected < high <= 1
    assert found.agreement_lo.sel(scorer="a", scorer_b="a") == 1
    assert (found.agreement_cells == 8).all()
    assert (found.agreement_pairs == 12).all()


def test_judges_that_rank_alike_agree_and_those_that_rank_backwards_disagree() -> None:
    steps = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    found = agreed(judged(steps, [step / 2 for step in steps], steps[::-1])).isel(concept=0)
    both = found.sel(scorer="judge0")
    np.testing.assert_allclose(both.agreement, [1, 1, -1])
    np.testing.assert_allclose(both.agreement_lo, [1, 1, -1])
    np.testing.assert_allclose(both.agreement_hi, [1, 1, -1])


def test_cells_below_zero_are_all_the_same() -> None:
    score = judged([0.0, -0.3, 0.6, 0.9], [-0.2, 0.0, 0.6, 0.9], noise=0.0)
    assert agreed(score).agreement.sel(scorer="judge0", scorer_b="judge1").item() == pytest.approx(1)


def test_only_pairs_that_both_have_scored_count() -> None:
    score = judged([0.0, 0.3, 0.6, 0.9], [0.1, 0.3, 0.7, 0.9])
    score[:, 7:, :, :, 1] = np.nan
    found = agreed(score).isel(concept=0).sel(scorer="judge0")
    assert found.agreement_pairs.values.tolist() == [12, 7]
    assert found.agreement_cells.values.tolist() == [4, 4]


def test_the_order_of_judges_does_not_matter() -> None:
    score = noisy(8)
    xr.testing.assert_identical(
        agreed(score.isel(scorer=[1, 0])).sel(scorer=["a", "b"], scorer_b=["a", "b"]), agreed(score)
    )


@pytest.mark.parametrize(
    "score",
    [judged([0.2, 0.8], [0.1, 0.9]), judged([0.0] * 4, [0.0] * 4, noise=0.0), noisy(2, 4)],
    ids=["two cells", "equal impacts", "two cells and null arms"],
)
def test_without_an_order_there_is_no_agreement(score: xr.DataArray) -> None:
    found = agreed(score)
    assert all(found[name].isnull().all() for name in ("agreement", "agreement_lo", "agreement_hi"))


def test_a_judge_that_does_not_tell_the_prompts_apart_does_not_agree() -> None:
    score = judged([0.0, 0.3, 0.6], [0.0, 0.3, 0.6])
    score[..., 0, 1] = score[..., 1, 1]  # its clean score is the corrupt one
    found = agreed(score).isel(concept=0)
    assert found.agreement.isnull().values.tolist() == [[False, True], [True, True]]
    assert found.agreement_cells.values.tolist() == [[3, 0], [0, 0]]


def test_one_pair_has_no_interval() -> None:
    found = agreed(judged([0.0, 0.3, 0.6], [0.0, 0.3, 0.6], pairs=1))
    assert found.agreement_lo.isnull().all()
