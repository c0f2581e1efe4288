"""Evaluate methods of steering: compute them, try them on held-out prompts in both directions, and summarise."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import xarray as xr

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.benchmark_result import DIRECTIONS, REPORT, SELECTION, benchmark_result
from analyses.evaluation.benchmark_spec import CONTROL, METHODS, BenchmarkSpec, Place
from analyses.evaluation.held_out import HeldOut, held_out
from analyses.evaluation.methods import Cell, Fitting, cells
from analyses.evaluation.null_bands import FEWEST_NULLS
from analyses.execution import Executor
from analyses.steering.asking import asked_sites, site_set
from analyses.steering.ladder import nulls
from analyses.steering.pairs import ends
from analyses.steering.run import Way, run_steering
from analyses.steering.vector import Vector
from analyses.steering_spec import LONGEST_NAME, SteeringSpec
from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.files import file_name
from workbench.models.base import AudioDiffusionModel
from workbench.studies.study import Study
from workbench.validation import validated

KIND = "steering-benchmark"
SCHEMA_VERSION = 3

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """A concept of an evaluation, its ends, and its held-out pairs."""

    concept: str
    positive: str
    negatives: tuple[str, ...]
    pairs: HeldOut


def asked_benchmark(study: Study, **options: object) -> BenchmarkSpec:
    """Make the spec of an evaluation; `options` are fields of `BenchmarkSpec`.

    Raises:
        UserError: if an option is unknown or not allowed, or a concept, value, method, judge or distance is unknown.
    """
    spec = validated(BenchmarkSpec, options, "Invalid evaluation")
    if unknown := [method for method in spec.methods if method not in METHODS]:
        raise UserError(f"Unknown method '{unknown[0]}'. Methods: {', '.join(METHODS)}.")
    if spec.protocol == "published" and not {"localised", "all"} <= set(spec.places):
        raise UserError(
            "The published protocol compares the localised blocks with all blocks. Give both (--place localised "
            "--place all)."
        )
    if spec.protocol == "published" and spec.methods and "pci" not in spec.methods:
        raise UserError("The published protocol takes its cutoffs from PCI. Give it, too (--method pci).")
    asked = [question.concept for question in questions(study, spec)]
    if twice := next((concept for place, concept in enumerate(asked) if concept in asked[:place]), ""):
        raise UserError(
            f"{twice} is asked for twice (--concept). Evaluate each value in a result of its own (--name)."
        )
    known = set(asked)
    if strange := [each for each in spec.sites if "=" in each and each.rpartition("=")[0] not in known]:
        raise UserError(f"'{strange[0]}' gives the blocks of a concept that is not evaluated. Leave it out.")
    return spec


def questions(study: Study, spec: BenchmarkSpec) -> list[Question]:
    """Return the concepts of an evaluation with their pairs; raise UserError if one is unknown or has too few."""
    prompts = study.spec.prompts
    found = []
    for asked in spec.concepts or tuple(prompts.concepts):
        concept, _, value = asked.partition("=")
        positive, negatives = ends(prompts, concept, value)
        selection = spec.selection_pairs if spec.protocol == "strict" else 0
        pairs = held_out(
            prompts, concept, positive, negatives, spec.pairs, selection, spec.fit_pairs, spec.seed
        )
        found.append(Question(concept, positive, tuple(negatives), pairs))
    return found


def check_benchmark(study: Study, model: AudioDiffusionModel, spec: BenchmarkSpec) -> list[str]:
    """Return a sentence on each concept that has fewer pairs than asked for, and on random vectors that are too few.

    Raises:
        UserError: if the localised blocks of a concept are unknown, none is left at a place, or a part of the full
            strength of PCI is less than a step.
    """
    for question in questions(study, spec):
        localised = asked_sites(study, model, question.concept, spec.sites_of(question.concept))
        for place in spec.places:
            _sites(model, localised, place)
    steps = study.spec.settings.num_steps
    if "pci" in (spec.methods or METHODS) and round(min(spec.parts) * steps) == 0:
        raise UserError(
            f"The smallest part of the full strength ({min(spec.parts):g}, --part) is less than one of the {steps} "
            "steps of pci. Give a larger one, or leave pci out."
        )
    found = [sentence for question in questions(study, spec) if (sentence := _shortage(question, spec))]
    if spec.protocol == "strict" and 0 < spec.randoms < FEWEST_NULLS:
        found.append(
            f"Fewer than {FEWEST_NULLS} random vectors (--random {spec.randoms}) give no random band. Give "
            f"{FEWEST_NULLS} or more, or 0."
        )
    return found


def _shortage(question: Question, spec: BenchmarkSpec) -> str:
    """Return a sentence if a concept has fewer prompts than asked for, or ""."""
    wanted = {REPORT: spec.pairs, SELECTION: spec.selection_pairs}
    few = [
        f"{stage}, {direction}: {len(getattr(ends, direction))} of {wanted[stage]}"
        for stage, direction in stages(spec)
        for ends in [getattr(question.pairs, stage)]
        if len(getattr(ends, direction)) < wanted[stage]
    ]
    if not few:
        return ""
    return (
        f"{question.concept} has fewer different prompts than asked for, if some are left to compute directions from "
        f"({', '.join(few)})."
    )


def run_benchmark(
    study: Study,
    model: AudioDiffusionModel,
    spec: BenchmarkSpec,
    progress: Callable[[str], Progress],
    note: Note = _log.warning,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Compute the methods, try them on held-out prompts, and save and return the summary.

    Vectors, sliders and trials that the study has are not made again, so that the same command continues an evaluation
    that was interrupted.

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        spec: what is compared.
        progress: returns what reports the progress of the part with a title.
        note: called with each sentence on the limitations of the result.
        executor: runs the units of work, by default in this process.

    Raises:
        UserError: as the methods and `run_steering` do.
    """
    started = time.monotonic()
    study.check_model(model.weights_hash)
    for sentence in check_benchmark(study, model, spec):
        note(sentence)
    with study.making(spec.result_name):
        trials = {
            (question.concept, direction, stage): trial
            for question in questions(study, spec)
            for direction, stage, trial in _trials(study, model, spec, question, progress, note, executor)
        }
        ids = {trial.attrs["result_id"]: "-".join(place) for place, trial in trials.items()}
        spec = spec.model_copy(update={"trials": ids, "schema_version": SCHEMA_VERSION})
        if (earlier := study.done_result(spec.result_name, spec)) is not None:
            return earlier
        if sentence := study.replaced(spec.result_name, spec):
            note(sentence)
        result = benchmark_result(trials, spec.protocol)
        result.attrs |= {"kind": KIND, "schema_version": SCHEMA_VERSION, "protocol": spec.protocol}
        return study.save_result(spec.result_name, result, spec, time.monotonic() - started)


