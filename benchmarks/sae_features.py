"""Features of autoencoders against planted circuits: what tells each concept value apart, and what removing it does.

Autoencoders are trained at the blocks that decide a concept, and at an early one that decides none. Writes
results/sae_features.json and the tables of docs/sae-truth.md; with the name of an organism, measures that one only.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from analyses.evaluation.feature_effects import asked_effects, run_effects
from analyses.evaluation.sae import asked_evaluation, evaluate_sae
from analyses.sae.auroc import chance_aurocs, concept_aurocs
from analyses.sae.names import load_sae
from analyses.sae.rows import by_clip
from benchmarks._result import RESULTS, write_result
from benchmarks._tables import write_table
from dashboards.notebook import OpenStudy, trace
from dashboards.numbers import fixed, p_value, span

SITES = {
    "organism-split": ("tf2", "tf3", "tf4", "tf5"),
    "organism-shared": ("tf4",),
}
"""Planted blocks that autoencoders are trained at."""
EARLY = "tf0"
PART = "cross_attn"
OPTIONS: dict[str, Any] = {"k": 16, "input_scale": "step"}
"""Options of the autoencoders: those of the demonstration."""
FACTORS = (0.0, 2.0, -1.0)
FEATURES, TOGETHER, RANDOMS, PAIRS, KEPT_PAIRS = 1, 48, 2, 8, 6


def of_organism(name: str) -> dict[str, list[dict[str, Any]]]:
    """Train, evaluate and change features; return the lines of the three tables."""
    tables: dict[str, list[dict[str, Any]]] = {"features": [], "sites": [], "early": []}
    with TemporaryDirectory() as folder:
        sites = [f"{block}.{PART}" for block in (*SITES[name], EARLY)]
        study = trace(name, out=Path(folder) / name, sites=sites)
        card = study.folder.truth_card()
        assert card is not None
        for site in sites:
            result = study.train_sae(site, **OPTIONS).data
            if site.startswith(EARLY):
                tables["early"] += [{"organism": name, **line} for line in early_lines(study, site)]
                continue
            planted = [
                concept for concept, blocks in card["concepts"].items() if int(site[2]) in map(int, blocks)
            ]
            evaluated = evaluate_sae(
                study.folder, study.model, asked_evaluation(study.folder, site, pairs=KEPT_PAIRS)
            )
            options = {
                "features": FEATURES,
                "together": TOGETHER,
                "factors": FACTORS,
                "randoms": RANDOMS,
                "pairs": PAIRS,
                "concepts": planted,
            }
            effects = run_effects(study.folder, study.model, asked_effects(study.folder, site, **options))
            place = {"organism": name, "site": site}
            tables["features"] += [{**place, **line} for line in feature_lines(result, effects)]
            tables["sites"].append({**place, **site_line(evaluated, planted)})
    return tables


def feature_lines(trained: xr.Dataset, effects: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield a line for each value: what its best feature and its best features do, turned off and doubled."""
    one = effects.isel(scorer=0)
    is_changed = one["role"].values == "cell"
    for cell, several in np.split(one["cell"].values[is_changed], int(is_changed.sum()) // 2):
        of_cell = one.sel(cell=cell)
        value = str(of_cell["value"].item())
        concept = value.split("=", 1)[0]
        off, doubled, _ = (of_cell.sel(factor=factor) for factor in FACTORS)
        all_off, all_doubled, all_inverted = (one.sel(cell=several, factor=factor) for factor in FACTORS)
        own, own_of_all = off.sel(concept=concept), all_off.sel(concept=concept)
        others = [name for name in one["concept"].values if name != concept]
        yield {
            "value": value,
            "feature": int(of_cell["features"]),
            "AUROC": float(of_cell["auroc"]),
            "chance": float(trained["auroc_shuffled"].sel(value=value)),
            "unedited": float(own["unedited"]),
            "counterpart": float(own["control"]),
            "off": _effect(own),
            "p": float(own["p_adjusted"]),
            "null": _null(own),
            "doubled": float(doubled.sel(concept=concept)["effect"]),
            "all off": _effect(own_of_all),
            "p of all": float(own_of_all["p_adjusted"]),
            "null of all": _null(own_of_all),
            "all doubled": float(all_doubled.sel(concept=concept)["effect"]),
            "all inverted": _effect(all_inverted.sel(concept=concept)),
            "null of all inverted": _null(all_inverted.sel(concept=concept)),
            "others": {str(name): float(all_off["effect"].sel(concept=name)) for name in others},
        }


def _effect(own: xr.Dataset) -> list[float]:
    return [float(own[name]) for name in ("effect", "effect_lo", "effect_hi")]


def _null(own: xr.Dataset) -> list[float]:
    return [float(own["null_lo"]), float(own["null_hi"])]


def site_line(evaluated: xr.Dataset, planted: Sequence[str]) -> dict[str, Any]:
    """Return how good an autoencoder is, over all steps and at the worst one."""
    by_step = evaluated["step_explained_variance"]
    recovered = evaluated["loss_recovered"]
    kept = evaluated["score_kept"].isel(scorer=0).sel(concept=list(planted))
    return {
        "concepts": ", ".join(planted),
        "explained variance": float(evaluated["final_explained_variance"]),
        "at each step": by_step.values.tolist(),
        "L0": float(evaluated["final_l0"]),
        "dead": float(evaluated["final_dead_fraction"]),
        "recovered from mean": recovered.sel(ablation="mean").values.tolist(),
        "recovered from zero": recovered.sel(ablation="zero").values.tolist(),
        "kept": kept.sel(replacement="reconstruction").values.tolist(),
        "kept with the mean": kept.sel(replacement="mean").values.tolist(),
        "closed": evaluated["step"].values[evaluated["gated"].values].tolist(),
    }


def early_lines(study: OpenStudy, site: str) -> Iterator[dict[str, Any]]:
    """Yield the best feature of each value at the first step of a site, and its p, corrected for all features."""
    sae = load_sae(study.folder, site).at(study.folder.cache.plan.steps[0])
    rows = by_clip(study.folder.cache, site, "cond", study.clips["clip"].tolist())
    with torch.no_grad():
        means = np.stack([sae.encode(torch.from_numpy(acts[0])).mean(dim=0).numpy() for acts in rows])
    alive = means[:, means.any(axis=0)].astype(float)
    values, areas = concept_aurocs(alive, study.clips)
    chance = chance_aurocs(alive, study.clips)
    for place, value in enumerate(values):
        best = np.nanmax(areas[:, place], initial=0.5)
        p = float(np.nanmin(chance.corrected_p(areas)[:, place], initial=1.0))
        yield {
            "site": site,
            "value": value,
            "AUROC": float(best),
            "chance": float(chance.auroc[place]),
            "p": p,
        }


def write(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Write results/sae_features.json and the tables in the docs."""
    write_result(
        "sae_features",
        {**tables, "pairs": PAIRS, "kept_pairs": KEPT_PAIRS, "randoms": RANDOMS, "together": TOGETHER},
    )
    write_table("sae-truth.md", "features", pd.DataFrame(map(_feature_row, tables["features"])))
    write_table("sae-truth.md", "sites", pd.DataFrame(map(_site_row, tables["sites"])))
    write_table("sae-truth.md", "early", pd.DataFrame(map(_early_row, tables["early"])))


def _feature_row(line: dict[str, Any]) -> dict[str, str]:
    return {
        "organism": line["organism"],
        "site": line["site"],
        "value": line["value"],
        "feature": str(line["feature"]),
        "AUROC": fixed(line["AUROC"], 3),
        "chance": fixed(line["chance"]),
        "unedited": fixed(line["unedited"]),
        "other value": fixed(line["counterpart"]),
        "turned off [95 %]": _with_interval(line["off"]),
        "random feature": span(*line["null"]),
        "doubled": fixed(line["doubled"]),
        f"the {TOGETHER} best turned off [95 %]": _with_interval(line["all off"]),
        "p": p_value(line["p of all"]),
        f"{TOGETHER} random features": span(*line["null of all"]),
        f"the {TOGETHER} best doubled": fixed(line["all doubled"]),
        "inverted [95 %]": _with_interval(line["all inverted"]),
        "random, inverted": span(*line["null of all inverted"]),
        f"others, the {TOGETHER} best turned off": ", ".join(
            f"{name} {fixed(value)}" for name, value in line["others"].items()
        ),
    }


def _with_interval(numbers: Sequence[float]) -> str:
    effect, low, high = numbers
    return f"{fixed(effect)} {span(low, high)}"


def _site_row(line: dict[str, Any]) -> dict[str, str]:
    return {
        "organism": line["organism"],
        "site": line["site"],
        "explained variance": fixed(line["explained variance"], 3),
        "at each step": _listed(line["at each step"]),
        "L0": fixed(line["L0"], 1),
        "dead": fixed(line["dead"]),
        "loss recovered, from mean": _listed(line["recovered from mean"]),
        "from zero": _listed(line["recovered from zero"]),
        "scores kept": f"{line['concepts']}: {_listed(line['kept'])}",
        "with the mean": _listed(line["kept with the mean"]),
        "closed steps": ", ".join(map(str, line["closed"])) or "none",
    }


def _early_row(line: dict[str, Any]) -> dict[str, str]:
    numbers = {"AUROC": fixed(line["AUROC"]), "chance": fixed(line["chance"]), "p": p_value(line["p"])}
    return {"organism": line["organism"], "site": line["site"], "value": line["value"], **numbers}


def _listed(values: Sequence[float]) -> str:
    return " / ".join(map(fixed, values))


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(SITES)
    file = RESULTS / "sae_features.json"
    kept = json.loads(file.read_text())["metrics"] if file.exists() and sys.argv[1:] else {}
    found: dict[str, list[dict[str, Any]]] = {
        name: [line for line in kept.get(name, []) if line["organism"] not in wanted]
        for name in ("features", "sites", "early")
    }
    for organism in wanted:
        for name, lines in of_organism(organism).items():
            found[name] += lines
    write(found)
