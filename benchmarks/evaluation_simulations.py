"""Statistics of the steering benchmark on simulated trials: coverage, random bands, deaf judges, and selection.

Writes results/evaluation_simulations.json and the tables of docs/steering-benchmark.md. All scores are simulated.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from analyses.evaluation.null_bands import band
from analyses.evaluation.positive_control import positive_control
from analyses.evaluation.replicates import Replicates
from analyses.evaluation.slopes import CONVERGED, mixed_slope, ols_slope
from benchmarks._result import write_result
from benchmarks._tables import write_table

PAGE = "steering-benchmark.md"
DOSES = np.array([0.0, 1.0, 2.0, 3.0])
SLOPE = 0.3
NOISE = 0.3
RESAMPLES = 2000
REPETITIONS = 4000  # standard error of a share of .95: .3 points
FITS = 400  # mixed models are slow: 1.1 points
CHUNK = 500
SLOPE_PAIRS = (6, 8, 12, 16, 32)
MIXED_PAIRS = (6, 8, 16)
BAND_PAIRS = (6, 16)
BAND_SPREADS = (0.0, 0.1, 1.0)
BAND_REPETITIONS = 2000
CONTROL_PAIRS = (6, 8, 12, 16, 32, 64)
BAND_NULLS = (3, 5, 10, 20)
STRENGTHS_CHOSEN_FROM = 7
EFFECTS = {"50 %": 0.0, "65 %": 0.385, "75 %": 0.674, "86 %": 1.08, "98 %": 2.0}
"""A judge's mean difference in standard deviations, by the share of pairs that it gets right."""

Slopes = Callable[[np.random.Generator, int, int], np.ndarray]
"""Draws slopes (pair, cell) with mean `SLOPE`."""


def even(rng: np.random.Generator, pairs: int, cells: int) -> np.ndarray:
    """Normal slopes, ± .3 between pairs: a quarter of the pairs or so has a slope below .1."""
    return SLOPE + 0.3 * rng.normal(size=(pairs, cells))


def alike(rng: np.random.Generator, pairs: int, cells: int) -> np.ndarray:
    """The same slope in all pairs: the mixed model's variance of slopes is at its edge."""
    del rng
    return np.full((pairs, cells), SLOPE)


def skewed(rng: np.random.Generator, pairs: int, cells: int) -> np.ndarray:
    """Gamma slopes of shape 2: most pairs respond little, a few much."""
    return SLOPE * rng.gamma(2.0, 0.5, size=(pairs, cells))


DESIGNS: dict[str, Slopes] = {"even": even, "alike": alike, "skewed": skewed}


def scores(rng: np.random.Generator, slopes: np.ndarray, seeds: int) -> np.ndarray:
    """Scores (pair, seed, dose, cell): intercepts of pairs ± 1 and seeds ± .3, rows ± .3."""
    pairs, cells = slopes.shape
    of_pair = rng.normal(size=(pairs, 1, 1, cells))
    of_seed = 0.3 * rng.normal(size=(pairs, seeds, 1, cells))
    of_row = NOISE * rng.normal(size=(pairs, seeds, len(DOSES), cells))
    return of_pair + of_seed + slopes[:, None, None] * DOSES[:, None] + of_row


def coverage(
    design: Slopes,
    pairs: int,
    seeds: int,
    repetitions: int,
    resamples: int = RESAMPLES,
    student: bool = False,
) -> float:
    """Return how often the interval of the slope, the bootstrap's or Student's, contains the planted one."""
    covered = []
    for start in range(0, repetitions, CHUNK):
        rng = np.random.default_rng((1, start))
        score = scores(rng, design(rng, pairs, min(CHUNK, repetitions - start)), seeds)
        replicates = Replicates(pairs, resamples, seed=start)
        change = replicates.means(score - score[:, :, :1])
        by = replicates.student_interval if student else replicates.interval
        interval = by(ols_slope(DOSES, change), pairs)
        covered.append((interval.low <= SLOPE) & (interval.high >= SLOPE))
    return float(np.concatenate(covered).mean())


def mixed_coverage(design: Slopes, pairs: int, seeds: int, fits: int) -> dict[str, float]:
    """Return how often fits of the mixed model converge, and how often the intervals of these cover."""
    rng = np.random.default_rng(2)
    score = scores(rng, design(rng, pairs, fits), seeds)
    found = [mixed_slope(DOSES, score[..., fit]) for fit in range(fits)]
    converged = [fit for fit in found if fit.status == CONVERGED]
    return {
        "converged": len(converged) / fits,
        "mixed model, where converged": float(np.mean([fit.low <= SLOPE <= fit.high for fit in converged])),
    }


