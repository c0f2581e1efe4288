"""The impact of arms against closed forms, and its tests, corrections and summaries against SciPy's."""

from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analyses.patching.impact import impact
from analyses.statistics import CLUSTER_RESAMPLES, expanded_confidence

CLEAN, CORRUPT = [0.9, 0.8, 1.0, 0.9], [0.1, 0.2, 0.0, 0.1]


def scores(
    arms: dict[str, tuple[str, str, np.ndarray]],
    concepts: Sequence[str] = ("tempo",),
    scorers: Sequence[str] = ("a",),
) -> xr.DataArray:
    """Scores of the arms by name: role, direction, and values of (concept, pair, seed, scorer)."""
    roles, directions, values = zip(*arms.values(), strict=True)
    return xr.DataArray(
        np.stack(values, axis=3),
        dims=("concept", "pair", "seed", "arm", "scorer"),
        coords={
            "concept": list(concepts),
            "pair": range(values[0].shape[1]),
            "seed": range(values[0].shape[2]),
            "arm": list(arms),
            "scorer": list(scorers),
            "role": ("arm", list(roles)),
            "direction": ("arm", list(directions)),
            "row": ("arm", list(arms)),
            "column": ("arm", ["all"] * len(arms)),
        },
    )


def column(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values of pairs, or of (pair, seed), for one concept and one scorer."""
    values = np.asarray(values, dtype=float)
    return values.reshape(1, len(values), -1, 1)


def one_concept(
    clean: Sequence[float] | np.ndarray,
    corrupt: Sequence[float] | np.ndarray,
    **arms: Sequence[float] | np.ndarray,
) -> xr.DataArray:
    """Scores of one concept; arms named `necessity…` are necessity cells, `null…` null arms, all others sufficiency."""
    return scores(
        {"clean": ("run", "", column(clean)), "corrupt": ("run", "", column(corrupt))}
        | {
            name: (
                "null" if name.startswith("null") else "cell",
                "necessity" if name.startswith("necessity") else "sufficiency",
                column(values),
            )
            for name, values in arms.items()
        }
    )


def noisy(n_cells: int, n_nulls: int = 0, pairs: int = 12, seeds: int = 2, seed: int = 0) -> xr.DataArray:
    """Two concepts and two scorers; half the cells have an effect, and rows and pairs have noise."""
    rng = np.random.default_rng(seed)
    shape = (2, pairs, seeds, 2)
    pair = rng.normal(size=(2, pairs, 1, 1))

    def runs(mean: float) -> np.ndarray:
        return mean + pair + 0.3 * rng.normal(size=shape)

    cells = {f"tf{i}": ("cell", "sufficiency", runs(i / n_cells if i % 2 else 0.0)) for i in range(n_cells)}
    nulls = {f"null{i}": ("null", "sufficiency", runs(0.0)) for i in range(n_nulls)}
    runs_themselves = {"clean": ("run", "", runs(1.0)), "corrupt": ("run", "", runs(0.0))}
    return scores(runs_themselves | cells | nulls, ("tempo", "mood"), ("a", "b"))


def numbers(result: xr.Dataset, arm: str) -> list[float]:
    """Impact, its interval, and p of an arm of the first concept by the first scorer."""
    at = result.isel(concept=0, scorer=0).sel(arm=arm)
    return [float(at[name]) for name in ("impact", "impact_lo", "impact_hi", "p")]


def test_sufficiency_is_the_recovered_and_necessity_the_lost_share() -> None:
    arm = [0.5, 0.4, 0.6, 0.3]
    result = impact(one_concept(CLEAN, CORRUPT, tf0=arm, necessity0=arm))
    for name, share in (("tf0", (0.45 - 0.1) / 0.8), ("necessity0", (0.9 - 0.45) / 0.8)):
        value, low, high, _ = numbers(result, name)
        assert value == pytest.approx(share)
        assert low < share < high
    at = result.isel(concept=0, scorer=0)
    assert float(at.denominator) == pytest.approx(0.8)
    assert at.denominator_lo < 0.8 < at.denominator_hi
    assert (int(at.n), int(at.n_pairs), bool(at.defined)) == (4, 4, True)


def test_the_result_has_the_documented_dims() -> None:
    result = impact(noisy(4).transpose("scorer", "arm", "seed", "pair", "concept"))
    by_arm = {"impact", "impact_lo", "impact_hi", "p", "p_adjusted"}
    assert {str(name) for name in result.data_vars if "arm" in result[name].dims} == by_arm
    assert all(result[name].dims == ("concept", "arm", "scorer") for name in by_arm)
    assert all(result[name].dims == ("concept", "scorer") for name in set(result) - by_arm)
    assert {"row", "column", "direction", "role"} <= set(result.coords)
    for name in by_arm:
        assert result[name].sel(arm=["clean", "corrupt"]).isnull().all()
        assert result[name].sel(arm="tf1").notnull().all()
    xr.testing.assert_equal(result, impact(noisy(4)))


@pytest.mark.parametrize("pairs", [2, 7, 16])
def test_an_arm_equal_to_a_run_has_exactly_no_or_all_impact(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    clean, corrupt = rng.normal(1, 0.1, (pairs, 2)), rng.normal(0, 0.1, (pairs, 2))
    none = {f"tf{i}": corrupt for i in range(9)} | {"necessity0": clean}
    every = {f"all{i}": clean for i in range(9)} | {"necessity1": corrupt}
    result = impact(one_concept(clean, corrupt, tf=rng.normal(size=(pairs, 2)), **none, **every))
    assert all(numbers(result, name) == [0.0, 0.0, 0.0, 1.0] for name in none)
    assert all(numbers(result, name)[:3] == [1.0, 1.0, 1.0] for name in every)
    if pairs < 16:
        assert numbers(result, "all0")[3] == 2 / 2**pairs


def test_equal_rows_give_a_point() -> None:
    result = impact(one_concept([0.9] * 6, [0.1] * 6, tf0=[0.3] * 6))
    assert numbers(result, "tf0")[:3] == pytest.approx([0.25] * 3)
    assert float(result.denominator_lo.item()) == pytest.approx(0.8)


def test_the_interval_is_scipys_over_pairs_at_the_expanded_level() -> None:
    rng = np.random.default_rng(3)
    clean, corrupt, arm = (mean + rng.normal(size=(10, 3)) for mean in (5.0, 0.0, 2.0))
    samples = (arm - corrupt).mean(axis=1), (clean - corrupt).mean(axis=1)
    interval = stats.bootstrap(
        samples,
        lambda gain, whole, axis: gain.mean(axis=axis) / whole.mean(axis=axis),
        paired=True,
        confidence_level=expanded_confidence(0.9, 10),
        n_resamples=CLUSTER_RESAMPLES,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    result = impact(one_concept(clean, corrupt, tf0=arm), confidence=0.9)
    assert numbers(result, "tf0")[1:3] == pytest.approx([interval.low, interval.high], abs=1e-4)


def test_a_seed_run_twice_is_no_new_pair() -> None:
    rng = np.random.default_rng(4)
    runs = [mean + rng.normal(size=8) for mean in (3.0, 0.0, 1.0)]
    once = impact(one_concept(runs[0], runs[1], tf0=runs[2]))
    twice = impact(
        one_concept(*(np.stack([run, run], axis=1) for run in runs[:2]), tf0=np.stack([runs[2]] * 2, axis=1))
    )
    assert numbers(twice, "tf0") == pytest.approx(numbers(once, "tf0"))
    assert (twice.n.item(), twice.n_pairs.item()) == (16, 8)


def test_a_denominator_that_may_be_zero_makes_the_map_undefined() -> None:
    result = impact(one_concept([0.5, 0.1, 0.9, 0.4], [0.4, 0.3, 0.6, 0.6], tf0=[0.5] * 4, null0=[0.4] * 4))
    assert not result.defined.item()
    assert result.denominator_lo.item() < 0
    unknown = [
        "impact",
        "impact_lo",
        "impact_hi",
        "p",
        "p_adjusted",
        "null_lo",
        "null_hi",
        "stability",
    ]
    assert all(result[name].isnull().all() for name in unknown)


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_pairs_are_undefined(pairs: int) -> None:
    score = one_concept(CLEAN, CORRUPT, tf0=[0.5] * 4)
    result = impact(score.where(score.pair < pairs))
    assert (result.n_pairs.item(), result.defined.item()) == (pairs, False)
    assert result.impact.isnull().all()


def test_a_missing_arm_leaves_its_row_out_for_that_arm_only() -> None:
    rng = np.random.default_rng(5)
    runs = {"clean": rng.normal(3, 1, 8), "corrupt": rng.normal(0, 1, 8)}
    arms = {"tf0": rng.normal(1, 1, 8), "tf1": rng.normal(1, 1, 8)}
    whole = one_concept(**runs, **arms)
    holed = impact(whole.where((whole.arm != "tf0") | (whole.pair != 7)))
    assert numbers(holed, "tf1") == numbers(impact(whole), "tf1")
    assert numbers(holed, "tf0") == pytest.approx(numbers(impact(whole.isel(pair=slice(7))), "tf0"))
    assert holed.n.item() == 8


@pytest.mark.parametrize("run", ["clean", "corrupt"])
def test_a_missing_run_leaves_its_row_out_for_all(run: str) -> None:
    whole = noisy(4, 2)
    holed = impact(whole.where((whole.arm != run) | (whole.pair != 11)))
    xr.testing.assert_equal(holed, impact(whole.where(whole.pair != 11)))
    assert (holed.n == 22).all()


def test_pairs_that_were_not_run_change_nothing() -> None:
    score = noisy(4, 2)
    stopped = score.where((score.pair < 8) | (score.concept == "mood"))
    alone = impact(score.sel(concept=["tempo"]).isel(pair=slice(8))).drop_vars("p_adjusted")
    xr.testing.assert_allclose(impact(stopped).drop_vars("p_adjusted").sel(concept=["tempo"]), alone)


def test_uneven_seeds_keep_the_ratio_of_means_over_rows() -> None:
    rng = np.random.default_rng(6)
    clean, corrupt, arm = (mean + rng.normal(size=(6, 2)) for mean in (4.0, 0.0, 1.0))
    arm[0, 1] = np.nan
    known = ~np.isnan(arm)
    expected = (arm[known].mean() - corrupt[known].mean()) / (clean[known].mean() - corrupt[known].mean())
    assert numbers(impact(one_concept(clean, corrupt, tf0=arm)), "tf0")[0] == pytest.approx(expected)


def test_p_is_scipys_sign_flip_test_of_the_pair_means() -> None:
    score = noisy(4, 2, pairs=8)
    result = impact(score)
    changes = (score - score.sel(arm="corrupt")).mean("seed").sel(concept="mood", scorer="b")
    for arm in ("tf1", "tf2", "null0"):
        expected = stats.permutation_test(
            (changes.sel(arm=arm).values,), lambda x, axis: x.mean(axis=axis), permutation_type="samples"
        ).pvalue
        assert result.p.sel(concept="mood", scorer="b", arm=arm).item() == pytest.approx(expected)


def test_the_base_of_necessity_is_the_clean_run() -> None:
    rng = np.random.default_rng(7)
    clean = rng.normal(1, 0.1, 8)
    result = impact(one_concept(clean, clean - 1, necessity0=clean - 0.2, tf0=clean - 1 + 0.2))
    assert numbers(result, "necessity0")[0] == pytest.approx(0.2)
    assert numbers(result, "necessity0")[3] == pytest.approx(2 / 2**8)


def test_the_correction_is_over_all_concepts_of_a_scorer_and_leaves_nulls_out() -> None:
    result = impact(noisy(6, 3))
    for scorer in ("a", "b"):
        family = result.sel(scorer=scorer, arm=result.role == "cell")
        expected = stats.false_discovery_control(family.p.values.ravel())
        np.testing.assert_allclose(family.p_adjusted.values.ravel(), expected)
    nulls = result.sel(arm=result.role == "null")
    assert nulls.p.notnull().all()
    assert nulls.p_adjusted.isnull().all()


def test_cells_without_scores_count_in_the_family() -> None:
    """A screening chooses cells by the same pairs: without those it left out, the correction would be too small."""
    score = noisy(6)
    part = score.copy()
    part.loc[{"concept": "tempo", "arm": ["tf1", "tf4"]}] = np.nan
    every, some = impact(score), impact(part)
    left_out = some.p_adjusted.sel(concept="tempo", arm=["tf1", "tf4"])
    assert left_out.isnull().all()
    p = every.p.sel(arm=every.role == "cell").copy()
    p.loc[{"concept": "tempo", "arm": ["tf1", "tf4"]}] = 1.0
    for scorer in ("a", "b"):
        values = p.sel(scorer=scorer).values
        expected = stats.false_discovery_control(values.ravel()).reshape(values.shape)
        found = some.p_adjusted.sel(scorer=scorer, arm=p.arm).values
        known = ~np.isnan(found)
        assert known.sum() == known.size - 2
        np.testing.assert_allclose(found[known], expected[known])


def test_undefined_concepts_are_out_of_the_family() -> None:
    score = noisy(6)
    mixed = score.copy()
    mixed.loc[{"concept": "mood", "arm": "clean"}] = mixed.sel(concept="mood", arm="corrupt").values
    xr.testing.assert_allclose(
        impact(mixed).p_adjusted.sel(concept=["tempo"]), impact(score.sel(concept=["tempo"])).p_adjusted
    )


def test_the_null_band_is_that_of_the_null_arms_alone() -> None:
    assert impact(noisy(4)).null_lo.isnull().all()
    result = impact(noisy(4, 6))
    nulls = result.impact.sel(arm=result.role == "null")
    assert (result.null_lo < nulls.median("arm")).all()
    assert (result.null_hi > nulls.median("arm")).all()
    assert (result.impact.sel(arm="tf3") > result.null_hi).all()
    one = impact(one_concept(CLEAN, CORRUPT, tf0=[0.5] * 4, null0=CORRUPT))
    assert (one.null_lo.item(), one.null_hi.item()) == (0.0, 0.0)


def test_the_null_band_of_many_pairs_is_the_normal_one() -> None:
    rng = np.random.default_rng(8)
    clean, corrupt, null = np.full(100, 1.0), np.zeros(100), rng.normal(0.1, 1.0, 100)
    result = impact(one_concept(clean, corrupt, tf0=null, null0=null))
    expected = stats.norm.interval(0.95, null.mean(), stats.sem(null))
    assert [result.null_lo.item(), result.null_hi.item()] == pytest.approx(expected, abs=0.02)


def test_stability_is_one_for_a_sure_order_and_falls_with_noise() -> None:
    rng = np.random.default_rng(9)
    clean, corrupt = np.ones((12, 2)), np.zeros((12, 2))
    by_noise = []
    for noise in (0.0, 0.3, 3.0):
        cells = {f"tf{i}": i / 10 + noise * rng.normal(size=(12, 2)) for i in range(8)}
        by_noise.append(impact(one_concept(clean, corrupt, **cells)))
    stability = [float(result.stability.item()) for result in by_noise]
    assert stability[0] == pytest.approx(1.0)
    assert stability[0] > stability[1] > stability[2]
    for result in by_noise[1:]:
        assert result.stability_lo.item() < result.stability.item() < result.stability_hi.item()


def test_stability_is_that_of_two_samples_of_half_the_pairs() -> None:
    """The order of noise is that of no other sample, however large the correlation with resamples of the same one."""
    rng = np.random.default_rng(10)
    effects = np.linspace(0, 0.3, 24)

    def sample(effect: float, pairs: int) -> np.ndarray:
        """The impact of each pair (cell, pair), as clean and corrupt runs score 1 and 0."""
        return effect * effects[:, None] + 0.3 * rng.normal(size=(24, pairs))

    def stability(values: np.ndarray) -> float:
        cells = {f"tf{i}": cell for i, cell in enumerate(values)}
        return float(impact(one_concept(np.ones(12), np.zeros(12), **cells)).stability)

    for effect in (0.0, 1.0, 4.0):
        within = [stability(sample(effect, 12)) for _ in range(20)]
        between = [
            stats.spearmanr(*(sample(effect, 6).mean(axis=1) for _ in range(2))).statistic for _ in range(40)
        ]
        assert np.mean(within) == pytest.approx(np.mean(between), abs=0.08)


def test_stability_draws_whole_pairs() -> None:
    rng = np.random.default_rng(11)
    ones, zeros = np.ones((10, 1)), np.zeros((10, 1))
    cells = {f"tf{i}": i / 10 + rng.normal(size=(10, 1)) for i in range(8)}
    once, often = (
        impact(one_concept(*(np.repeat(run, seeds, axis=1) for run in (ones, zeros)),
                           **{name: np.repeat(cell, seeds, axis=1) for name, cell in cells.items()}))
        for seeds in (1, 6)
    )  # fmt: skip
    assert often.stability.item() == pytest.approx(once.stability.item(), abs=0.03)


def test_two_cells_have_no_order_to_be_stable() -> None:
    result = impact(noisy(2, 4))
    assert result.stability.isnull().all()


def test_a_wider_confidence_is_a_wider_interval() -> None:
    narrow, wide = (impact(noisy(4, 2), confidence=confidence) for confidence in (0.8, 0.99))
    for name in ("impact", "denominator", "null", "stability"):
        assert (wide[f"{name}_lo"] < narrow[f"{name}_lo"]).any()
        assert not (wide[f"{name}_lo"] > narrow[f"{name}_lo"]).any()
        assert not (wide[f"{name}_hi"] < narrow[f"{name}_hi"]).any()


def test_rounding_is_a_tie_and_never_significant() -> None:
    """Twelve pairs, each a hair above the base run: without a resolution p would be 2 / 2**12."""
    rng = np.random.default_rng(0)
    clean, corrupt = 0.9 + 0.02 * rng.random(12), 0.1 + 0.02 * rng.random(12)
    hair = 1e-8 * (1 + rng.random(12))
    data = one_concept(
        clean, corrupt, tf0=corrupt + hair, tf1=clean - hair, necessity0=clean - hair, tf2=corrupt + 1e-3
    )
    result = impact(data)
    assert numbers(result, "tf0") == [0, 0, 0, 1]
    assert numbers(result, "necessity0") == [0, 0, 0, 1]
    assert numbers(result, "tf1")[:3] == [1, 1, 1]
    assert numbers(result, "tf2")[0] > 0 and numbers(result, "tf2")[3] < 0.001, "small, and no rounding"
    assert numbers(impact(data, resolution=1e-2), "tf2") == [0, 0, 0, 1]
    assert numbers(impact(data, resolution=0.0), "tf0")[3] < 0.001
