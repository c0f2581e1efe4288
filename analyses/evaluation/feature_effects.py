"""Causal effects of features: what the model does to every concept when a feature is turned off, or doubled.

A feature that tells a value apart (AUROC) need not cause it. The features with the highest AUROC of each concept value
are multiplied by each factor, each alone and several at once, at every token of the site and with the SAE's error kept,
in whole generations of prompts with that value. As many random features, changed in the same way on the same prompts,
are the null.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from analyses.evaluation.identity import settled
from analyses.evaluation.prompts import contexts_of_value, own_scores
from analyses.evaluation.spec import EffectsSpec
from analyses.execution import Executor
from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext
from analyses.patching.impact import RESOLUTION
from analyses.patching.sweep import Sweep
from analyses.sae.names import PREFIX, load_sae
from analyses.sae.replacements import by_step, written_site
from analyses.statistics import benjamini_hochberg, too_few_for_one, too_few_pairs
from analyses.steering.effects import CONFIDENCE, changes, effects
from cache.errors import UserError
from workbench.engine.edits import Edit, edit_features
from workbench.engine.edits.window import Window
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.sae.gate import GatedStep, gate_of
from workbench.scorers import load_scorer
from workbench.studies.study import Study
from workbench.validation import validated

_log = logging.getLogger(__name__)

KIND = "feature-effects"
SCHEMA_VERSION = 2
CORRECTION = "Benjamini-Hochberg over all features, sets of features and factors, by concept and scorer"
OF_ARM = ("effect", "effect_lo", "effect_hi", "p", "null_lo", "null_hi")
UNEDITED, COUNTERPART = "clean", "corrupt"

Progress = Callable[[int, int], None]


def asked_effects(study: Study, name: str, **options: Any) -> EffectsSpec:
    """Make the spec of a measurement of effects; `options` are fields of `EffectsSpec`.

    Raises:
        UserError: if an option is unknown or not allowed, or a concept is not one of the study.
    """
    spec = validated(EffectsSpec, {"name": name, **options}, "The effects of features cannot be measured")
    known = study.spec.prompts.concepts
    if unknown := [concept for concept in spec.concepts if concept not in known]:
        raise UserError(f"Unknown concept '{unknown[0]}'. Concepts of this prompt set: {', '.join(known)}.")
    if 1 in spec.factors:
        raise UserError("A factor of 1 leaves features as they are. Give others, such as 0 and 2.")
    return spec


def run_effects(
    study: Study,
    model: AudioDiffusionModel,
    spec: EffectsSpec,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Change the features of an SAE of the study, and save and return the result "feature-effects-NAME".

    Runs that the study already has are not repeated (schema of the result: `docs/reference/results.md`).

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        spec: what to change, and on what.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        note: called with each sentence on the limitations of the result, before anything runs.
        executor: runs the units of work, by default in this process.

    Raises:
        UserError: if there is no such SAE, no value has features with an AUROC, the gate closes every step, a scorer is
            unknown, or another process computes the same result.
    """
    started = time.monotonic()
    study.check_model(model.weights_hash)
    sae, trained = load_sae(study, spec.name), study.result(PREFIX + spec.name)
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    spec = settled(spec, sae, scorers, SCHEMA_VERSION)
    with study.making(spec.result_name):
        if study.is_done(spec.result_name, spec):
            return study.result(spec.result_name)
        concepts = spec.concepts or tuple(study.spec.prompts.concepts)
        chosen = chosen_features(trained, concepts, spec)
        arms = _arms(sae, trained, chosen, spec)
        contexts = {
            value: contexts_of_value(study, model, value, spec.pairs, spec.seed, spec.seeds)
            for value in chosen
        }
        for scorer in scorers.values():
            scorer.check_texts([text for pairs in contexts.values() for c in pairs for text in c.texts])
        sweep = Sweep(study, model, scorers, contexts, executor)
        for value, pairs in contexts.items():  # each value has arms of its own
            Sweep(study, model, scorers, {value: pairs}, executor).check(arms[value])
        tests = sum(arm.role == "cell" for of_value in arms.values() for arm in of_value)
        fewest = min(map(len, contexts.values()))
        sentences = [
            too_few_pairs(fewest) or too_few_for_one(fewest, tests, "features and factors"),
            study.replaced(spec.result_name, spec),
        ]
        for sentence in filter(None, sentences):
            note(sentence)
        total = sum(len(context.seeds) for pairs in contexts.values() for context in pairs)
        for done, _ in enumerate(sweep.run(arms, range(max(map(len, contexts.values())))), 1):
            if progress is not None:
                progress(done, total)
        result = _dataset(study, sweep, contexts, arms, chosen, spec, trained)
        return study.save_result(spec.result_name, result, spec, time.monotonic() - started)


