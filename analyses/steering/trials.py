"""Set up trials and recovery ladders as users ask for them: specs, which are checked first, and ways of steering."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, cast

from analyses.sae.names import saes_of_sites
from analyses.steering.asking import Steering, asked_sites, of_study
from analyses.steering.caa import CAA
from analyses.steering.capture import Method, PairOptions, fit
from analyses.steering.clip_stream import Progress
from analyses.steering.descriptor_pairs import is_descriptor
from analyses.steering.fit_state import FitState
from analyses.steering.ladder import ladder, nulls, sae_method
from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.pci import PCI
from analyses.steering.run import Way
from analyses.steering.slider import Slider
from analyses.steering.vector import Vector
from analyses.steering_spec import DEFAULT_SCORER, SteeringSpec
from cache.errors import UserError
from workbench.engine.edits import Edit, Run, all_edits
from workbench.engine.runs import Clip
from workbench.models.base import AudioDiffusionModel
from workbench.scorers.descriptor_scorer import MEASURE
from workbench.studies.study import Study
from workbench.validation import must_be, validated

Named = Sequence[tuple[str, Steering]]
"""Ways of steering with the names that results show."""
Others = Sequence[tuple[str, Vector | Slider]]
Note = Callable[[str], None]
AnySteering = TypeVar("AnySteering")


def asked_trial(study: Study, steered: Named, **options: Any) -> SteeringSpec:
    """Make the spec of a trial of ways of steering for one concept, on prompts that none was computed from.

    A vector of a descriptor is judged by the scorer that measures it, not by the default one.

    `options` are the fields of `SteeringSpec` that have a description.

    Raises:
        UserError: if they are not for the same concept, or point different ways, or an option is not allowed.
    """
    towards = sorted({(each.concept, each.positive) for _, each in steered})
    if len(towards) != 1:
        raise UserError(
            "Ways of steering can be compared if they are for the same concept and point the same way; got "
            f"{_together(towards) or 'none'}."
        )
    first, prompts = steered[0][1], study.spec.prompts
    if is_descriptor(prompts, first.concept):
        options["scorers"] = _measuring(options.get("scorers") or ())
        return _spec(first.concept, first.positive, (first.negative,), _own_prompts(steered), options)
    known = first.concept in prompts.concepts and first.negative in prompts.concepts[first.concept]
    positive, negatives = ends(prompts, first.concept, first.positive, first.negative if known else "")
    return _spec(first.concept, positive, negatives, _own_prompts(steered), options)


def _measuring(scorers: str | Sequence[str]) -> tuple[str, ...]:
    """Return the judges of a descriptor's vector: the one that measures it, and others only if asked for."""
    asked = (scorers,) if isinstance(scorers, str) else tuple(scorers)
    others = () if asked == (DEFAULT_SCORER,) else asked
    return tuple(dict.fromkeys((MEASURE, *others)))


def ways_of_trial(
    steered: Named,
    spec: SteeringSpec,
    note: Note,
    course: Mapping[str, Any] = MappingProxyType({}),
    ignore_gate: bool = False,
    **how: Any,
) -> list[Way]:
    """Return ways of steering for a trial, and random vectors like each vector.

    `course` are `schedule`, `over` and `start_step` of all but PCI, whose strength is a number of steps; `how` are
    further options of vectors. `note` is called with sentences on the trial. With `ignore_gate` vectors of SAE features
    steer also at steps at which their autoencoders may not be used.

    Raises:
        GatedStep: if one would without it.
    """
    if 0 in spec.strengths:
        note("The unsteered clips, of strength 0, are always compared.")
    if spec.randoms and not any(isinstance(each, Vector) for _, each in steered):
        note("There are no random vectors, which are made like a vector.")
    ways: list[Way] = []
    for name, given in steered:
        each = opened(given, ignore_gate)
        at: Callable[..., Sequence[Edit]] = each.at
        if isinstance(each, Vector):
            of_vector = {**course, **how}
            shown = f"{name}{_told(of_vector)}"
            drawn = nulls(shown, each, spec.randoms, spec.seed, **of_vector)
            ways += [Way(shown, partial(at, **of_vector)), *drawn]
        elif isinstance(each, PCI):
            ways.append(Way(name, at))
        else:
            shown = f"slider {name}" if isinstance(each, Slider) else name
            ways.append(Way(f"{shown}{_told(course)}", partial(at, **course)))
    return ways


def opened(each: AnySteering, ignore_gate: bool) -> AnySteering:
    """Return a way of steering; with `ignore_gate` a vector that steers also where its autoencoders may not be used."""
    if ignore_gate and isinstance(each, Vector):
        return cast(AnySteering, each.ignoring_gate())
    return each


_DEFAULTS = {
    "unit": "difference", "passes": "cond_only", "operation": "add", "schedule": "constant", "over": "steps",
    "start_step": 0, "keep_norm": False,
}  # fmt: skip
_WORDS = {
    "unit": "unit {}",
    "passes": "{}",
    "over": "over {}",
    "start_step": "from step {}",
    "keep_norm": "norms kept",
}


def _told(how: Mapping[str, Any]) -> str:
    """Return options that are not the defaults as the end of a name, such as " (clamp, early)"; "" for the defaults."""
    other = [
        _WORDS.get(option, "{}").format(value).replace("_", " ")
        for option, value in how.items()
        if value != _DEFAULTS[option]
    ]
    return f" ({', '.join(other)})" if other else ""


