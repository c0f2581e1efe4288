"""What the statistics of maps promise, on simulated maps with planted impacts: coverage, false discoveries, p."""

import numpy as np
import pytest
from scipy import stats

from analyses.patching.impact import fraction
from analyses.statistics import cluster_bootstrap, sign_flip_p
from benchmarks.power import DESIGNS, SEEDS, Design, bimodal, bounded, coverage, even, p_values

REPLICATIONS = 3000  # standard error of a coverage of 0.95: 0.004
MAPS = 1000
BLOCKS = 24


@pytest.mark.parametrize(
    ("design", "impact", "pairs"),
    [
        *((even, impact, pairs) for impact in (0.0, 0.2, 0.5) for pairs in (12, 32)),
        *((bounded, impact, pairs) for impact in (0.05, 0.2, 0.5) for pairs in (16, 32)),
        *((bimodal, impact, pairs) for impact in (0.2, 0.5) for pairs in (12, 32)),
    ],
)
def test_intervals_cover_the_planted_impact(design: Design, impact: float, pairs: int) -> None:
    assert coverage(design, pairs, impact, REPLICATIONS) == pytest.approx(0.95, abs=0.02)


def test_where_intervals_fall_short_is_where_the_docs_say() -> None:
    assert coverage(even, 4, 0.2, REPLICATIONS) < 0.93
    assert coverage(bimodal, 12, 0.05, REPLICATIONS) < 0.93


def test_rows_of_one_pair_are_not_independent() -> None:
    """Why pairs are resampled: rows taken for independent would give intervals that are too narrow."""
    clean, corrupt, arm = even(np.random.default_rng(1), 16, 0.2, REPLICATIONS)
    rows = ((arm - corrupt).reshape(-1, REPLICATIONS), (clean - arm).reshape(-1, REPLICATIONS))
    boot = cluster_bootstrap(rows, fraction)
    assert np.mean((boot.low <= 0.2) & (boot.high >= 0.2)) < 0.93


@pytest.mark.parametrize("pairs", [6, 10, 20])
@pytest.mark.parametrize("design", DESIGNS.values())
def test_p_of_null_cells_is_uniform_or_conservative(design: Design, pairs: int) -> None:
    p = p_values(design, pairs, 0.0, REPLICATIONS, np.random.default_rng(2))
    for level in (0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
        assert np.sum(p <= level) <= stats.binom.ppf(0.999, REPLICATIONS, level)
    if pairs > 6:  # and not conservative without need
        assert np.sum(p <= 0.05) >= stats.binom.ppf(0.001, REPLICATIONS, 0.03)


def map_p(planted: list[float], pairs: int, rng: np.random.Generator) -> np.ndarray:
    """p of (map, block): the blocks of a map share the noise of their corrupt run."""
    shape = (pairs, SEEDS, MAPS, 1)
    delta = 1 + 0.4 * rng.normal(size=(pairs, 1, MAPS, 1))
    corrupt = 0.3 * rng.normal(size=shape)
    arms = delta * np.array(planted) + 0.3 * rng.normal(size=(*shape[:3], len(planted)))
    changes = (arms - corrupt).mean(axis=1).reshape(pairs, -1)
    return sign_flip_p(changes).reshape(MAPS, len(planted))


@pytest.mark.parametrize("planted", [[], [1.0], [1.0, 0.5, 0.3, 0.2]])
def test_the_false_discovery_rate_is_at_most_nominal(planted: list[float]) -> None:
    p = map_p(planted + [0.0] * (BLOCKS - len(planted)), 10, np.random.default_rng(3))
    found = stats.false_discovery_control(p, axis=1) <= 0.05
    share_false = found[:, len(planted) :].sum(axis=1) / found.sum(axis=1).clip(min=1)
    nominal = 0.05 * (1 - len(planted) / BLOCKS)
    assert share_false.mean() <= nominal + 3 * np.sqrt(nominal * (1 - nominal) / MAPS)
    assert not planted or found[:, 0].mean() > 0.5


def test_uncorrected_p_would_not_control_it() -> None:
    p = map_p([0.0] * BLOCKS, 10, np.random.default_rng(3))
    assert (p <= 0.05).any(axis=1).mean() > 0.3