class FeatureSet(NamedTuple):
    """Features that are changed at once: one, or several."""

    features: tuple[int, ...]
    is_random: bool = False

    def arm(self, factor: float) -> str:
        """Return the name of the arm that multiplies them by a factor."""
        return f"{self.row} × {factor:g}"

    @property
    def row(self) -> str:
        """What is changed, in words."""
        if len(self.features) == 1:
            return f"feature {self.features[0]}"
        return f"features {', '.join(map(str, self.features))}"


def chosen_features(
    trained: xr.Dataset, concepts: Sequence[str], spec: EffectsSpec
) -> dict[str, list[FeatureSet]]:
    """Return what is changed on prompts with each value: features with the highest AUROC, and random active ones.

    Each of `spec.features` features alone, then the `spec.together` best at once, or, with fewer than twice as many
    active features, half of these. As many random sets of either size are their null.

    Raises:
        UserError: if no value of these concepts has features with an AUROC.
    """
    found = {}
    alive = trained["feature"].values[trained["alive"].values].tolist()
    for value in trained["value"].values.tolist():
        known = trained["auroc"].sel(value=value).dropna("feature")
        if value.split("=", 1)[0] not in concepts or not known.size:
            continue
        best = known["feature"].values[np.argsort(-known.values, kind="stable")].tolist()
        draw = random.Random(f"{value}-{spec.seed}")
        together = min(spec.together, len(best) // 2)
        found[value] = _with_randoms([(each,) for each in best[: spec.features]], alive, spec.randoms, draw)
        if together > 1:
            found[value] += _with_randoms([tuple(best[:together])], alive, spec.randoms, draw)
    if not found:
        raise UserError(
            f"No value of {', '.join(concepts)} has features with an AUROC. Trace more prompts, and train again."
        )
    return found


def _with_randoms(
    chosen: Sequence[tuple[int, ...]], alive: Sequence[int], randoms: int, draw: random.Random
) -> list[FeatureSet]:
    """Return sets of one size, and up to this many random ones of the same size without any of their features."""
    others = sorted(set(alive) - {feature for features in chosen for feature in features})
    size = len(chosen[0])
    if size == 1:
        drawn: list[tuple[int, ...]] = [(each,) for each in draw.sample(others, min(randoms, len(others)))]
    else:
        drawn = [tuple(draw.sample(others, size)) for _ in range(randoms)]
    return [*map(FeatureSet, chosen), *(FeatureSet(each, is_random=True) for each in drawn)]


def _arms(
    sae: SAE, trained: xr.Dataset, chosen: Mapping[str, list[FeatureSet]], spec: EffectsSpec
) -> dict[str, list[Arm]]:
    """Return the arms of each value: its features and the random ones, at every factor."""
    gate = gate_of(sae)
    closed = {} if gate is None or spec.ignore_gate else {step: reason for step, _, reason in gate.closed}
    steps = [step for step in trained["step"].values.tolist() if step not in closed]
    if not steps:
        raise GatedStep(
            f"The autoencoder '{spec.name}' may not be used at any step: {next(iter(closed.values()))}, to begin with. "
            "Train a better one, or use it all the same (ignore_gate=True, --ignore-gate)."
        )
    site, window = written_site(sae, trained.attrs["site"]), Window(passes=(trained.attrs["pass"],))
    edits = by_step(edit_features(sae, 0, site, ignore_gate=True), steps, window)
    return {
        value: [
            Arm(
                name=each.arm(factor),
                row=each.row,
                column=f"{factor:g}",
                edits=tuple(_changed(edit, each.features, factor) for edit in edits),
                direction="necessity",
                role="null" if each.is_random else "cell",
                null_of=_first_of_size(sets, each).arm(factor) if each.is_random else "",
            )
            for each in sets
            for factor in spec.factors
        ]
        for value, sets in chosen.items()
    }


def _first_of_size(sets: Sequence[FeatureSet], like: FeatureSet) -> FeatureSet:
    return next(each for each in sets if len(each.features) == len(like.features))


def _changed(edit: Edit, features: tuple[int, ...], factor: float) -> Edit:
    changed: dict[str, Any] = {"features": features, "strength": factor - 1}
    return replace(edit, parameters=replace(edit.parameters, **changed))


def _dataset(
    study: Study,
    sweep: Sweep,
    contexts: Mapping[str, Sequence[PairContext]],
    arms: Mapping[str, Sequence[Arm]],
    chosen: Mapping[str, list[FeatureSet]],
    spec: EffectsSpec,
    trained: xr.Dataset,
) -> xr.Dataset:
    """Return the effects of every feature and set of features at every factor on every concept, labelled."""
    parts = []
    for value, sets in chosen.items():
        score = own_scores(sweep, study, contexts[value], arms[value], list(study.spec.prompts.concepts))
        resolution = RESOLUTION[study.model["dtype"]]
        change = changes(score, value.split("=", 1)[0], resolution, unsteered=UNEDITED)
        found = _of_value(effects(change), sets, spec.factors)
        found["unedited"] = score.sel(arm=UNEDITED).mean(("pair", "seed")).reset_coords(drop=True)
        parts.append(_labelled(found, value, sets, len(contexts[value]), trained))
    result = xr.concat(parts, "cell", data_vars="all").assign_coords(
        cell=range(sum(p.sizes["cell"] for p in parts))
    )
    result = result.transpose("cell", "factor", "concept", "scorer", ...)
    family = result["p"].where(result["role"] == "cell")
    result["p_adjusted"] = xr.apply_ufunc(
        benjamini_hochberg,
        family,
        input_core_dims=[("cell", "factor")],
        output_core_dims=[("cell", "factor")],
        vectorize=True,
    ).transpose("cell", "factor", "concept", "scorer")
    return result.assign_attrs(
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        sae=spec.name,
        site=str(trained.attrs["site"]),
        confidence=CONFIDENCE,
        correction=CORRECTION,
        denoiser_rows=sweep.rows,
    )


def _of_value(found: xr.Dataset, sets: Sequence[FeatureSet], factors: Sequence[float]) -> xr.Dataset:
    """Return the effects of a value's features by (cell, factor, concept, scorer), and those of the counterparts.

    The random sets of a size are a null of all of this size.
    """
    of_factors = [
        found[list(OF_ARM)]
        .sel(arm=[each.arm(factor) for each in sets])
        .reset_coords(drop=True)
        .assign_coords(arm=range(len(sets)))
        .rename(arm="cell")
        for factor in factors
    ]
    of_cells = xr.concat(of_factors, xr.DataArray(list(factors), dims="factor", name="factor"))
    of_cells = of_cells.transpose("cell", "factor", "concept", "scorer")
    first = [sets.index(_first_of_size(sets, each)) for each in sets]
    for name in ("null_lo", "null_hi"):
        of_cells[name] = of_cells[name].isel(cell=first).assign_coords(cell=of_cells["cell"])
    control = found.sel(arm=COUNTERPART).reset_coords(drop=True)
    for name, effect in (("control", "effect"), ("control_lo", "effect_lo"), ("control_hi", "effect_hi")):
        of_cells[name] = control[effect]
    return of_cells


def _labelled(
    found: xr.Dataset, value: str, sets: Sequence[FeatureSet], pairs: int, trained: xr.Dataset
) -> xr.Dataset:
    """Add what a value's cells are: the value, the features, the lowest of their AUROCs and their role."""
    areas = trained["auroc"].sel(value=value)
    return found.assign(
        {
            "value": ("cell", [value] * len(sets)),
            "features": ("cell", [", ".join(map(str, each.features)) for each in sets]),
            "size": ("cell", [len(each.features) for each in sets]),
            "auroc": ("cell", [float(areas.sel(feature=list(each.features)).min()) for each in sets]),
            "role": ("cell", ["null" if each.is_random else "cell" for each in sets]),
            "n_pairs": ("cell", [pairs] * len(sets)),
        }
    )