def asked_ladder(
    study: Study,
    concept: str,
    positive: str = "",
    negative: str = "",
    fit_pairs: int = 16,
    others: Others = (),
    **options: Any,
) -> SteeringSpec:
    """Make the spec of a recovery ladder, before anything is generated; see `rungs_of_ladder`.

    Its prompts are none of the `fit_pairs` pairs that its vectors are computed from, nor any that the `others` were.

    Raises:
        UserError: if the concept or a value is unknown, there are too few pairs, a strength is not above 0, or another
            way of steering is for another concept or points another way.
    """
    must_be(int, fit_pairs, "The number of pairs that vectors are computed from must be a whole number")
    prompts = study.spec.prompts
    positive, negatives = ends(prompts, concept, positive, negative)
    towards = {(each.concept, each.positive) for _, each in others}
    if strange := sorted(towards - {(concept, positive)}):
        raise UserError(
            f"The vectors and sliders of a ladder must be for its concept and point the same way, {concept} (towards "
            f"{positive}); got {_together(strange)}."
        )
    fitted = pairs_towards(prompts, concept, positive, negatives, fit_pairs, 0)
    own = {prompt.text for pair in fitted for prompt in (pair.clean, pair.corrupt)} | _own_prompts(others)
    named = {**options, "name": options.get("name") or f"ladder-{concept}"}
    spec = _spec(concept, positive, negatives, own, named)
    if wrong := [strength for strength in spec.strengths if not 0 < strength < float("inf")]:
        raise UserError(
            f"The strengths of a ladder must be finite numbers above 0, because its patches lead towards {positive}; "
            f"got {wrong[0]:g}."
        )
    pairs_towards(prompts, concept, positive, negatives, spec.pairs, spec.seed, own)
    return spec


def rungs_of_ladder(
    study: Study,
    model: AudioDiffusionModel,
    spec: SteeringSpec,
    note: Note,
    sites: str = "",
    fit_pairs: int = 16,
    others: Others = (),
    progress: Progress | None = None,
    state: FitState | None = None,
    ignore_gate: bool = False,
) -> list[Way]:
    """Compute the vectors of a ladder from pairs that are generated once, and return its rungs.

    The rungs with features are at the sites of which the study has sparse autoencoders; without any, `note` is called
    with a sentence that says how to train one. The `state` keeps that of the vectors (see `fit_state`).

    Raises:
        UserError: if the sites are unknown or none is functional; an autoencoder does not fit its site, or may not be
            used at a step and `ignore_gate` is not given; or another way of steering does not fit the model or its
            steps.
    """
    others = [(name, opened(each, ignore_gate)) for name, each in others]
    chosen = asked_sites(study, model, spec.concept, sites)
    for _, each in others:  # those that do not fit are refused before anything is generated
        model.plan([Run(Clip(spec.concept, 0), all_edits(each.at(1.0)))], study.spec.settings)
    saes = {site: sae for site, (_, sae) in saes_of_sites(study, chosen).items()}
    if not saes:
        note(_no_features(study, chosen))
    first: PairOptions = {
        "positive": spec.positive,
        "negative": spec.negatives[0] if len(spec.negatives) == 1 else "",
        "pairs": fit_pairs,
        "progress": _half(progress, 0),
        "state": state,
        **of_study(study),
    }
    second: PairOptions = {
        **first,
        "latents": "positive",
        "progress": _half(progress, 1),
        "state": state and state.beside("same-latents"),
    }
    by_token = CAA(time="token")
    methods: list[Method] = [by_token, *([sae_method(saes, ignore_gate)] if saes else [])]
    vector, *of_features = fit(model, spec.concept, chosen, methods, **first)
    (same,) = fit(model, spec.concept, chosen, [by_token], **second)
    features = opened(of_features[0], ignore_gate) if of_features else None
    return ladder(vector, saes, features, others, spec.randoms, spec.seed, same)


def _half(progress: Progress | None, done: int) -> Progress | None:
    """Return what reports the progress of the first (0) or second (1) of two equal halves."""
    if progress is None:
        return None
    return lambda part, total: progress(done * total + part, 2 * total)


def _no_features(study: Study, sites: Sequence[str]) -> str:
    recorded = [site for site in sites if site in study.spec.sites]
    advice = (
        f"train one with `workbench sae train {study.path} --site {recorded[0]}`"
        if recorded
        else f"trace a study that records one of the sites (--site {sites[0]}), and train one there"
    )
    return (
        f"There is no rung of SAE features, because the study has no sparse autoencoder of {' or '.join(sites)}: "
        f"{advice}."
    )


def _spec(
    concept: str, positive: str, negatives: Sequence[str], own: Collection[str], options: dict[str, Any]
) -> SteeringSpec:
    values = {
        "concept": concept,
        "positive": positive,
        "negatives": negatives,
        "without": sorted(own),
        **options,
    }
    return validated(SteeringSpec, values, "Invalid steering")


def _together(towards: Sequence[tuple[str, str]]) -> str:
    return " and ".join(f"{concept} (towards {positive})" for concept, positive in towards)


def _own_prompts(steered: Named) -> set[str]:
    """Return the prompts that directions and sliders were computed from."""
    found: set[str] = set()
    for _, each in steered:
        if isinstance(each, Vector):
            found |= {example.prompt for example in each.examples}
        elif isinstance(each, Slider):
            found |= {prompt for pair in each.training.get("prompts", []) for prompt in pair}
    return found
