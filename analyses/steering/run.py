"""Steering on trial: ways of steering at several strengths, on the same prompts, with what they do to every concept."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.execution import Executor
from analyses.patching.arms import Arm
from analyses.patching.contexts import PairContext, drop_indistinguishable, with_noise
from analyses.patching.impact import RESOLUTION
from analyses.patching.sweep import OWN, Sweep
from analyses.statistics import too_few_for_one, too_few_pairs
from analyses.steering.descriptor_pairs import descriptor_pairs, is_descriptor
from analyses.steering.effects import CONFIDENCE, changes, effects, restored_impacts, sign_checks
from analyses.steering.pairs import pairs_towards
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from workbench.engine.edits import Edit, Run
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair
from workbench.prompts.reading import encoder
from workbench.provenance import content_hash
from workbench.scorers import Scorer, check_heard, load_scorer
from workbench.scorers.audiobox import AXES
from workbench.scorers.distances import Distance, load_distance
from workbench.seeds import seed_array
from workbench.studies.study import Study

_log = logging.getLogger(__name__)

KIND = "steering"
SCHEMA_VERSION = 3
RUNS = ("clean", "corrupt")
# The runs that edits read from, by the value whose prompts are steered.
SOURCES = {
    "negative": {"positive": [Run("clean")], "negative": [Run("corrupt")]},
    "positive": {"positive": [Run("corrupt")], "negative": [Run("clean")]},
}
QUALITY = "audiobox"
"""The scorer that rates clips, whatever they contain. It is no judge of concepts."""
DIMS = ("concept", "pair", "seed", "arm", "scorer")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Way:
    """A way of steering: a name, and its edits at a strength, which may read from runs "positive" and "negative".

    `strengths` are its own, or empty for those that all have. `null_of` is the name of the way that this one is a null
    of, or "". A way that `is_floor` steers by next to nothing: what it changes is the noise of the computation.
    """

    name: str
    at: Callable[[float], Sequence[Edit]]
    strengths: tuple[float, ...] = ()
    null_of: str = ""
    is_floor: bool = False


@dataclass(frozen=True)
class Dose:
    """One arm of a trial: a way of steering at a strength."""

    way: Way
    strength: float
    arm: Arm

    @property
    def role(self) -> str:
        """Its role among the arms: "cell", "null" or "floor"."""
        return "floor" if self.way.is_floor else self.arm.role


def doses(ways: Sequence[Way], strengths: Sequence[float], steered: str = "negative") -> list[Dose]:
    """Return every way at every strength but 0, which is the unsteered run; `steered` prompts have that value.

    Raises:
        UserError: if two ways have the same name, or there is nothing to try.
    """
    names = [way.name for way in ways]
    if twice := next((name for place, name in enumerate(names) if name in names[:place] or name in OWN), ""):
        raise UserError(
            f"Two ways of steering are called '{twice}', or it is the name of an unsteered run. Rename one."
        )
    made = [
        Dose(way, strength, _arm(way, strength, steered))
        for way in ways
        for strength in (way.strengths or strengths)
        if strength
    ]
    if not made:
        raise UserError("Steering needs at least one strength other than 0, which is the unsteered run.")
    return made


def _arm(way: Way, strength: float, steered: str) -> Arm:
    edits = tuple(edit.bound(SOURCES[steered]) for edit in way.at(strength))
    null_of = _arm_name(way.null_of, strength) if way.null_of else ""
    return Arm(
        name=_arm_name(way.name, strength),
        row=way.name,
        column=f"{strength:g}",
        edits=edits,
        role="null" if null_of else "cell",
        null_of=null_of,
        null_kind="random" if null_of else "",
    )


def _arm_name(way: str, strength: float) -> str:
    return f"{way} × {strength:g}"


def run_steering(
    study: Study,
    model: AudioDiffusionModel,
    spec: SteeringSpec,
    ways: Sequence[Way],
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    executor: Executor | None = None,
    pairs: Sequence[Pair] = (),
) -> xr.Dataset:
    """Steer prompts in every way at every strength, score the clips for all concepts, and save the result.

    The prompts of pairs with a negative value are steered, or, if `spec.steered` says so, those with the positive one;
    the other prompt of the pair is the real one. Runs that the study already has are not repeated (schema of the
    result: `docs/reference/results.md`).

    Args:
        study: the study, whose prompt set, settings and run store are used.
        model: the study's model.
        spec: what to try it on.
        ways: the ways of steering.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        note: called with each sentence on the limitations of the result: before anything runs what is known then.
        executor: runs the units of work, by default in this process.
        pairs: pairs towards the positive value, instead of `spec.pairs` that are drawn.

    Returns:
        The saved result, also an earlier one of the same spec, ways and study.

    Raises:
        UserError: if the model is not the study's, a concept, value, scorer or distance is unknown, there are fewer
            pairs, an edit cannot be applied, or another process computes the same result.
    """
    started = time.monotonic()
    study.check_model(model.weights_hash)
    asked = doses(ways, spec.strengths, spec.steered)
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    distances = {name: load_distance(name, device=model.device) for name in spec.distances}
    spec = settled(spec, asked, scorers, distances, pairs)
    with study.making(spec.result_name):
        contexts = _contexts(study, model, spec, pairs)
        if (earlier := study.done_result(spec.result_name, spec)) is not None:
            return earlier
        hearing = [scorer for name, scorer in scorers.items() if name != QUALITY]
        unheard = check_heard(hearing, [text for c in contexts for text in readings(study, c.pair).values()])
        sweep = Sweep(study, model, scorers, {spec.concept: contexts}, executor, distances)
        arms = [dose.arm for dose in asked]
        cells = sum(arm.role == "cell" for arm in arms)
        sentences = [
            *unheard,
            *sweep.check(arms),
            too_few_pairs(len(contexts)) or too_few_for_one(len(contexts), cells, "ways and strengths"),
            study.replaced(spec.result_name, spec),
        ]
        for sentence in filter(None, sentences):
            note(sentence)
        total = len(contexts) * spec.seeds
        for done, _ in enumerate(sweep.run({spec.concept: arms}, range(len(contexts))), 1):
            if progress is not None:
                progress(done, total)
        result = _dataset(study, spec, sweep, contexts, asked)
        for sentence in unscored(result["score"].sel(concept=spec.concept)):
            note(sentence)
        return study.save_result(spec.result_name, result, spec, time.monotonic() - started)


def unscored(score: xr.DataArray) -> list[str]:
    """Return a sentence on each judge that scored only some clips: `score` (…, scorer) is NaN where there is none."""
    missing = score.isnull().sum([dim for dim in score.dims if dim != "scorer"])
    of_each = score.size // score.sizes["scorer"]
    return [
        f"The scorer {name} has no score for {count} of {of_each} clips, which means leave out. "
        "The log has the reasons."
        for name, count in zip(score["scorer"].values.tolist(), missing.values.tolist(), strict=True)
        if 0 < count < of_each
    ]


def settled(
    spec: SteeringSpec,
    asked: Sequence[Dose],
    scorers: Mapping[str, Scorer],
    distances: Mapping[str, Distance] = MappingProxyType({}),
    pairs: Sequence[Pair] = (),
) -> SteeringSpec:
    """Return the spec with the identities of its edits, scorers, distances and given pairs."""
    outside: dict[str, object] = {
        "arms": content_hash([[dose.arm.to_json(), dose.strength] for dose in asked]),
        "judges": {name: scorer.identity for name, scorer in scorers.items()},
        "measures": {name: distance.identity for name, distance in distances.items()},
        "schema_version": SCHEMA_VERSION,
    }
    if pairs:
        outside |= {"pairs": len(pairs), "pairs_hash": content_hash([asdict(pair) for pair in pairs])}
    return spec.model_copy(update=outside)


def readings(study: Study, pair: Pair) -> dict[str, str]:
    """Return the texts that a steered clip is scored for: its concept's positive value, and its own other values."""
    concepts = study.spec.prompts.concepts
    others = {name: concepts[name][label].text for name, label in pair.corrupt.labels.items() if label}
    return {pair.concept: pair.text, **{name: text for name, text in others.items() if name != pair.concept}}


