"""Features of autoencoders against planted circuits: what tells each concept value apart, and what removing it does.

Autoencoders are trained at the blocks that decide a concept, and at an early one that decides none. Features are
changed at once at all blocks that decide a concept together. Writes results/sae_features.json and the tables of
docs/sae-truth.md; with the name of an organism, measures that one only.
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
from analyses.evaluation.prompts import contexts_of_value
from analyses.evaluation.sae import asked_evaluation, evaluate_sae
from analyses.sae.auroc import auroc, chance_aurocs, concept_aurocs
from analyses.sae.codes import CODES, read_codes
from analyses.sae.names import PREFIX, load_sae
from analyses.sae.rows import by_clip
from analyses.sae.spec import FOLDER
from benchmarks._result import RESULTS, write_result
from benchmarks._tables import write_table
from dashboards.notebook import OpenStudy, trace
from dashboards.numbers import fixed, p_value, span
from workbench.engine.runs import Clip
from workbench.scorers import load_scorer

BLOCKS = {
    "organism-split": (("tf2",), ("tf3",), ("tf4",), ("tf5",)),
    "organism-shared": (("tf3", "tf4"),),
}
"""Planted blocks that autoencoders are trained at; those that decide a concept together are in one group."""
EARLY = "tf0"
PART = "cross_attn"
OPTIONS: dict[str, Any] = {"k": 16, "input_scale": "step"}
"""Options of the autoencoders: those of the demonstration."""
OFF, INVERTED = 0.0, -1.0
FEATURES, TOGETHER, RANDOMS, KEPT_PAIRS, INVERTED_PAIRS = 1, 48, 1, 6, 8
PAIRS = {"instrument": 16, "tempo": 24, "mood": 24, "drums": 24}
"""Prompts of each value, by concept, of which features are turned off.

An instrument has 8 prompts, each with noise of two seeds. Without its concept, a clip gets another of 7 instruments,
but often the same of two other values. If a change takes the concept from a clip or leaves it, .4 of 24 clips are at
least 7 in 90 % of draws, .3 in 61 %, with a p of 2 / 2 ** 7 = .016.
"""


def of_organism(name: str) -> dict[str, list[dict[str, Any]]]:
    """Train, evaluate and change features; return the lines of the three tables."""
    tables: dict[str, list[dict[str, Any]]] = {"features": [], "sites": [], "early": []}
    with TemporaryDirectory() as folder:
        groups = [[f"{block}.{PART}" for block in blocks] for blocks in BLOCKS[name]]
        early = f"{EARLY}.{PART}"
        study = trace(
            name, out=Path(folder) / name, sites=[*(site for group in groups for site in group), early]
        )
        study.train_sae(early, **OPTIONS)
        tables["early"] += [{"organism": name, **line} for line in early_lines(study, early)]
        for group in groups:
            planted = planted_concepts(study, group)
            for site in group:
                study.train_sae(site, **OPTIONS)
                asked = asked_evaluation(study.folder, site, pairs=KEPT_PAIRS)
                line = site_line(evaluate_sae(study.folder, study.model, asked), planted)
                tables["sites"].append({"organism": name, "site": site, **line})
            place = {"organism": name, "site": " + ".join(group)}
            for concept in planted:  # each is a family of tests of its own
                off = effects_of(study, group, concept, OFF, PAIRS[concept], RANDOMS)
                inverted = effects_of(study, group, concept, INVERTED, INVERTED_PAIRS, 0)
                tables["features"] += [{**place, **line} for line in feature_lines(study, off, inverted)]
    return tables


def effects_of(
    study: OpenStudy, names: Sequence[str], concept: str, factor: float, pairs: int, randoms: int
) -> xr.Dataset:
    """Return what the best feature and the best features of each value of a concept do, by the embedded judge."""
    options = {"features": FEATURES, "together": TOGETHER, "factors": [factor]}
    spec = asked_effects(study.folder, names, concepts=[concept], pairs=pairs, randoms=randoms, **options)
    return run_effects(study.folder, study.model, spec).isel(scorer=0, factor=0)


def planted_concepts(study: OpenStudy, sites: Sequence[str]) -> list[str]:
    """Return the concepts that are decided at these sites."""
    card = study.folder.truth_card()
    assert card is not None
    blocks = {int(site[2]) for site in sites}
    return [concept for concept, planted in card["concepts"].items() if set(map(int, planted)) <= blocks]


def feature_lines(study: OpenStudy, off: xr.Dataset, inverted: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield a line for each value: what its best feature and its best features do, turned off and inverted."""
    trained = [study.result(PREFIX + name).data for name in off["sae"].values]
    held_out = [held_out_aurocs(study, name) for name in off["sae"].values]
    for value in dict.fromkeys(off["value"].values.tolist()):
        concept = value.split("=", 1)[0]
        one, several = (
            off.isel(cell=place)
            for place in np.flatnonzero((off["value"] == value) & (off["role"] == "cell"))
        )
        of_inverted = inverted.isel(cell=np.flatnonzero(inverted["value"] == value)[-1])
        own, own_of_all, own_inverted = (each.sel(concept=concept) for each in (one, several, of_inverted))
        others = [name for name in off["concept"].values if name != concept]
        yield {
            "value": value,
            "pairs": int(one["n_pairs"]),
            "feature": one["features"].values.tolist(),
            "AUROC": one["auroc"].values.tolist(),
            "held out": [of_sae[value] for of_sae in held_out],
            "chance": [float(result["auroc_shuffled"].sel(value=value)) for result in trained],
            "unedited": float(own["unedited"]),
            "counterpart": float(own["control"]),
            "not named": not_named(study, value) - float(own["unedited"]),
            "off": _effect(own),
            "p": float(own["p_adjusted"]),
            "null": _null(own),
            "all off": _effect(own_of_all),
            "p of all": float(own_of_all["p_adjusted"]),
            "null of all": _null(own_of_all),
            "all inverted": _effect(own_inverted),
            "p inverted": float(own_inverted["p_adjusted"]),
            "others, one": {str(name): float(one["effect"].sel(concept=name)) for name in others},
            "others": {str(name): float(several["effect"].sel(concept=name)) for name in others},
        }


