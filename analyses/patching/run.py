"""Activation patching: impact maps for every question, from sweeps of arms over counterfactual pairs and seeds."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from analyses.execution import Executor
from analyses.patching.agreement import agreement
from analyses.patching.arms import Arm, Request, arm_from_json, arms_of, null_arms
from analyses.patching.contexts import (
    PairContext,
    drop_indistinguishable,
    listed_contexts,
    n_listed,
    prompt_set_contexts,
    with_noise,
)
from analyses.patching.dataset import Arms, map_dataset
from analyses.patching.greedy import GreedyStep, grow_sets
from analyses.patching.impact import CONFIDENCE, RESOLUTION, impact
from analyses.patching.orientation import orientation
from analyses.patching.screening import check_screening, choose_arms, rank_agreement, screen_arms
from analyses.patching.spec import QUESTIONS, PatchingSpec
from analyses.patching.stopping import Progress, run_pairs
from analyses.patching.sweep import OWN, Sweep
from analyses.statistics import too_few_for_one, too_few_pairs
from cache.errors import UserError
from cache.wording import counted, quoted
from workbench.engine.tensors import Tensors, load_tensor, save_tensor
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.pair_files import load_pairs
from workbench.prompts.prompt_sets import Encode, Pair
from workbench.prompts.reading import encoder, unknown_words
from workbench.provenance import content_hash
from workbench.scorers import Scorer, check_heard, load_scorer, scorer_identity
from workbench.scorers.descriptor_scorer import MEASURE
from workbench.studies.study import Study

_log = logging.getLogger(__name__)

KIND = "patching"
SCHEMA_VERSION = 6
NAMED_PAIRS = 3  # dropped pairs that are named before a map is made; its result lists all of them
CORRECTION = "Benjamini–Hochberg"


def question_arms(
    spec: PatchingSpec, study: Study, model: AudioDiffusionModel, tensors: Tensors | None = None
) -> list[Arm]:
    """Return the arms of a map, null arms last; raise UserError for invalid blocks, sets, windows and so on.

    `tensors` returns the tensors that custom arms refer to, by default from the study.
    """
    if spec.question == "custom":
        given = tensors or partial(load_tensor, study.path)
        return [arm_from_json(entry, given) for entry in json.loads(spec.custom_arms or "[]")]
    arms = arms_of(Request(model, study.spec.settings, spec))
    if not arms:
        raise UserError(
            f"The question {spec.question} has nothing to patch with these options. Choose other blocks."
        )
    return arms + null_arms(arms, spec.nulls)


def _check_names(arms: Sequence[Arm]) -> None:
    """Raise UserError if two arms of a map have the same name, or one has that of the clean or corrupt run."""
    names = set(OWN)
    for arm in arms:
        if arm.name in names:
            raise UserError(
                f"'{arm.name}' is the name of two runs of the map. Give each arm a different name, other than clean "
                "and corrupt."
            )
        names.add(arm.name)


def _check_stop(spec: PatchingSpec, arms: Sequence[Arm]) -> None:
    """Raise UserError if a map does not have more cells than `stop_top`."""
    cells = _n_cells(arms)
    if spec.screening is not None:
        cells = min(cells, spec.screening.top + spec.screening.sample)
    if spec.stop_top >= max(cells, 1):
        raise UserError(
            f"stop_top must be less than the number of cells of the map, {cells}; got {spec.stop_top}. Give a smaller "
            "number, or 0 to use all pairs."
        )


def _n_cells(arms: Sequence[Arm]) -> int:
    return sum(arm.role == "cell" for arm in arms)


def _check_length(scorer: Scorer, study: Study, model: AudioDiffusionModel) -> None:
    """Raise UserError if the study's clips are too short to be scored."""
    seconds = model.seconds(study.spec.settings.duration)
    if seconds < scorer.min_seconds:
        raise UserError(
            f"The scorer {scorer.name} needs clips of at least {scorer.min_seconds:g} s, but those of {study.path} are "
            f"{seconds:g} s long, so that no run would have a score. Choose another scorer (--scorer), or trace a "
            "study of longer clips (--duration)."
        )


def custom_arms(arms: Sequence[Arm]) -> str:
    """Return arms as JSON for the field `custom_arms` of a `PatchingSpec`; for their tensors, see `arm_tensors`."""
    return json.dumps([arm.to_json() for arm in arms])


def settled(spec: PatchingSpec) -> PatchingSpec:
    """Return the spec with the current identities of the map's outside inputs: the file of pairs and the scorers.

    Raises:
        UserError: if the file of pairs is missing or invalid, or a scorer is unknown or lacks its weights.
    """
    listed = load_pairs(Path(spec.pairs_file)) if spec.pairs_file else {}
    return _settled(spec, listed, {name: scorer_identity(name) for name in spec.scorers})


def _settled(spec: PatchingSpec, listed: dict[str, list[Pair]], judges: dict[str, str]) -> PatchingSpec:
    content = {concept: [asdict(pair) for pair in pairs] for concept, pairs in listed.items()}
    pairs_hash = content_hash(content) if content else ""
    outside = {
        "pairs_hash": pairs_hash,
        "judges": {**judges, MEASURE: scorer_identity(MEASURE)} if spec.descriptors else judges,
        "schema_version": SCHEMA_VERSION,
    }
    return spec.model_copy(update=outside)