def _trials(
    study: Study,
    model: AudioDiffusionModel,
    spec: BenchmarkSpec,
    question: Question,
    progress: Callable[[str], Progress],
    note: Note,
    executor: Executor | None,
) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Compute the methods for a concept, and yield its trials by direction and stage."""
    places = {
        place: _computed(study, model, spec, question, place, note, progress(f"{question.concept}, {place}"))
        for place in spec.places
    }
    for stage, direction in stages(spec):
        pairs = getattr(getattr(question.pairs, stage), direction)
        title = f"{question.concept}, {direction}, {stage}"
        trial = run_steering(
            study,
            model,
            _trial_spec(spec, question, direction, stage),
            _ways(spec, places, direction, stage),
            progress(title),
            partial(_noted, note, title) if stage == REPORT else _silent,
            executor,
            pairs,
        )
        yield direction, stage, trial


def _noted(note: Note, title: str, sentence: str) -> None:
    note(f"{title}: {sentence}")


def _silent(_: str) -> None:
    """Leave out what is said of a report, and of the p-values of a trial that has none."""


def stages(spec: BenchmarkSpec) -> list[tuple[str, str]]:
    """Return the trials of each concept, by stage and direction. The published protocol chooses no strength."""
    asked = (REPORT, SELECTION) if spec.protocol == "strict" else (REPORT,)
    return [(stage, direction) for stage in asked for direction in DIRECTIONS]


Computed = tuple[list[Cell], Vector | None]


def _computed(
    study: Study,
    model: AudioDiffusionModel,
    spec: BenchmarkSpec,
    question: Question,
    place: Place,
    note: Note,
    progress: Progress,
) -> Computed:
    """Return the methods at a place, and CAA's vector there."""
    localised = asked_sites(study, model, question.concept, spec.sites_of(question.concept))
    fitting = Fitting(
        concept=question.concept,
        positive=question.positive,
        negatives=question.negatives,
        place=place,
        sites=_sites(model, localised, place),
        pairs=spec.fit_pairs,
        held_out=question.pairs.prompts,
        iterations=spec.iterations,
        learning_rate=spec.learning_rate,
    )
    return cells(study, model, spec.methods or METHODS, fitting, note, progress)


