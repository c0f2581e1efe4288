"""The evaluation of steering methods on the organisms: every method, concept and direction, planted blocks and others.

The organisms are evaluated at the same time, with one thread each. Writes the tables of docs/steering-benchmark.md.
"""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.evaluation.benchmark import asked_benchmark, run_benchmark
from benchmarks._result import write_result
from benchmarks._tables import DOCS, write_table
from benchmarks.steering import (
    LEARNING_RATE,
    ORGANISMS,
    POSITIVE,
    SAE_STEPS,
    TOP_K,
    TRACED,
    planted_blocks,
)
from dashboards.export import export_figure
from dashboards.notebook import OpenStudy, trace
from dashboards.numbers import fixed, span
from dashboards.tables.benchmark import DIRECTIONS, method_of, of_judge, ranking_frame
from workbench.engine.settings import GenerationSettings
from workbench.studies.study import Study

PAGE = "steering-benchmark.md"
PAIRS, SELECTION_PAIRS, FIT_PAIRS, RANDOMS = 6, 2, 12, 5
# Both judges tell clips of 3 s apart as well as those of 4 s; sliders of 300 iterations do no more on most prompts.
SETTINGS, ITERATIONS = GenerationSettings(duration=3.0), 150
JUDGES = ("embedded", "musicnn")
FIGURES: dict[str, dict[str, Any]] = {
    "method-ranking": {},
    "alignment-preservation": {"concept": "mood"},
    "leakage": {"direction": "towards"},
}
"""Figures of the docs, of the first organism, with their options."""
PLACES = {"localised": "planted", "others": "others"}


def prepared(organism: str, folder: Path) -> OpenStudy:
    """Trace an organism, and train an autoencoder for each block, from which methods take features."""
    study = trace(organism, out=folder, sites="*.cross_attn", n_prompts=TRACED, seeds=1, settings=SETTINGS)
    for block in range(study.model.n_blocks):
        study.train_sae(f"tf{block}.cross_attn", k=TOP_K, train_steps=SAE_STEPS)
    return study


def evaluated(organism: str, folder: Path) -> tuple[Path, dict[str, float]]:
    """Evaluate every method on every concept; return the file of the result, and the time with all preparations."""
    started = time.monotonic()
    study = prepared(organism, folder)
    planted = planted_blocks(study.folder)
    spec = asked_benchmark(
        study.folder,
        name=organism,
        concepts=[f"{concept}={value}" for concept, value in POSITIVE.items()],
        places=list(PLACES),
        sites=[f"{concept}=" + "+".join(f"tf{block}" for block in planted[concept]) for concept in POSITIVE],
        pairs=PAIRS,
        selection_pairs=SELECTION_PAIRS,
        fit_pairs=FIT_PAIRS,
        randoms=RANDOMS,
        scorers=list(JUDGES),
        iterations=ITERATIONS,
        learning_rate=LEARNING_RATE,
    )

    def progress(title: str) -> Callable[[int, int], None]:
        print(f"{time.monotonic() - started:6.0f} s  {organism}: {title}", flush=True)
        return silent

    run_benchmark(study.folder, study.model, spec, progress, print)
    return folder / "results" / f"{spec.result_name}.nc", {
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time(),
    }


def silent(_: int, __: int) -> None:
    """Report no progress within a part."""


def lines(organism: str, result: xr.Dataset, scorer: str) -> list[dict[str, str]]:
    """Return a line for each concept, direction and method: at the planted blocks, and what it does at all others."""
    table = ranking_frame(result, scorer)
    at = {place: table[table["way"].str.endswith(f"({place})")].copy() for place in PLACES}
    for part in at.values():
        part["method"] = part["way"].map(method_of)
    keys = ["concept", "direction", "method"]
    both = at["localised"].merge(at["others"], on=keys, suffixes=("", "_elsewhere"))
    leaks = largest_leaks(result, scorer)
    return [
        {
            "organism": organism,
            "concept": row.concept,
            "direction": row.direction,
            "method": row.method,
            "strength": "none" if np.isnan(row.strength) else f"{row.strength:g}",
            "change [95 %]": _with_interval(row, "effect"),
            "kept": "" if np.isnan(row.preservation) else fixed(row.preservation),
            "of the real prompt at equal distance [95 %]": _with_interval(row, "ratio_at"),
            "random vectors there": span(row.band_lo / row.control, row.band_hi / row.control),
            "rank [95 %]": ""
            if np.isnan(row.rank)
            else f"{row.rank:.1f} {span(row.rank_lo, row.rank_hi, 1)}",
            "largest leak": leaks.get((row.concept, row.direction, row.way), ""),
            "change at all other blocks [95 %]": _with_interval(row, "effect", "_elsewhere"),
        }
        for row in both.itertuples()
        if not row.status
    ]


