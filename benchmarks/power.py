"""Statistics of patching maps: coverage of intervals, power by number of pairs, and the cost of early stopping.

Writes results/power.json, and the tables and the figure of docs/statistics.md. All scores are simulated.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from analyses.patching.impact import fraction, impact
from analyses.statistics import cluster_bootstrap, separated, sign_flip_p
from benchmarks._result import write_result

DOCS = Path(__file__).parents[1] / "docs"
SEEDS = 2
BLOCKS = 24
LEVEL = 0.05
IMPACTS = (0.05, 0.1, 0.2, 0.5)
COVERAGE_PAIRS = (4, 6, 8, 12, 16, 32, 50)
COVERAGE_IMPACTS = (0.05, 0.2, 0.5)
POWER_PAIRS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
LOOKS = (8, 16, 32)
REPLICATIONS = 4000
MAPS = 500
FLIPS = 4095  # enough for 24 cells: 2 / 4096 is below 0.05 / 24

Scores = tuple[np.ndarray, np.ndarray, np.ndarray]  # clean, corrupt, arm: (pair, seed, cell)
Design = Callable[[np.random.Generator, int, float, int], Scores]


def even(rng: np.random.Generator, pairs: int, impact: float, cells: int) -> Scores:
    """Normal scores: clean − corrupt is 1 ± 0.4 by pair, the arm's effect ± 0.2 by pair, every row ± 0.3."""
    of_pair, of_row = (pairs, 1, cells), (pairs, SEEDS, cells)
    corrupt, delta, effect = rng.normal(size=(3, *of_pair))
    delta = 1 + 0.4 * delta
    noise = 0.3 * rng.normal(size=(3, *of_row))
    return corrupt + delta + noise[0], corrupt + noise[1], corrupt + impact * delta + 0.2 * effect + noise[2]


def bounded(
    rng: np.random.Generator, pairs: int, impact: float, cells: int, concentration: float = 20.0
) -> Scores:
    """Probabilities, near 1 for clean and 0 for corrupt; pairs' impacts are beta-distributed around the planted one."""
    clean, corrupt = rng.beta([[[9]], [[1]]], [[[1]], [[9]]], size=(2, pairs, cells))[:, :, None]
    own = (
        rng.beta(concentration * impact, concentration * (1 - impact), size=(pairs, 1, cells))
        if impact
        else 0
    )

    def rows(mean: np.ndarray) -> np.ndarray:
        return rng.beta(20 * mean + 0.05, 20 * (1 - mean) + 0.05, size=(pairs, SEEDS, cells))

    return rows(clean), rows(corrupt), rows(own * clean + (1 - own) * corrupt)


def bimodal(rng: np.random.Generator, pairs: int, impact: float, cells: int) -> Scores:
    """Like `bounded`, but the arm does nearly everything or nearly nothing in each pair."""
    return bounded(rng, pairs, impact, cells, concentration=2.0)


DESIGNS: dict[str, Design] = {"even": even, "bounded": bounded, "bimodal": bimodal}