def _sites(model: AudioDiffusionModel, localised: Sequence[str], place: Place) -> tuple[str, ...]:
    """Return the sites of a place, of the same part as the localised ones."""
    parsed = [Site.parse(site) for site in localised]
    blocks = "+".join(f"tf{site.block}" for site in parsed)
    if place == "localised":
        return tuple(localised)
    return site_set(f"{'all' if place == 'all' else f'all-{blocks}'}.{parsed[0].part}", model.n_blocks)


def _trial_spec(spec: BenchmarkSpec, question: Question, direction: str, stage: str) -> SteeringSpec:
    """Return the spec of a trial of a concept; its pairs are given."""
    sign = SIGNS[DIRECTIONS[direction]]
    return SteeringSpec(
        name=_trial_name(spec, question.concept, direction, stage),
        concept=question.concept,
        positive=question.positive,
        negatives=question.negatives,
        seeds=spec.seeds,
        strengths=tuple(sign * part for part in spec.parts),
        randoms=spec.randoms,
        scorers=spec.scorers,
        distances=spec.distances,
        seed=spec.seed,
        steered="negative" if sign > 0 else "positive",
    )


def _ways(spec: BenchmarkSpec, places: Mapping[Place, Computed], direction: str, stage: str) -> list[Way]:
    """Return the ways of steering of a trial; those that report have controls, too."""
    sign = SIGNS[DIRECTIONS[direction]]
    parts = spec.parts_by_place(chooses=stage == SELECTION)
    ways = [cell.way(parts[place], sign) for place in parts for cell in places[place][0]]
    if spec.protocol == "strict" and stage == REPORT:
        ways += _controls(spec, places, sign)
    return ways


def _controls(spec: BenchmarkSpec, places: Mapping[Place, Computed], sign: int) -> list[Way]:
    """Return random vectors like CAA's, and CAA's at next to no strength, at each place that is no control itself."""
    found: list[Way] = []
    for place, (of_place, vector) in places.items():
        caa = next((cell for cell in of_place if cell.method == "caa"), None)
        if place == CONTROL or caa is None or vector is None:
            continue
        way = caa.way(spec.parts, sign)
        drawn = nulls(way.name, vector, spec.randoms, spec.seed)
        found += [replace(null, strengths=way.strengths) for null in drawn]
        found.append(caa.floor(sign))
    return found


def _trial_name(spec: BenchmarkSpec, *parts: str) -> str:
    """Return the name of a trial; names of results are more limited than those of concepts."""
    name = "-".join((spec.result_name, *parts))
    return file_name(name).replace("=", "-")[-LONGEST_NAME:]