def largest_leaks(result: xr.Dataset, scorer: str) -> dict[tuple[str, str, str], str]:
    """Return by concept, direction and way the other concept that changes most at equal distance, and by how much."""
    leakage = of_judge(result, scorer)["leakage"].to_series().dropna().reset_index()
    others = leakage[leakage["concept"] != leakage["judged"]]
    most = others.loc[
        others["leakage"].abs().groupby([others["concept"], others["sign"], others["way"]]).idxmax()
    ]
    return {
        (row.concept, DIRECTIONS[row.sign], row.way): f"{row.judged} {fixed(row.leakage)}"
        for row in most.itertuples()
    }


def distances(organism: str, result: xr.Dataset) -> list[dict[str, str]]:
    """Return a line for each concept and direction: the distance at which methods are compared, and what limits it."""
    return [
        {
            "organism": organism,
            "concept": concept,
            "direction": DIRECTIONS[sign],
            "common distance [95 %]": _with_interval(_Row(one), "common_distance"),
            "limited by": str(one["limited_by"].item()),
            "real prompt's distance": fixed(float(one["distance"].sel(arm="clean"))),
        }
        for concept in result["concept"].values
        for sign in result["sign"].values
        for one in [result.sel(concept=concept, sign=sign).isel(measure=0)]
    ]


def controls(organism: str, result: xr.Dataset) -> list[dict[str, str]]:
    """Return a line for each concept, direction and judge: whether it tells the real prompts apart."""
    return [
        {
            "organism": organism,
            "concept": concept,
            "direction": DIRECTIONS[sign],
            "judge": scorer,
            "real prompts' difference [95 %]": _with_interval(_Row(one), "control"),
            "pairs the right way": f"{fixed(float(one['control_share']))} of {int(one['control_n'])}",
            "": str(one["reason"].item()) or "interpretable",
        }
        for concept in result["concept"].values
        for sign in result["sign"].values
        for scorer in result["scorer"].values
        for one in [result.sel(concept=concept, sign=sign, scorer=scorer)]
    ]


def draw(folder: Path, organism: str) -> None:
    """Write the figures of an evaluation into the docs."""
    study = Study.open(folder)
    with TemporaryDirectory() as made:
        for figure, options in FIGURES.items():
            files = export_figure(study, figure, "svg", Path(made), name=organism, **options)
            (picture,) = (file for file in files if file.suffix == ".svg")
            shutil.copy(picture, DOCS / "images" / f"{organism}-{figure}.svg")


class _Row:
    """Numbers of a dataset as attributes, as those of a table's row."""

    def __init__(self, one: xr.Dataset) -> None:
        self._one = one

    def __getattr__(self, name: str) -> float:
        return float(self._one[name])


def _with_interval(row: object, name: str, suffix: str = "") -> str:
    value, low, high = (getattr(row, f"{name}{end}{suffix}") for end in ("", "_lo", "_hi"))
    return f"{fixed(value)} {span(low, high)}" if np.isfinite(value) else ""


def main(organisms: Sequence[str] = ORGANISMS) -> None:
    """Evaluate organisms, each in a process of its own, and write the results and the tables."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(organisms), mp_context=spawning) as pool:
            folders = [Path(folder) / name for name in organisms]
            done = list(pool.map(evaluated, organisms, folders))
        draw(folders[0], organisms[0])
        results = {name: xr.load_dataset(file) for name, (file, _) in zip(organisms, done, strict=True)}
    rows = {
        judge: [line for name, result in results.items() for line in lines(name, result, judge)]
        for judge in JUDGES
    }
    heard = [line for name, result in results.items() for line in controls(name, result)]
    apart = [line for name, result in results.items() for line in distances(name, result)]
    took = {name: times for name, (_, times) in zip(organisms, done, strict=True)}
    write_result("steering_benchmark", {"took": took, "controls": heard, "distances": apart, **rows})
    write_table(PAGE, "organisms-controls", pd.DataFrame(heard))
    write_table(PAGE, "organisms-distances", pd.DataFrame(apart))
    for judge, table in rows.items():
        write_table(PAGE, f"organisms-{judge}", pd.DataFrame(table))


if __name__ == "__main__":
    main(sys.argv[1:] or ORGANISMS)