def held_out_aurocs(study: OpenStudy, name: str) -> dict[str, float]:
    """Return, of the feature that tells each value apart best in training clips, the AUROC in held-out clips."""
    clips, trained = study.clips.reset_index(drop=True), study.result(PREFIX + name).data
    folder = Path(FOLDER, name, CODES)
    codes = [read_codes(study.folder.path, folder, int(clip))[0] for clip in clips["clip"]]
    means = np.stack([np.bincount(of.feature, of.value, trained.sizes["feature"]) for of in codes])
    is_held_out = clips["clip"].isin(np.atleast_1d(trained.attrs["held_out_clips"])).to_numpy()
    found = {}
    for value in trained["value"].values.tolist():
        concept, _, label = value.partition("=")
        has = (clips[f"label_{concept}"] == label).to_numpy()
        training = means[~is_held_out]
        difference = training[has[~is_held_out]].mean(axis=0) - training[~has[~is_held_out]].mean(axis=0)
        best = np.lexsort((difference, auroc(training, has[~is_held_out])))[-1]
        found[value] = float(auroc(means[is_held_out][:, [best]], has[is_held_out])[0])
    return found


def not_named(study: OpenStudy, value: str) -> float:
    """Return the mean score of a value in clips of the same prompts and noise, which do not name its concept."""
    prompts, model, settings = study.folder.spec.prompts, study.model, study.folder.spec.settings
    concept, _, name = value.partition("=")
    chosen = prompts.concepts[concept][name]
    contexts = contexts_of_value(study.folder, model, value, PAIRS[concept], 0, 1)
    clips = [Clip(each.pair.clean.text.replace(chosen.phrase, ""), each.seeds[0]) for each in contexts]
    audio = model.decode(model.generate_batch(clips, settings).latents, settings.duration)
    scores = load_scorer("embedded").score(audio.float().numpy(force=True), model.sample_rate, [chosen.text])
    return float(scores.mean())


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
        {**tables, "kept_pairs": KEPT_PAIRS, "randoms": RANDOMS, "together": TOGETHER},
    )
    write_table("sae-truth.md", "features", pd.DataFrame(map(_feature_row, tables["features"])))
    write_table("sae-truth.md", "sites", pd.DataFrame(map(_site_row, tables["sites"])))
    write_table("sae-truth.md", "early", pd.DataFrame(map(_early_row, tables["early"])))


def _feature_row(line: dict[str, Any]) -> dict[str, str]:
    return {
        "organism": line["organism"],
        "site": line["site"],
        "value": line["value"],
        "feature": " / ".join(line["feature"]),
        "AUROC": _listed(line["AUROC"]),
        "held out": _listed(line["held out"]),
        "chance": _listed(line["chance"]),
        "prompts": str(line["pairs"]),
        "unedited": fixed(line["unedited"]),
        "other value": fixed(line["counterpart"]),
        "not named": fixed(line["not named"]),
        "turned off [95 %]": _with_interval(line["off"]),
        "p, one": p_value(line["p"]),
        "random feature": span(*line["null"]),
        "others, one": _of_others(line["others, one"]),
        f"the {TOGETHER} best turned off [95 %]": _with_interval(line["all off"]),
        "p": p_value(line["p of all"]),
        f"{TOGETHER} random features": span(*line["null of all"]),
        "others": _of_others(line["others"]),
        "inverted [95 %]": _with_interval(line["all inverted"]),
        "p, inverted": p_value(line["p inverted"]),
    }


def _of_others(changes: dict[str, float]) -> str:
    return ", ".join(f"{name} {fixed(value)}" for name, value in changes.items())


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
    wanted = sys.argv[1:] or list(BLOCKS)
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
