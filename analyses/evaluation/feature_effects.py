"""Causal effects of features: what the model does to every concept when a feature is turned off, or doubled.

A feature that tells a value apart (AUROC) need not cause it. The features with the highest AUROC of each concept value
are multiplied by each factor, each alone and several at once, at every token of the site and with the SAE's error kept,
in whole generations of prompts with that value. As many random features, changed in the same way on the same prompts,
are the null. Where several sites decide a concept together, features of an SAE of each are changed at once.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import xarray as xr

from analyses.evaluation.feature_sets import FeatureSet, chosen_features, numbers
from analyses.evaluation.identity import settled
from analyses.evaluation.prompts import contexts_of_value, own_scores
from analyses.evaluation.spec import EffectsSpec
from analyses.execution import Executor
from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext
from analyses.patching.impact import RESOLUTION
from analyses.patching.sweep import Sweep
from analyses.sae.names import PREFIX, check_has, load_sae
from analyses.sae.replacements import by_step, written_site
from analyses.statistics import benjamini_hochberg, too_few_for_one, too_few_pairs
from analyses.steering.effects import CONFIDENCE, changes, effects
from cache.errors import UserError
from workbench.engine.edits import Edit, edit_features
from workbench.engine.edits.window import Window
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.sae.gate import GatedStep, gate_of
from workbench.sae.identity import weights_hash
from workbench.scorers import check_heard, load_scorer
from workbench.studies.feature_notes import left_out_of_sets, read_predecessors, read_set, set_names
from workbench.studies.study import Study
from workbench.validation import validated

_log = logging.getLogger(__name__)

KIND = "feature-effects"
SCHEMA_VERSION = 4
CORRECTION = "Benjamini-Hochberg over all features, sets of features and factors, by concept and scorer"
OF_ARM = ("effect", "effect_lo", "effect_hi", "p", "null_lo", "null_hi")
UNEDITED, COUNTERPART = "clean", "corrupt"

Progress = Callable[[int, int], None]


class Used(NamedTuple):
    """An SAE whose features are changed, and its result."""

    name: str
    sae: SAE
    trained: xr.Dataset

    @property
    def site(self) -> str:
        """The site that the SAE reconstructs, where its features are changed."""
        return written_site(self.sae, self.trained.attrs["site"])


def asked_effects(study: Study, names: str | Sequence[str], **options: Any) -> EffectsSpec:
    """Make the spec of a measurement of effects of one SAE or several; `options` are fields of `EffectsSpec`.

    Raises:
        UserError: if an option is unknown or not allowed, or the study lacks an autoencoder, a concept or a set, or a
            set has not as many features of each autoencoder.
    """
    spec = validated(EffectsSpec, {"names": names, **options}, "The effects of features cannot be measured")
    for name in spec.names:
        check_has(study, name)
    known = study.spec.prompts.concepts
    if unknown := [concept for concept in spec.concepts if concept not in known]:
        raise UserError(f"Unknown concept '{unknown[0]}'. Concepts of this prompt set: {', '.join(known)}.")
    if 1 in spec.factors:
        raise UserError("A factor of 1 leaves features as they are. Give others, such as 0 and 2.")
    return spec.model_copy(
        update={"members": {each: _members(study, each, spec.names) for each in spec.sets}}
    )


def _members(study: Study, name: str, saes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the features of a set of the study's notes, of each SAE; raise UserError unless it can be changed."""
    found = [read_set(study.path, name, sae) for sae in saes]
    if not all(found):
        lacking = next(sae for sae, features in zip(saes, found, strict=True) if not features)
        if name in read_predecessors(study.path, lacking).sets:
            raise UserError(
                f"The set '{name}' was made of an autoencoder '{lacking}' with other weights than {study.path} has "
                "now, whose features are others. Make the set again on the dashboard's page of features."
            )
        known = ", ".join(set_names(study.path)) or "none yet"
        raise UserError(
            f"{study.path} has no set '{name}' with features of '{lacking}' (its sets: {known}). Add features to it on "
            "the dashboard's page of features."
        )
    if len(set(map(len, found))) > 1:
        sizes = ", ".join(f"{len(features)} of '{sae}'" for sae, features in zip(saes, found, strict=True))
        raise UserError(
            f"The set '{name}' has {sizes}: as many features of each autoencoder are changed at once. Even it out, or "
            "measure one autoencoder alone."
        )
    for sae, features in zip(saes, found, strict=True):
        width = int(study.result_attributes(PREFIX + sae)["d_sae"])
        if features[-1] >= width:
            raise UserError(
                f"The set '{name}' has feature {features[-1]} of '{sae}', which has only features 0 to {width - 1}. "
                "Remove it from the set."
            )
    return tuple(map(tuple, found))