def _contexts(
    study: Study, model: AudioDiffusionModel, spec: SteeringSpec, given: Sequence[Pair]
) -> list[PairContext]:
    """Return the given pairs, or drawn ones, with the prompt that is steered as the corrupt one."""
    prompts = study.spec.prompts
    if given:
        pairs = list(given)
    elif is_descriptor(prompts, spec.concept):
        pairs = descriptor_pairs(study, spec)
    else:
        pairs = pairs_towards(
            prompts, spec.concept, spec.positive, spec.negatives, spec.pairs, spec.seed, spec.without
        )
    if spec.steered == "positive":
        pairs = [replace(pair, clean=pair.corrupt, corrupt=pair.clean) for pair in pairs]
    ratings = tuple(AXES) if QUALITY in spec.scorers else ()
    contexts = [
        PairContext(pair, None, None, (), more_texts=(*list(readings(study, pair).values())[1:], *ratings))
        for pair in pairs
    ]
    encode = encoder(model, study.spec.lyrics, study.spec.settings)
    kept, _ = drop_indistinguishable({spec.concept: contexts}, (), encode)
    return with_noise(kept, (study.spec.seed, spec.seed), spec.seeds)[spec.concept]


def _dataset(
    study: Study, spec: SteeringSpec, sweep: Sweep, contexts: Sequence[PairContext], asked: Sequence[Dose]
) -> xr.Dataset:
    """Return scores, effects, the sign checks, and impacts on the steered concept, labelled."""
    score, audio = _scores(study, spec, sweep, contexts, asked)
    result = xr.Dataset({"score": score, "audio": audio, **_texts(contexts, spec)})
    if spec.distances:
        result = result.merge(_distances(spec, sweep, contexts, asked))
    if QUALITY in spec.scorers:
        result["quality"] = DIMS[1:-1], _quality(sweep, contexts, asked)
    resolution = RESOLUTION[study.model["dtype"]]
    restored = restored_impacts(score.sel(concept=[spec.concept]), resolution, spec.steered)
    kept = ["impact", "impact_lo", "impact_hi", "denominator", "denominator_lo", "denominator_hi"]
    change = changes(score, spec.concept, resolution)
    result = result.merge(effects(change)).merge(sign_checks(change.sel(concept=spec.concept, drop=True)))
    result = result.merge(restored[[*kept, "defined", "n", "n_pairs"]], compat="no_conflicts")
    result.attrs |= {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "concept": spec.concept,
        "positive": spec.positive,
        "negative": " or ".join(spec.negatives),
        "confidence": CONFIDENCE,
        "resolution": resolution,
        "denoiser_rows": sweep.rows,
    }
    return result