@dataclass(frozen=True)
class Plan:
    """A map that is ready to be made: everything it needs was found and checked.

    `dropped` are the pairs that are left out, each with its concept, prompts and the reason. `notes` are sentences on
    the map's limitations.
    """

    spec: PatchingSpec
    arms: list[Arm]
    dropped: list[dict[str, str]]
    notes: list[str]
    sweep: Sweep


def check_patching(
    study: Study,
    model: AudioDiffusionModel,
    spec: PatchingSpec,
    executor: Executor | None = None,
    tensors: Tensors | None = None,
) -> Plan:
    """Check a map before its first clip is generated.

    Raises:
        UserError: if the model is not the study's; a concept, block or scorer is unknown; a scorer cannot score a text,
            or clips as short as the study's; an arm cannot be run with a pair; two arms have the same name; `stop_top`
            is not less than the number of cells; or the model cannot tell any pair of a concept apart.
    """
    study.check_model(model.weights_hash)
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    listed = load_pairs(Path(spec.pairs_file)) if spec.pairs_file else {}
    spec = _settled(spec, listed, {name: scorer.identity for name, scorer in scorers.items()})
    arms = question_arms(spec, study, model, tensors)
    _check_names(arms)
    _check_stop(spec, arms)
    if spec.screening is not None:
        check_screening(arms)
    encode = encoder(model, study.spec.lyrics, study.spec.settings)
    sources = {source for arm in arms for source in arm.sources} - OWN
    contexts, dropped = drop_indistinguishable(_contexts(study, spec, listed, encode), sources, encode)
    unheard = check_heard(
        scorers.values(), [text for pairs in contexts.values() for context in pairs for text in context.texts]
    )
    noisy = with_noise(contexts, (study.spec.seed, spec.seed), spec.seeds)
    sweep = Sweep(study, model, scorers, noisy, executor, descriptors=spec.descriptors)
    empty = sweep.check(arms)
    for scorer in scorers.values():
        _check_length(scorer, study, model)
    notes = [
        *_notes(spec, model, contexts, dropped, _n_cells(arms), _n_pairs(study, listed, encode)),
        *empty,
        *unheard,
        *filter(None, [_half_written(study)]),
    ]
    return Plan(spec, arms, dropped, notes, sweep)


def _notes(
    spec: PatchingSpec,
    model: AudioDiffusionModel,
    contexts: dict[str, list[PairContext]],
    dropped: list[dict[str, str]],
    n_cells: int,
    n_pairs: Mapping[str, int],
) -> list[str]:
    """Return sentences on a map's limitations that a user should know before it runs.

    `n_pairs` is how many different pairs there are of each concept, used or not.
    """
    notes = [
        f"The pair {quoted(pair['clean'])} / {quoted(pair['corrupt'])} of {pair['concept']} is dropped: "
        f"{pair['reason']}."
        for pair in dropped[:NAMED_PAIRS]
    ]
    if (more := len(dropped) - NAMED_PAIRS) > 0:
        notes.append(
            f"{counted(more, 'more pair')} {'is' if more == 1 else 'are'} dropped for similar reasons."
        )
    by_number: dict[tuple[int, bool, bool], list[str]] = {}
    with_dropped = {pair["concept"] for pair in dropped}
    for concept, pairs in contexts.items():
        key = len(pairs), concept in with_dropped, n_pairs[concept] > spec.pairs
        by_number.setdefault(key, []).append(concept)
    for (n, has_dropped, has_more), concepts in sorted(by_number.items()):
        names = ", ".join(concepts)
        if n < spec.pairs:
            reason = "the others are dropped; ask for more" if has_more else "there are no more"
            if has_dropped and not has_more:
                reason = "the others are dropped, and there are no more"
            notes.append(f"The map uses {counted(n, 'pair')} of {names}, not {spec.pairs}: {reason}.")
        if sentence := too_few_pairs(n):
            notes.append(f"No cell of {names} can be significant. {sentence}")
        elif sentence := too_few_for_one(n, n_cells * len(contexts)):
            notes.append(f"A single cell of {names} cannot be significant. {sentence}")
    prompts = [
        side.text for pairs in contexts.values() for c in pairs for side in (c.pair.clean, c.pair.corrupt)
    ]
    return [*notes, *filter(None, [unknown_words(model, prompts)])]