def run_effects(
    study: Study,
    model: AudioDiffusionModel,
    spec: EffectsSpec,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Change features of SAEs of the study, and save and return the result "feature-effects-NAME".

    Of several SAEs, features are changed at all sites at once, and NAME is their names with "+" between. Runs that the
    study already has are not repeated (schema of the result: `docs/reference/results.md`).

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        spec: what to change, and on what.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        note: called with each sentence on the limitations of the result, before anything runs.
        executor: runs the units of work, by default in this process.

    Raises:
        UserError: if there is no such SAE, two are of the same site and pass, no value has features with an AUROC, the
            gate closes every step, a scorer is unknown, or another process computes the same result.
    """
    started = time.monotonic()
    study.check_model(model.weights_hash)
    saes = [Used(name, load_sae(study, name), study.result(PREFIX + name)) for name in spec.names]
    _check_places(saes)
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    spec = settled(spec, {each.name: weights_hash(each.sae) for each in saes}, scorers, SCHEMA_VERSION)
    with study.making(spec.result_name):
        if (earlier := study.done_result(spec.result_name, spec)) is not None:
            return earlier
        concepts = spec.concepts or tuple(study.spec.prompts.concepts)
        chosen = chosen_features([each.trained for each in saes], concepts, spec)
        arms = _arms(saes, chosen, spec)
        contexts = {
            value: contexts_of_value(study, model, value, spec.pairs, spec.seed, spec.seeds)
            for value in chosen
        }
        unheard = check_heard(
            scorers.values(), [text for pairs in contexts.values() for c in pairs for text in c.texts]
        )
        sweep = Sweep(study, model, scorers, contexts, executor)
        for value, pairs in contexts.items():  # each value has arms of its own
            Sweep(study, model, scorers, {value: pairs}, executor).check(arms[value])
        tests = sum(arm.role == "cell" for of_value in arms.values() for arm in of_value)
        fewest = min(map(len, contexts.values()))
        sentences = [
            *unheard,
            *(each for name in spec.names for each in left_out_of_sets(study.path, name, spec.sets)),
            too_few_pairs(fewest) or too_few_for_one(fewest, tests, "features and factors"),
            study.replaced(spec.result_name, spec),
        ]
        for sentence in filter(None, sentences):
            note(sentence)
        total = sum(len(context.seeds) for pairs in contexts.values() for context in pairs)
        for done, _ in enumerate(sweep.run(arms, range(max(map(len, contexts.values())))), 1):
            if progress is not None:
                progress(done, total)
        result = _dataset(study, sweep, contexts, arms, chosen, spec, saes)
        return study.save_result(spec.result_name, result, spec, time.monotonic() - started)


def _check_places(saes: Sequence[Used]) -> None:
    """Raise UserError for two SAEs of the same site and pass, of which the second would see the first one's changes."""
    taken: dict[tuple[str, str], str] = {}
    for name, sae, trained in saes:
        place = written_site(sae, trained.attrs["site"]), trained.attrs["pass"]
        if place in taken:
            raise UserError(
                f"The autoencoders '{taken[place]}' and '{name}' are both of {place[0]} ({place[1]} pass). Give one of "
                "each site and pass, or measure their effects one by one."
            )
        taken[place] = name


def _arms(
    saes: Sequence[Used], chosen: Mapping[str, list[FeatureSet]], spec: EffectsSpec
) -> dict[str, list[Arm]]:
    """Return the arms of each value: its features and the random ones, at every factor."""
    edits = [_edits(each, ignore_gate=spec.ignore_gate) for each in saes]
    return {
        value: [
            Arm(
                name=each.arm(factor),
                row=each.row,
                column=f"{factor:g}",
                edits=tuple(
                    _changed(edit, features, factor)
                    for of_sae, features in zip(edits, each.features, strict=True)
                    for edit in of_sae
                ),
                direction="necessity",
                role="null" if each.is_random else "cell",
                null_of=_first_of_size(sets, each).arm(factor) if each.is_random else "",
            )
            for each in sets
            for factor in spec.factors
        ]
        for value, sets in chosen.items()
    }


def _edits(used: Used, *, ignore_gate: bool) -> tuple[Edit, ...]:
    """Return an edit of features of an SAE at each recorded step that its gate leaves open.

    Raises:
        GatedStep: if it closes every step.
    """
    gate = gate_of(used.sae)
    closed = {} if gate is None or ignore_gate else {step: reason for step, _, reason in gate.closed}
    steps = [step for step in used.trained["step"].values.tolist() if step not in closed]
    if not steps:
        raise GatedStep(
            f"The autoencoder '{used.name}' may not be used at any step: {next(iter(closed.values()))}, to begin with. "
            "Train a better one, or use it all the same (ignore_gate=True, --ignore-gate)."
        )
    window = Window(passes=(used.trained.attrs["pass"],))
    return by_step(edit_features(used.sae, 0, used.site, ignore_gate=True), steps, window)


def _first_of_size(sets: Sequence[FeatureSet], like: FeatureSet) -> FeatureSet:
    return next(each for each in sets if each.size == like.size)


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
    saes: Sequence[Used],
) -> xr.Dataset:
    """Return the effects of every feature and set of features at every factor on every concept, labelled."""
    parts = []
    for value, sets in chosen.items():
        score = own_scores(sweep, study, contexts[value], arms[value], list(study.spec.prompts.concepts))
        resolution = RESOLUTION[study.model["dtype"]]
        change = changes(score, value.split("=", 1)[0], resolution, unsteered=UNEDITED)
        found = _of_value(effects(change), sets, spec.factors)
        found["unedited"] = score.sel(arm=UNEDITED).mean(("pair", "seed")).reset_coords(drop=True)
        parts.append(_labelled(found, value, sets, len(contexts[value]), saes))
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
    found: xr.Dataset, value: str, sets: Sequence[FeatureSet], pairs: int, saes: Sequence[Used]
) -> xr.Dataset:
    """Add what a value's cells are: the value, the features of each SAE, the lowest of their AUROCs, and their role."""
    areas = [each.trained["auroc"].sel(value=value) for each in saes]
    lowest = [
        [
            float(area.sel(feature=list(of_sae)).min())
            for area, of_sae in zip(areas, each.features, strict=True)
        ]
        for each in sets
    ]
    return found.assign(
        {
            "value": ("cell", [value] * len(sets)),
            "features": (("cell", "sae"), [list(map(numbers, each.features)) for each in sets]),
            "set": ("cell", [each.name for each in sets]),
            "size": ("cell", [each.size for each in sets]),
            "auroc": (("cell", "sae"), lowest),
            "role": ("cell", ["null" if each.is_random else "cell" for each in sets]),
            "n_pairs": ("cell", [pairs] * len(sets)),
        }
    ).assign_coords(sae=[each.name for each in saes], site=("sae", [each.site for each in saes]))