def _scores(
    study: Study, spec: SteeringSpec, sweep: Sweep, contexts: Sequence[PairContext], asked: Sequence[Dose]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return scores (concept, pair, seed, arm, scorer) and audio files (pair, seed, arm)."""
    concepts = [spec.concept, *(name for name in study.spec.prompts.concepts if name != spec.concept)]
    arms = [dose.arm for dose in asked]
    judges = [name for name in sweep.scorers if name != QUALITY]
    shape = (len(concepts), len(contexts), spec.seeds, len(RUNS) + len(arms), len(judges))
    values = np.full(shape, np.nan)
    audio = np.full(shape[1:-1], "", dtype=object)
    for p, context in enumerate(contexts):
        texts = readings(study, context.pair)
        for s, seed in enumerate(context.seeds):
            audio[p, s] = sweep.audio(context, seed, arms)
            for concept, text in texts.items():
                scores = sweep.scores(context, seed, arms, text)
                values[concepts.index(concept), p, s] = scores[:, [name != QUALITY for name in sweep.scorers]]
    coords = {
        "concept": concepts,
        "pair": range(len(contexts)),
        "seed": range(spec.seeds),
        "scorer": judges,
        **_arm_coords(asked),
    }
    score = xr.DataArray(values, coords, DIMS)
    return score, xr.DataArray(audio, dims=DIMS[1:-1])


def _quality(
    sweep: Sweep, contexts: Sequence[PairContext], asked: Sequence[Dose]
) -> Float[np.ndarray, "pair seed arm"]:
    """Return the mean of the ratings of each clip's quality."""
    arms, rater = [dose.arm for dose in asked], list(sweep.scorers).index(QUALITY)
    return np.array(
        [
            [
                np.mean([sweep.scores(context, seed, arms, axis)[:, rater] for axis in AXES], axis=0)
                for seed in context.seeds
            ]
            for context in contexts
        ]
    )


def _distances(
    spec: SteeringSpec, sweep: Sweep, contexts: Sequence[PairContext], asked: Sequence[Dose]
) -> xr.Dataset:
    """Return distances from the unsteered clips, and of those of neighbouring seeds from each other."""
    arms = [dose.arm for dose in asked]
    of_arms = [[sweep.distances(context, seed, arms).T for seed in context.seeds] for context in contexts]
    of_seeds = [sweep.distances_between_seeds(context) for context in contexts]
    dims = ("pair", "seed", "measure")
    return xr.Dataset(
        {"distance": ((*dims, "arm"), np.array(of_arms)), "seed_distance": (dims, np.array(of_seeds))},
        {"measure": list(spec.distances)},
    ).transpose("measure", "pair", "seed", "arm")


def _arm_coords(asked: Sequence[Dose]) -> dict[str, tuple[str, list[object]]]:
    """Return the labels of arms; the two unsteered runs come first."""

    def column(of_runs: object, of_arms: Sequence[object]) -> tuple[str, list[object]]:
        return "arm", [of_runs] * len(RUNS) + list(of_arms)

    return {
        "arm": ("arm", [*RUNS, *(dose.arm.name for dose in asked)]),
        "row": column("", [dose.way.name for dose in asked]),
        "strength": column(0.0, [float(dose.strength) for dose in asked]),
        "direction": column("", [dose.arm.direction for dose in asked]),
        "role": column("run", [dose.role for dose in asked]),
        "null_of": column("", [dose.arm.null_of for dose in asked]),
    }


def _texts(
    contexts: Sequence[PairContext], spec: SteeringSpec
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return the pairs' prompts and the seeds of their noise."""
    clean = np.array([context.pair.clean.text for context in contexts], dtype=object)
    corrupt = np.array([context.pair.corrupt.text for context in contexts], dtype=object)
    seeds = seed_array([seed for context in contexts for seed in context.seeds])
    return {
        "clean_prompt": (("pair",), clean),
        "corrupt_prompt": (("pair",), corrupt),
        "noise_seed": (("pair", "seed"), seeds.reshape(len(contexts), spec.seeds)),
    }