def _n_pairs(study: Study, listed: Mapping[str, list[Pair]], encode: Encode) -> dict[str, int]:
    """Return the number of different pairs of each concept."""
    if listed:
        return {concept: n_listed(pairs, encode) for concept, pairs in listed.items()}
    prompts = study.spec.prompts
    return {concept: prompts.n_pairs(concept) // 2 for concept in prompts.concepts}


def _half_written(study: Study) -> str:
    """Return a sentence if the study is only partly traced, which does not affect maps; otherwise ""."""
    with suppress(UserError):  # its cache is elsewhere or missing
        sentence = study.unfinished()
        return sentence and f"{sentence} The map does not need activations, and is computed anyway."
    return ""


def run_patching(
    study: Study,
    model: AudioDiffusionModel,
    spec: PatchingSpec,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    executor: Executor | None = None,
    tensors: Tensors | None = None,
) -> xr.Dataset:
    """Run the runs of a map that the study lacks, and save its result (schema: `docs/reference/results.md`).

    Args:
        study: the study.
        model: the study's model.
        spec: the map's spec.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        note: called with each sentence on the map's limitations, before anything runs.
        executor: runs the units of work, by default in this process.
        tensors: returns the tensors that custom arms refer to. Once everything is checked, the study stores them, so
            later calls do not need it.

    Returns:
        The saved result.

    Raises:
        UserError: as in `check_patching`; or another process is making the same result, or runs of the map are missing
            at the end.
    """
    started = time.monotonic()
    with study.making(spec.result_name, can_be_named=True):
        plan = check_patching(study, model, spec, executor, tensors)
        for tensor in {tensor for arm in plan.arms for edit in arm.edits for tensor in edit.tensors}:
            save_tensor(study.path, tensor)
        for sentence in filter(None, [*plan.notes, study.replaced(spec.result_name, plan.spec)]):
            note(sentence)
        result = _make(study, model, plan, progress or _no_progress)
        return study.save_result(spec.result_name, result, plan.spec, time.monotonic() - started)


def _make(study: Study, model: AudioDiffusionModel, plan: Plan, progress: Progress) -> xr.Dataset:
    """Run and score what the map lacks, and return its dataset."""
    spec, arms, sweep = plan.spec, plan.arms, plan.sweep
    screen: xr.DataArray | None = None
    chosen: Arms = dict.fromkeys(sweep.contexts, arms)
    if spec.screening is not None:
        few = {concept: pairs[: spec.screening.pairs] for concept, pairs in sweep.contexts.items()}
        screen = screen_arms(study, model, spec.screening.method, few, arms)
        chosen = choose_arms(screen, arms, spec.screening.top, spec.screening.sample, spec.seed)
    n_run, stopped = run_pairs(sweep, chosen, spec.stop_top, spec.min_pairs, progress)
    steps: dict[str, list[GreedyStep]] = {}
    if spec.greedy_fraction:
        set_arm = Request(model, study.spec.settings, spec).set_arm
        added, steps = grow_sets(sweep, set_arm, model.n_blocks, spec.greedy_fraction)
        arms = arms + added
        chosen = dict.fromkeys(sweep.contexts, arms)
    result = map_dataset(sweep, arms, chosen, n_run)
    resolution = RESOLUTION[study.model["dtype"]]
    result["orientation"] = orientation(
        result.score, result.clean_value.values, result.corrupt_value.values, spec.descriptors
    )
    oriented = result.score * result.orientation
    result = result.merge(impact(oriented, resolution=resolution), compat="no_conflicts")
    result = result.merge(agreement(oriented, result.impact, resolution))
    if screen is not None:
        result = _with_screen(result, screen, spec)
    result.attrs |= {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "question": spec.question,
        "row_label": "block",
        "column_label": QUESTIONS[spec.question].columns,
        "mode": spec.mode,
        "confidence": CONFIDENCE,
        "resolution": resolution,
        "correction": CORRECTION,
        "stopped": stopped,
        "dropped": json.dumps(plan.dropped),
        "greedy": json.dumps(steps),
        "screened": result.attrs.get("screened", ""),
        "arms": json.dumps([arm.to_json() for arm in arms]),
        "denoiser_rows": plan.sweep.rows,
    }
    return result


def _no_progress(done: int, total: int) -> None:
    del done, total


def _contexts(
    study: Study, spec: PatchingSpec, listed: dict[str, list[Pair]], encode: Encode
) -> dict[str, list[PairContext]]:
    """Return the pairs of each concept, with their contexts."""
    if listed:
        unknown = set(spec.concepts) - set(listed)
        if unknown:
            raise UserError(
                f"{spec.pairs_file} has no pairs of {', '.join(sorted(unknown))}, only of {', '.join(listed)}."
            )
        return {
            concept: listed_contexts(listed[concept], spec.pairs, encode)
            for concept in spec.concepts or listed
        }
    prompts = study.spec.prompts
    return {
        concept: prompt_set_contexts(prompts, concept, spec.pairs, spec.seed, encode)
        for concept in spec.concepts or prompts.concepts
    }


def _with_screen(result: xr.Dataset, screen: xr.DataArray, spec: PatchingSpec) -> xr.Dataset:
    """Add every cell's screening score, and its rank agreement with exact patching, to the result."""
    assert spec.screening is not None
    result["screen"] = screen.reindex(arm=result.arm)
    result["screen_agreement"] = rank_agreement(result.screen, result.impact.isel(scorer=0))
    screened = {**spec.screening.model_dump(), "rows": int(screen.attrs["rows"])}
    result.attrs["screened"] = json.dumps(screened)
    return result
