"""Generate counterfactual pairs once, and fit any number of methods to their activations."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Protocol, TypedDict, Unpack, cast, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Real
from pydantic import BaseModel, ConfigDict, Field

from analyses.steering.clip_stream import Kept, Progress, Taken, stream_clips
from analyses.steering.directions import labelled
from analyses.steering.examples import Example, pair_examples
from analyses.steering.fit_state import FitState, damaged_state
from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.reliability import GROUPS
from analyses.steering.vector import Vector
from analyses.steering.vector_content import Latents
from cache.protocol import Pass
from workbench.engine.edits import Run
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.models.checks import check_capture
from workbench.prompts.prompt_sets import Pair, PromptSet, asked_prompt_set
from workbench.seeds import Seed, consecutive_seeds
from workbench.validation import MadeByUsers, must_be, validated


class PairOptions(TypedDict, total=False):
    """Which pairs a direction is computed from, and how they are generated; see `capture_of_pairs`."""

    positive: str
    negative: str
    prompts: str | PromptSet
    held_out: Collection[str]
    pairs: int
    seed: int
    passes: Sequence[Pass]
    settings: GenerationSettings | None
    lyrics: str
    latents: Latents
    progress: Progress | None
    state: FitState | None


@dataclass(frozen=True)
class PairValues:
    """The outputs of a site at a step for the clean and corrupt prompts of consecutive pairs, from `first` on."""

    site: Site
    step: int
    first: int
    clean: Float[torch.Tensor, "pair pass token channel"]
    corrupt: Float[torch.Tensor, "pair pass token channel"]


@runtime_checkable
class Fit(Protocol):
    """A method at work: it takes the outputs of the pairs in batches, and then gives its vector."""

    @property
    def sums(self) -> "Sequence[GroupSums]":
        """Everything that it has taken."""
        ...

    def add(self, values: PairValues) -> None:
        """Take the outputs of some pairs at one site and step."""
        ...

    def vector(self) -> Vector:
        """Return the vector of all pairs."""
        ...


class Method(BaseModel, ABC, metaclass=MadeByUsers):
    """A method that computes directions from pairs, with its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines what it makes of the pairs, as JSON."""
        return {"method": type(self).__name__, **self.model_dump(mode="json")}

    @abstractmethod
    def start(self, captured: "PairCapture") -> Fit:
        """Start a fit; raise UserError if the parameters do not suit the sites."""


@dataclass(frozen=True)
class PairCapture:
    """Pairs towards the positive value of a concept, and what is captured of their runs.

    The runs of a pair share their noise; each pair has a different seed, from `seed` on. With `latents` "positive" or
    "negative" they share the latents of every step, too: the other run follows the one with this value.
    """

    model: AudioDiffusionModel
    concept: str
    positive: str
    negatives: tuple[str, ...]
    pairs: tuple[Pair, ...]
    seed: int
    capture: Capture
    settings: GenerationSettings
    lyrics: str = ""
    latents: Latents = "own"
    progress: Progress | None = None
    state: FitState | None = None

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The clips of each pair, the clean one first."""
        return pair_examples(self.pairs, consecutive_seeds(self.seed, self.n_pairs).tolist(), self.lyrics)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The captured passes."""
        return cast(tuple[Pass, ...], self.capture.passes)

    @property
    def n_groups(self) -> int:
        """Number of groups of pairs that are kept apart, for their reliability."""
        return min(self.n_pairs, GROUPS)

    @property
    def group_sizes(self) -> Float[np.ndarray, " group"]:
        """Number of pairs in each group."""
        groups = np.arange(self.n_pairs) % self.n_groups
        return np.bincount(groups).astype(float)

    @property
    def runs(self) -> list[Run]:
        """The runs of each pair, the clean one first."""
        clips = [Run(Clip(example.prompt, example.seed, example.lyrics)) for example in self.examples]
        pairs = list(zip(clips[::2], clips[1::2], strict=True))
        if self.latents == "positive":
            pairs = [(clean, replace(corrupt, follows=clean)) for clean, corrupt in pairs]
        if self.latents == "negative":
            pairs = [(replace(clean, follows=corrupt), corrupt) for clean, corrupt in pairs]
        return [run for pair in pairs for run in pair]

    def stream(self, methods: Sequence["Method"], fits: Sequence[Fit]) -> None:
        """Generate the pairs in batches, and pass the outputs of every site and step to all fits, in float64.

        The fits are those of the methods. If there is a state of such fits, it is restored, and its clips are left out.
        """

        def pass_on(
            first: int, site: Site, step: int, outputs: Float[torch.Tensor, "clip pass token channel"]
        ) -> None:
            given = PairValues(site, step, first // 2, outputs[::2], outputs[1::2])
            for fit in fits:
                fit.add(given)

        kept = None
        if self.state is not None:
            kept = Kept(self.state, {"methods": [method.identity for method in methods]}, _Together(fits))
        stream_clips(
            self.model, self.runs, self.settings, self.capture, pass_on, progress=self.progress, kept=kept
        )

    def vector(
        self,
        method: str,
        unit: str,
        directions: Mapping[str, Float[np.ndarray, "pass step *token channel"]],
        reliability: xr.Dataset,
        cycle: bool = False,
    ) -> Vector:
        """Return the vector with these directions by site; `unit` says what a strength of 1 adds."""
        sigmas = self.model.sigmas(self.settings)
        return Vector(
            method=method,
            concept=self.concept,
            positive=self.positive,
            negative=" or ".join(self.negatives),
            directions={
                site: labelled(values, site, self.passes, sigmas) for site, values in directions.items()
            },
            unit=unit,
            model=self.model.describe(),
            settings=self.settings,
            sampling=self.model.sampling(self.settings),
            examples=self.examples,
            reliability=reliability,
            latents=self.latents,
            cycle=cycle,
        )


class _Together(Taken):
    """The sums of all fits."""

    def __init__(self, fits: Sequence[Fit]) -> None:
        self._parts = {
            f"{number}.": sums for number, sums in enumerate(sums for fit in fits for sums in fit.sums)
        }

    @property
    def names(self) -> list[str]:
        return [prefix + name for prefix, part in self._parts.items() for name in part.names]

    @property
    def state(self) -> dict[str, np.ndarray]:
        return {
            prefix + name: array for prefix, part in self._parts.items() for name, array in part.state.items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        for prefix, part in self._parts.items():
            part.restore({name: state[prefix + name] for name in part.names})


class GroupSums:
    """Sums over the pairs of each group, by site and step.

    Pair p is in group p modulo the number of groups, which is by default that of the capture.
    """

    def __init__(self, captured: PairCapture, n_groups: int | None = None) -> None:
        self._n_groups = captured.n_groups if n_groups is None else n_groups
        self._capture = captured.capture
        self._sums: dict[str, dict[int, np.ndarray]] = {}

    def add(self, values: PairValues, each: Real[torch.Tensor, "pair pass *kept"]) -> None:
        """Add a number for each pair, computed from `values`, to the sums of the pairs' groups."""
        steps = self._sums.setdefault(str(values.site), {})
        shape = (self._n_groups, *each.shape[1:])
        if values.step not in steps:
            steps[values.step] = np.zeros(shape)
        sums = steps[values.step]
        if sums.shape != shape or sums.dtype != np.float64:
            raise damaged_state()
        for pair, of_pair in enumerate(each.cpu().numpy(), values.first):
            sums[pair % self._n_groups] += of_pair

    @property
    def arrays(self) -> dict[str, Float[np.ndarray, "group pass step *kept"]]:
        """The sums of each site."""
        return {
            site: np.stack([steps[step] for step in self._capture.steps], axis=2)
            for site, steps in self._sums.items()
        }

    @property
    def names(self) -> list[str]:
        """Names of the arrays of `state`."""
        return [f"{site}.{step}" for site in self._capture.sites for step in self._capture.steps]

    @property
    def state(self) -> dict[str, Float[np.ndarray, "group pass *kept"]]:
        """The sums so far, by site and step."""
        return {f"{site}.{step}": sums for site, steps in self._sums.items() for step, sums in steps.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from these sums."""
        self._sums = {
            str(site): {step: state[f"{site}.{step}"] for step in self._capture.steps}
            for site in self._capture.sites
        }


def fit(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    methods: Sequence[Method],
    **options: Unpack[PairOptions],
) -> list[Vector]:
    """Fit several methods to the same pairs, which are generated once; return a vector for each.

    `options` are those of `capture_of_pairs`.

    Raises:
        UserError: as `capture_of_pairs`; or for anything that is not a method, or whose parameters do not suit the
            sites.
    """
    check_methods(methods)
    return fit_to(capture_of_pairs(model, concept, sites, **options), methods)


def fit_to(captured: PairCapture, methods: Sequence[Method]) -> list[Vector]:
    """Generate the pairs, and fit several methods to them; return a vector for each."""
    fits = [method.start(captured) for method in methods]
    captured.stream(methods, fits)
    return [each.vector() for each in fits]


def check_methods(methods: Any) -> None:
    """Raise UserError for anything that is not a list of methods."""
    must_be(Sequence, methods, "Methods must be a list, such as [CAA(), AUSteer(k=64)]")
    for method in methods:
        must_be(Method, method, "A method must be one such as CAA() or AUSteer(k=64)")


def capture_of_pairs(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str],
    *,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    held_out: Collection[str] = (),
    pairs: int = 16,
    seed: int = 0,
    passes: Sequence[Pass] = ("cond",),
    settings: GenerationSettings | None = None,
    lyrics: str = "",
    latents: Latents = "own",
    progress: Progress | None = None,
    state: FitState | None = None,
) -> PairCapture:
    """Draw the pairs of a concept from which a direction is computed; nothing is generated yet.

    Args:
        model: the model.
        concept: one of the prompt set's.
        sites: sites of the directions.
        positive: value that the directions point towards; by default the concept's first.
        negative: value that they point away from; by default all others.
        prompts: prompt set, or its name or file.
        held_out: prompts that are in none of the pairs.
        pairs: number of pairs, which differ only in the concept.
        seed: draws the pairs, and is the seed of the first pair's noise.
        passes: passes that get directions.
        settings: generation settings.
        lyrics: lyrics of all clips.
        latents: the latents at which the two prompts of a pair are compared: each its `own` run's, as published, or for
            both those of the `positive` or of the `negative` run.
        progress: called as `progress(done, total)` with numbers of clips, while the pairs are generated.
        state: keeps the state of the fit, so that it continues after an interruption (see `fit_state`).

    Raises:
        UserError: if a concept, value, site, pass or prompt set is unknown, or there are fewer pairs.
    """
    must_be(AudioDiffusionModel, model, "A vector is made with a model, such as wb.load('organism-shared')")
    settings = settings_or_default(settings)
    drawn = validated(
        _Drawn,
        {"pairs": pairs, "seed": seed, "passes": passes, "lyrics": lyrics, "latents": latents},
        "Invalid vector",
    )
    prompt_set = asked_prompt_set(prompts)
    positive, negatives = ends(prompt_set, concept, positive, negative)
    chosen = pairs_towards(
        prompt_set, concept, positive, negatives, drawn.pairs, drawn.seed, held_out=held_out
    )
    kept = parse_sites(sites, model.n_blocks, model.block_names)
    capture = Capture(kept, tuple(range(settings.num_steps)), tuple(drawn.passes))
    check_capture(model, capture, settings)
    return PairCapture(
        model,
        concept,
        positive,
        tuple(negatives),
        tuple(chosen),
        drawn.seed,
        capture,
        settings,
        drawn.lyrics,
        drawn.latents,
        progress,
        state,
    )


@dataclass(frozen=True)
class _Drawn:
    """Number of pairs, the seed with which they are drawn, their lyrics and latents, and the captured passes."""

    pairs: int
    seed: Seed
    lyrics: str
    latents: Latents
    passes: Annotated[tuple[Pass, ...], Field(min_length=1)]