def band_level(pairs: int, nulls: int, repetitions: int, between: float = 0.1) -> float:
    """Return how often a random way of steering lies outside the band of other random ones.

    Random ways have slopes of their own, ± `between`, and in each pair a further ± .3; they share the unsteered run.
    """
    outside = []
    size = 100
    for start in range(0, repetitions, size):
        rng = np.random.default_rng((3, start))
        replicates = Replicates(pairs, resamples=1)
        unsteered = NOISE * rng.normal(size=(pairs, 1, size))
        slopes = []
        for _ in range(1 + nulls):
            own = between * rng.normal(size=size) + 0.3 * rng.normal(size=(pairs, size))
            steered = own[:, None] * DOSES[1:, None] + NOISE * rng.normal(size=(pairs, len(DOSES) - 1, size))
            change = np.concatenate([np.zeros((pairs, 1, size)), steered - unsteered], axis=1)
            slopes.append(ols_slope(DOSES, replicates.means(change[:, None])))
        low, high = band(np.stack([slope[0] for slope in slopes[1:]]))
        outside.append((slopes[0][0] < low) | (slopes[0][0] > high))
    return float(np.concatenate(outside).mean())


def found_interpretable(pairs: int, effect: float, repetitions: int, resamples: int = RESAMPLES) -> float:
    """Return how often a judge is called interpretable that hears a difference of `effect` standard deviations."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(pairs, 1, 2, repetitions)) / np.sqrt(2)
    values[:, :, 0] += effect
    score = xr.DataArray(
        values,
        {"arm": ["clean", "corrupt"], "scorer": np.arange(repetitions)},
        ("pair", "seed", "arm", "scorer"),
    )
    return float(positive_control(score, Replicates(pairs, resamples)).interpretable.mean())


def inflation(pairs: int, error: float, repetitions: int) -> dict[str, float]:
    """Return how much too high the score of the chosen strength is, by what chose it, in units of its spread.

    All strengths are equally good. A judge's own `error` of each strength is the same for all prompts; a prompt's score
    of a strength has a spread of 1.
    """
    rng = np.random.default_rng(5)
    shape = (repetitions, STRENGTHS_CHOSEN_FROM)

    def mean_score(of_judge: np.ndarray) -> np.ndarray:
        return of_judge + rng.normal(size=(pairs, *shape)).mean(axis=0)

    one, other = error * rng.normal(size=(2, *shape))
    reported = mean_score(one)
    choosing = {
        "same prompts, same judge": reported,
        "other prompts, same judge": mean_score(one),
        "same prompts, other judge": reported - one + other,  # what prompts do by chance, both judges hear
        "other prompts, other judge": mean_score(other),
    }
    rows = np.arange(repetitions)
    return {name: float(reported[rows, by.argmax(axis=1)].mean()) for name, by in choosing.items()}


def slopes_table() -> pd.DataFrame:
    """Coverage of Student's and the bootstrap's intervals of slopes."""
    return pd.DataFrame(
        {
            "interval": interval,
            "slopes": name,
            "seeds": seeds,
            **{
                f"{pairs} pairs": coverage(design, pairs, seeds, REPETITIONS, resamples, student)
                for pairs in SLOPE_PAIRS
            },
        }
        for interval, resamples, student in (("Student's", 1, True), ("bootstrap", RESAMPLES, False))
        for name, design in DESIGNS.items()
        for seeds in (1, 2)
    )


def mixed_table() -> pd.DataFrame:
    """Coverage of the mixed model's intervals, and how often it converges."""
    return pd.DataFrame(
        {"slopes": name, "seeds": seeds, "pairs": pairs, **mixed_coverage(design, pairs, seeds, FITS)}
        for name, design in DESIGNS.items()
        for seeds in (1, 2)
        for pairs in MIXED_PAIRS
    )


def bands_table() -> pd.DataFrame:
    """How often a random way lies outside the random band."""
    return pd.DataFrame(
        {
            "pairs": pairs,
            "slopes differ by": f"{between:g}",
            **{
                f"{nulls} null ways": band_level(pairs, nulls, BAND_REPETITIONS, between)
                for nulls in BAND_NULLS
            },
        }
        for pairs in BAND_PAIRS
        for between in BAND_SPREADS
    )


def controls_table() -> pd.DataFrame:
    """How often a judge is found interpretable, by what it hears."""
    return pd.DataFrame(
        {
            "pairs": pairs,
            **{
                f"right in {share}": found_interpretable(pairs, effect, REPETITIONS)
                for share, effect in EFFECTS.items()
            },
        }
        for pairs in CONTROL_PAIRS
    )


def selection_table() -> pd.DataFrame:
    """How much too high a chosen strength's score is."""
    return pd.DataFrame(
        {"pairs": pairs, "judge's error": error, **inflation(pairs, error, REPETITIONS)}
        for pairs in (8, 32)
        for error in (0.0, 0.3)
    )


def shown(value: object) -> str:
    """A share in percent, or another number, as text."""
    return str(value) if not isinstance(value, float) else "–" if np.isnan(value) else f"{100 * value:.1f}"


def main() -> None:
    """Run the simulations and write the result and the tables."""
    tables = {
        "slopes": slopes_table(),
        "mixed": mixed_table(),
        "bands": bands_table(),
        "controls": controls_table(),
        "selection": selection_table(),
    }
    for name, table in tables.items():
        text = table.map(
            lambda value: f"{round(value, 2) + 0.0:.2f}" if isinstance(value, float) else str(value)
        )
        write_table(PAGE, name, text if name == "selection" else table.map(shown))
    metrics = {name: table.to_dict("records") for name, table in tables.items()}
    print(write_result("evaluation_simulations", metrics, device="cpu").read_text())


if __name__ == "__main__":
    main()
