"""Evaluate localisation methods on planted circuits; `python -m benchmarks.ground_truth` makes the table in the docs.

Each method gives every cell of a map (blocks; heads; steps) a number. AUROC: how well the numbers separate planted
cells from others. Found and false: cells that the map calls significant (adjusted p at most .05, beyond the null band),
and those of them whose impact is at least the paper's threshold.
Coverage: how often the 95 % interval from 12 pairs contains the impact from many more runs.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.metrics import roc_auc_score

from analyses.patching.arms import Arm, ablation_arm, null_arms, patch_arm
from analyses.patching.attribution import attribute_arms
from analyses.patching.contexts import PairContext, listed_contexts
from analyses.patching.impact import fraction, impact
from analyses.patching.screening import velocity_screen
from analyses.patching.spec import Direction
from analyses.patching.sweep import run_arms
from analyses.statistics import cluster_bootstrap
from benchmarks._result import write_result
from benchmarks.organisms.circuits import CIRCUITS, SETTINGS, load
from benchmarks.organisms.circuits.planted import BLOCKS, CONCEPT, HEADS, Circuit, presence_pairs
from benchmarks.organisms.circuits.readout import Readout
from workbench.models.ace_step import AceStep15

PAIRS = 16
THRESHOLD = 0.1
"""Smallest impact at which the paper counts a block as functional (TADA, arXiv 2602.11910)."""
SCREENED_PAIRS = 4
SMALL, RUNS, RESAMPLES = 12, 6, 200
DOCS = Path(__file__).parents[1] / "docs" / "ground-truth.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
Cells = dict[str, dict[str, Any]]
"""The options of `patch_arm` for each cell of a map."""
DIRECTIONS: tuple[Direction, ...] = ("sufficiency", "necessity")


def contexts(n: int) -> list[PairContext]:
    """`n` pairs of a clean prompt with the concept and a corrupt one without it."""
    return listed_contexts(presence_pairs(n, seed=0), n)


def planted_maps(circuit: Circuit) -> dict[str, tuple[Cells, set[str]]]:
    """The maps that apply to a circuit: cells by name with their patch, and the names of the planted ones."""
    blocks: Cells = {f"tf{block}": {"sites": f"tf{block}.cross_attn"} for block in range(BLOCKS)}
    maps = {"blocks": (blocks, {f"tf{block}" for block in circuit.mediators})}
    if circuit.head_cells is not None:
        heads: Cells = {
            f"tf{block} head {head}": {
                "sites": f"tf{block}.cross_attn.heads",
                "target": "output",
                "heads": (head,),
            }
            for block, head in itertools.product(range(BLOCKS), range(HEADS))
        }
        maps["heads"] = (heads, {f"tf{block} head {head}" for block, head in circuit.head_cells})
    if circuit.step_cells is not None:
        steps: Cells = {
            f"tf{block} step {step}": {"sites": f"tf{block}.cross_attn", "steps": (step, step)}
            for block, step in itertools.product(range(BLOCKS), range(SETTINGS.num_steps))
        }
        maps["steps"] = (steps, {f"tf{block} step {step}" for block, step in circuit.step_cells})
    return maps


def exact_scores(
    model: AceStep15, readout: Readout, arms: Sequence[Arm], units: Sequence[tuple[PairContext, int]]
) -> tuple[xr.DataArray, int]:
    """Scores of the clean run, the corrupt run and the arms of every unit (pair and seed), and the rows computed."""
    values, rows = [], 0
    for context, seed in units:
        run = run_arms(model, context, seed, arms, SETTINGS)
        values.append(readout.score(run.latents).double().numpy())
        rows += run.rows
    array = np.array(values)[None, :, None, :, None]
    coords = {
        "concept": [CONCEPT],
        "pair": range(len(units)),
        "seed": [0],
        "arm": ["clean", "corrupt", *(arm.name for arm in arms)],
        "scorer": ["read-out"],
        "direction": ("arm", ["", "", *(arm.direction for arm in arms)]),
        "role": ("arm", ["run", "run", *(arm.role for arm in arms)]),
    }
    return xr.DataArray(array, coords=coords, dims=("concept", "pair", "seed", "arm", "scorer")), rows


def judge(values: pd.Series, planted: set[str], significant: pd.Series | None = None) -> dict[str, object]:
    """Score how well numbers by cell separate the planted cells from the others."""
    truth = np.array([cell in planted for cell in values.index])
    row: dict[str, object] = {"AUROC": roc_auc_score(truth, values)}
    if significant is not None:
        large = significant & (values >= THRESHOLD)
        row |= {
            "found": f"{int(large[truth].sum())} of {truth.sum()}",
            "false": int(large[~truth].sum()),
            "false, any size": int(significant[~truth].sum()),
        }
    return row


def exact_rows(
    model: AceStep15, readout: Readout, cells: Cells, planted: set[str], name: str
) -> list[dict[str, object]]:
    """Table rows of exact patching in both directions, and of ablations if the cells are blocks."""
    groups: dict[str, list[Arm]] = {
        direction: [patch_arm(cell, direction, direction=direction, **patch) for cell, patch in cells.items()]
        for direction in DIRECTIONS
    }
    if name == "blocks":
        for method in ("zero", "mean", "resample"):
            groups[f"{method} ablation"] = [
                ablation_arm(cell, method, patch["sites"], method) for cell, patch in cells.items()
            ]
    nulls = null_arms(groups["sufficiency"], ("unrelated",))
    arms = [arm for group in groups.values() for arm in group] + nulls
    units = [(context, seed) for seed, context in enumerate(contexts(PAIRS))]
    scores, rows = exact_scores(model, readout, arms, units)
    found = impact(scores).isel(concept=0, scorer=0)
    outside = (found.impact > found.null_hi) | (found.impact < found.null_lo)
    table, by_direction = [], {}
    for method, group in groups.items():
        names = [arm.name for arm in group]
        values = pd.Series(found.impact.sel(arm=names).values, index=list(cells))
        clear = (found.p_adjusted.sel(arm=names) <= 0.05) & outside.sel(arm=names)
        by_direction[method] = (values, pd.Series(clear.values, index=list(cells)))
        table.append({"method": method, **judge(values, planted, by_direction[method][1])})
    (sufficient, clear), (necessary, also) = (by_direction[direction] for direction in DIRECTIONS)
    together = pd.concat([sufficient, necessary], axis=1).max(axis=1)
    exact = {"method": "exact patching (both)", **judge(together, planted, clear | also)}
    exact["shape"] = shape(sufficient[sorted(planted)], necessary[sorted(planted)])
    exact["rows"] = rows / PAIRS
    return [exact, *table]


def shape(sufficient: pd.Series, necessary: pd.Series) -> str:
    """Describe the circuit by sufficiency and necessity of its planted cells."""
    kinds = {(bool(s > 0.5), bool(n > 0.5)) for s, n in zip(sufficient, necessary, strict=True)}
    names = {
        (True, True): "sufficient and necessary",
        (True, False): "redundant: sufficient, not necessary",
        (False, True): "complementary: necessary, not sufficient",
        (False, False): "neither alone",
    }
    return "; ".join(names[kind] for kind in sorted(kinds))


def screened_rows(model: AceStep15, cells: Cells, planted: set[str]) -> list[dict[str, object]]:
    """Table rows of the two screening methods."""
    arms = [patch_arm(cell, "sufficiency", **patch) for cell, patch in cells.items()]
    screens: dict[str, Callable] = {
        "velocity screen": velocity_screen,
        "attribution patching": attribute_arms,
    }
    table = []
    for method, screen in screens.items():
        found = [
            screen(model, context, seed, arms, SETTINGS)
            for seed, context in enumerate(contexts(SCREENED_PAIRS))
        ]
        values = pd.Series(np.mean([scores for scores, _ in found], axis=0), index=list(cells))
        rows = float(np.mean([rows for _, rows in found]))
        table.append({"method": method, **judge(values, planted), "rows": rows})
    return table


def coverage(model: AceStep15, readout: Readout, circuit: Circuit) -> float:
    """Fraction of intervals from `SMALL` runs that contain the impact of all runs, over blocks in both directions."""
    arms = [
        patch_arm(f"tf{block}", direction, f"tf{block}.cross_attn", direction)
        for direction in DIRECTIONS
        for block in sorted(circuit.mediators)
    ]
    pairs = contexts(28)
    units = [(context, 1000 * run + p) for run in range(RUNS) for p, context in enumerate(pairs)]
    scores = exact_scores(model, readout, arms, units)[0].values[0, :, 0, :, 0]
    clean, corrupt, arm = scores[:, :1], scores[:, 1:2], scores[:, 2:]
    forward = np.array([a.direction == "sufficiency" for a in arms])
    gain = np.where(forward, arm - corrupt, clean - arm)
    rest = np.where(forward, clean - arm, arm - corrupt)
    whole = fraction(gain.sum(axis=0), rest.sum(axis=0))
    draw = np.random.default_rng(0)
    held = []
    for _ in range(RESAMPLES):
        some = draw.choice(len(units), SMALL, replace=False)
        found = cluster_bootstrap((gain[some], rest[some]), fraction, resamples=1000)
        held.append((found.low <= whole) & (whole <= found.high))
    return float(np.mean(held))


def main() -> None:
    """Measure every method on every circuit, write results/ground_truth.json and the table in the docs."""
    rows: list[dict[str, object]] = []
    for name in CIRCUITS:
        model, circuit, readout = load(name)
        covered = coverage(model, readout, circuit)
        for question, (cells, planted) in planted_maps(circuit).items():
            found = exact_rows(model, readout, cells, planted, question) + screened_rows(
                model, cells, planted
            )
            found[0]["coverage"] = covered
            rows += [{"circuit": name, "map": question, **row} for row in found]
            print(pd.DataFrame(found).to_string())
    write_result("ground_truth", {"rows": rows, "pairs": PAIRS, "screened_pairs": SCREENED_PAIRS})
    write_table(pd.DataFrame(rows))


def write_table(table: pd.DataFrame) -> None:
    """Put the table between its markers in the docs."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    two, whole = "{:.2f}", "{:.0f}"
    columns = {"AUROC": two, "false": whole, "false, any size": whole, "rows": whole, "coverage": two}
    shown = table.copy()
    for column, form in columns.items():
        shown[column] = ["" if pd.isna(value) else form.format(value) for value in table[column]]
    shown = shown.fillna("").rename(
        columns={"rows": "rows a pair", "found": "planted cells found", "false": "false cells"}
    )
    header = [
        "circuit",
        "map",
        "method",
        "AUROC",
        "planted cells found",
        "false cells",
        "false, any size",
        "coverage",
        "rows a pair",
        "shape",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(row[column]) for column in header) + " |" for _, row in shown.iterrows()]
    DOCS.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