def pair_totals(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the arm's score minus the corrupt run's, and the clean run's minus the arm's, over seeds: (pair, cell)."""
    clean, corrupt, arm = scores
    return (arm - corrupt).sum(axis=1), (clean - arm).sum(axis=1)


def coverage(design: Design, pairs: int, impact: float, cells: int, seed: int = 0) -> float:
    """Return the fraction of `cells` independent repetitions whose 95 % interval contains the planted impact."""
    totals = pair_totals(design(np.random.default_rng(seed), pairs, impact, cells))
    boot = cluster_bootstrap(totals, fraction)
    return float(np.mean((boot.low <= impact) & (impact <= boot.high)))


def p_values(
    design: Design, pairs: int, impact: float, cells: int, rng: np.random.Generator, chunk: int = 2000
) -> np.ndarray:
    """p-values of `cells` independent repetitions, `chunk` of them at a time."""
    sizes = [min(chunk, cells - start) for start in range(0, cells, chunk)]
    changes = (pair_totals(design(rng, pairs, impact, size))[0] / SEEDS for size in sizes)
    return np.concatenate([sign_flip_p(change, FLIPS) for change in changes])


def power(design: Design, pairs: int, maps: int = MAPS, seed: int = 0) -> dict[float, float]:
    """Return, by impact, the fraction of 24-block maps that find the planted block at a FDR of 5 %."""
    rng = np.random.default_rng(seed)
    others = p_values(design, pairs, 0.0, maps * (BLOCKS - 1), rng).reshape(maps, -1)
    found = {}
    for planted in IMPACTS:
        p = np.column_stack([p_values(design, pairs, planted, maps, rng), others])
        found[planted] = float(np.mean(stats.false_discovery_control(p, axis=1)[:, 0] <= LEVEL))
    return found


def stopping(design: Design, impacts: Sequence[float], maps: int = 400, seed: int = 0) -> dict[str, float]:
    """Simulate maps of `impacts` that stop at the first look that separates the highest block from the others.

    Returns:
        The fraction of maps that stopped before the last look, the mean number of pairs, and how often the interval
        of the block that was highest at the stop contained that block's true impact.
    """
    rng = np.random.default_rng(seed)
    totals = [pair_totals(design(rng, LOOKS[-1], planted, maps)) for planted in impacts]
    gain, rest = (np.concatenate(parts, axis=1) for parts in zip(*totals, strict=True))
    used, covered = np.zeros(maps), np.zeros(maps, dtype=bool)
    for pairs in LOOKS:
        boot = cluster_bootstrap((gain[:pairs], rest[:pairs]), fraction, resamples=2000)
        value, low, high = (ends.reshape(len(impacts), maps).T for ends in boot[:3])
        for i in np.flatnonzero(used == 0):
            if separated(value[i], low[i], high[i], 1) or pairs == LOOKS[-1]:
                top = int(value[i].argmax())
                used[i], covered[i] = pairs, low[i, top] <= impacts[top] <= high[i, top]
    return {
        "stopped_early": float(np.mean(used < LOOKS[-1])),
        "mean_pairs": float(used.mean()),
        "coverage_of_highest": float(covered.mean()),
    }


def seconds_of_a_map(pairs: int = 16, arms: int = 64, concepts: int = 4, scorers: int = 2) -> float:
    """Seconds of `impact` on a whole map: `arms` cells and 8 nulls, by concepts and scorers."""
    roles = ["run"] * 2 + ["cell"] * arms + ["null"] * 8
    names = ["clean", "corrupt", *(f"arm{i}" for i in range(arms + 8))]
    values = np.random.default_rng(0).normal(size=(concepts, pairs, SEEDS, len(names), scorers))
    values[..., 0, :] += 3
    score = xr.DataArray(
        values,
        dims=("concept", "pair", "seed", "arm", "scorer"),
        coords={
            "arm": names,
            "role": ("arm", roles),
            "direction": ("arm", ["" if role == "run" else "sufficiency" for role in roles]),
        },
    )
    started = time.perf_counter()
    impact(score)
    return time.perf_counter() - started


def draw(found: dict[str, dict[int, dict[float, float]]], file: Path) -> None:
    """Draw the power curves as an SVG, one panel per design."""
    matplotlib.rcParams["svg.hashsalt"] = "power"
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    for panel, (name, by_pairs) in zip(panels, found.items(), strict=True):
        for planted in IMPACTS:
            panel.plot(
                list(by_pairs), [row[planted] for row in by_pairs.values()], marker="o", label=f"{planted:g}"
            )
        panel.set(title=name, xlabel="pairs", xscale="log", xticks=POWER_PAIRS, ylim=(-0.03, 1.03))
        panel.set_xticks(POWER_PAIRS, labels=[str(pairs) for pairs in POWER_PAIRS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("fraction of maps in which it is found")
    panels[-1].legend(title="impact", frameon=False)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, metadata={"Date": None, "Creator": None})


def table(rows: dict[tuple[str, float], dict[int, float]]) -> str:
    """A Markdown table in percent: designs and impacts down, pairs across."""
    pairs = list(next(iter(rows.values())))
    lines = [["scores", "impact", *(f"{n} pairs" for n in pairs)], ["---"] * (len(pairs) + 2)]
    lines += [
        [name, f"{planted:g}", *(f"{100 * row[n]:.0f}" for n in pairs)]
        for (name, planted), row in rows.items()
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_table(page: Path, name: str, text: str) -> None:
    """Replace the text between a page's comments `name` and `end of name`."""
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {name} -->")
    _, after = rest.split(f"<!-- end of {name} -->")
    page.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end of {name} -->{after}", encoding="utf-8")


def main() -> None:
    """Run the simulations and write the result, the tables and the figure."""
    covered = {
        (name, planted): {n: coverage(design, n, planted, REPLICATIONS) for n in COVERAGE_PAIRS}
        for name, design in DESIGNS.items()
        for planted in COVERAGE_IMPACTS
    }
    found = {name: {n: power(design, n) for n in POWER_PAIRS} for name, design in DESIGNS.items()}
    by_impact = {
        (name, planted): {n: row[planted] for n, row in by_pairs.items()}
        for name, by_pairs in found.items()
        for planted in IMPACTS
    }
    stopped = {
        name: {
            "one block of 0.5": stopping(design, [0.5] + [0.0] * (BLOCKS - 1)),
            "two blocks of 0.5 and 0.3": stopping(design, [0.5, 0.3] + [0.0] * (BLOCKS - 2)),
            "no block": stopping(design, [0.0] * BLOCKS),
        }
        for name, design in DESIGNS.items()
    }
    metrics = {
        "coverage": {f"{name} {planted:g}": row for (name, planted), row in covered.items()},
        "coverage_replications": REPLICATIONS,
        "power": {f"{name} {planted:g}": row for (name, planted), row in by_impact.items()},
        "power_maps": MAPS,
        "stopping": stopped,
        "impact_of_64_arms_4_concepts_2_scorers_16_pairs_s": seconds_of_a_map(),
    }
    replace_table(DOCS / "statistics.md", "coverage", table(covered))
    replace_table(DOCS / "statistics.md", "power", table(by_impact))
    draw(found, DOCS / "images" / "power.svg")
    print(write_result("power", metrics).read_text())


if __name__ == "__main__":
    main()
