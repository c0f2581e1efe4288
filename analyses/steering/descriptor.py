"""Directions of a continuous descriptor of audio, such as brightness, from the activations of generated clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import Ridge

from analyses.steering.caa import check_time
from analyses.steering.clip_stream import Kept, Progress, Taken, stream_clips
from analyses.steering.directions import labelled
from analyses.steering.examples import Example
from analyses.steering.fit_state import FitState, damaged_state
from analyses.steering.probe_direction import probe_direction
from analyses.steering.reliability import GROUPS, REFITS, reliability_of_refits
from analyses.steering.vector import Vector
from cache.errors import UserError
from cache.protocol import Pass
from cache.wording import quoted
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site, parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.models.checks import check_capture
from workbench.scorers.descriptors import Measure, asked_descriptor
from workbench.validation import must_be, validated

DescriptorMethod = Literal["covariance", "ridge", "probe"]
Side = Literal["all", "above", "below"]
OverTime = Literal["constant", "token"]
UNITS: dict[DescriptorMethod, str] = {
    "covariance": "the mean change of activations that comes with one standard deviation of the descriptor",
    "ridge": "the shortest change of activations for which a ridge regression predicts one standard deviation more",
    "probe": "the difference between clips above and below the median, along the weights of a logistic regression",
}
PENALTY = 0.1
FEWEST_CLIPS = 3


@dataclass(frozen=True, eq=False)
class MeasuredClips:
    """Clips with the value of a descriptor, and their activations; made by `measured_clips`.

    For each site, `outputs` has dims (clip, pass, step, channel), the means over tokens, or (clip, pass, step, token,
    channel).
    """

    model: AudioDiffusionModel
    settings: GenerationSettings
    descriptor: str
    clips: tuple[Clip, ...]
    values: Float[np.ndarray, " clip"]
    outputs: dict[str, Float[np.ndarray, "clip pass step *_kept"]]
    passes: tuple[Pass, ...]

    def vector(self, method: DescriptorMethod = "covariance", side: Side = "all") -> Vector:
        """Return the direction in which the descriptor rises, at each site, pass, step and token; see `descriptor`.

        Raises:
            UserError: if there is no such method or side, too few clips, or the descriptor is the same in all.
        """
        how = validated(_How, {"method": method, "side": side}, "Invalid vector")
        chosen = self._chosen(how.side)
        values = self.values[chosen]
        outputs = {site: array[chosen] for site, array in self.outputs.items()}
        n_groups = min(len(values), GROUPS)

        def directions(groups: Bool[np.ndarray, " group"]) -> dict[str, np.ndarray]:
            clips = groups[np.arange(len(values)) % n_groups]
            return {
                site: _directions(array[clips], values[clips], how.method) for site, array in outputs.items()
            }

        sigmas = self.model.sigmas(self.settings)
        found = directions(np.ones(n_groups, dtype=bool))
        draws = REFITS if how.method == "covariance" else 0
        return Vector(
            method=f"descriptor_{how.method}",
            concept=self.descriptor,
            positive="high",
            negative="low",
            directions={site: labelled(array, site, self.passes, sigmas) for site, array in found.items()},
            unit=UNITS[how.method],
            model=self.model.describe(),
            settings=self.settings,
            sampling=self.model.sampling(self.settings),
            examples=tuple(
                Example(prompt=clip.prompt, lyrics=clip.lyrics, seed=clip.seed, value=value, pair=None)
                for clip, value in zip([self.clips[place] for place in chosen], values.tolist(), strict=True)
            ),
            reliability=reliability_of_refits(directions, n_groups, self.passes, len(values), draws),
        )

    def _chosen(self, side: Side) -> Int[np.ndarray, " some_clip"]:
        """Return the clips on a side of the median; raise UserError for too few, or if they are all the same."""
        median = np.median(self.values)
        on_side = {
            "all": self.values >= -np.inf,
            "above": self.values >= median,
            "below": self.values <= median,
        }
        chosen = np.flatnonzero(on_side[side])
        _check_number(len(chosen))
        if np.ptp(self.values[chosen]) == 0:
            raise UserError(
                f"{self.descriptor} is {self.values[chosen][0]:g} in all {len(chosen)} clips. Give clips that differ "
                "in it."
            )
        return chosen


@dataclass(frozen=True)
class _How:
    method: DescriptorMethod
    side: Side


@dataclass(frozen=True)
class _OverTime:
    time: OverTime


def descriptor(
    model: AudioDiffusionModel,
    descriptor: str | Measure,
    sites: str | Sequence[str],
    clips: Sequence[Clip],
    *,
    method: DescriptorMethod = "covariance",
    side: Side = "all",
    time: OverTime = "constant",
    passes: Sequence[Pass] = ("cond",),
    settings: GenerationSettings | None = None,
    progress: Progress | None = None,
    state: FitState | None = None,
) -> Vector:
    """Compute the direction in which a descriptor of the audio rises, at each site, pass and step.

    With x a site's output, y the descriptor, and s its standard deviation over clips:

    - `covariance`: s · Cov(x, y) / Var(y), what changes with y on average.
    - `ridge`: s · w / |w|², with the weights w of a ridge regression of y on x (its penalty is `PENALTY` times the
      largest eigenvalue of Σ (x − x̄)(x − x̄)ᵀ).
    - `probe`: w (w·Δ) / |w|², with the weights w of the probe (see `analyses.probes`) that tells clips above the
      median from the others, and their mean difference Δ.

    x is the mean over tokens, so that the direction is constant in time; or the output at each token, which then has a
    direction of its own. Only the latter can carry rhythm, such as that of drums, which are bright.

    A strength of 1 adds what comes with one standard deviation of y. Between clips with a low and with a high y there
    are two or more, and a single site gives only a part of the change: useful strengths are from 2 to 6.

    A descriptor's two ends need not lie on one line: `side` computes the direction from the clips `above` or `below`
    the median only, which include the median itself. Use the first with positive strengths, the second with negative
    ones.

    Args:
        model: the model.
        descriptor: one of `workbench.scorers.descriptors`, such as brightness, or a function of mono
            samples and their sample rate in Hz.
        sites: sites of the directions.
        clips: clips to generate and measure; the more they differ in the descriptor and in nothing else, the better.
        method: covariance, ridge or probe.
        side: all, above or below.
        time: constant, or a direction for each token.
        passes: passes that get directions.
        settings: generation settings.
        progress: called as `progress(done, total)` with numbers of clips.
        state: keeps the state of the fit, so that it continues after an interruption (see `fit_state`).

    Raises:
        UserError: if a descriptor, site, pass, method or side is unknown, a clip has no value, there are too few clips,
            or the descriptor is the same in all; or for directions by token at a site without latent time.
    """
    how = validated(_How, {"method": method, "side": side}, "Invalid vector")
    measured = measured_clips(
        model,
        descriptor,
        sites,
        clips,
        time=time,
        passes=passes,
        settings=settings,
        progress=progress,
        state=state,
    )
    return measured.vector(how.method, how.side)


def measured_clips(
    model: AudioDiffusionModel,
    descriptor: str | Measure,
    sites: str | Sequence[str],
    clips: Sequence[Clip],
    *,
    time: OverTime = "constant",
    passes: Sequence[Pass] = ("cond",),
    settings: GenerationSettings | None = None,
    progress: Progress | None = None,
    state: FitState | None = None,
) -> MeasuredClips:
    """Generate clips, measure a descriptor of their audio, and keep the sites' outputs or their means over tokens.

    `MeasuredClips.vector` computes directions from them, with several methods if desired. Arguments and errors are
    those of `descriptor`. All outputs by token are held in memory, in float64.
    """
    must_be(AudioDiffusionModel, model, "A vector is made with a model, such as wb.load('organism-shared')")
    must_be(Sequence, clips, "Clips must be a list, such as wb.clips(['a fast song', 'a slow song'])")
    for clip in clips:
        must_be(Clip, clip, "Clips must be such as those of wb.clips(['a fast song', 'a slow song'])")
    _check_number(len(clips))
    name, measure = asked_descriptor(descriptor)
    settings = settings_or_default(settings)
    capture = Capture(
        parse_sites(sites, model.n_blocks, model.block_names), tuple(range(settings.num_steps)), tuple(passes)
    )
    check_capture(model, capture, settings)
    by_token = validated(_OverTime, {"time": time}, "Invalid vector").time == "token"
    for site in capture.sites if by_token else ():
        check_time("token", site, model.tokens_at(site, settings.duration))
    if state is not None and callable(descriptor):
        raise UserError(
            "The state of a fit is kept for a descriptor that is given by its name. Leave it out."
        )
    taken = _Values(capture, by_token)

    def hear(audio: Float[np.ndarray, "clip channel sample"]) -> None:
        for samples in audio:
            clip = clips[len(taken.values)]
            taken.values.append(_measured(measure, name, samples, model.sample_rate, clip))

    kept = Kept(state, {"descriptor": name, "by_token": by_token}, taken) if state is not None else None
    stream_clips(model, clips, settings, capture, taken.add, hear, progress, kept)
    values = np.array(taken.values)
    return MeasuredClips(model, settings, name, tuple(clips), values, taken.outputs, tuple(passes))


class _Values(Taken):
    """The values of clips, and the outputs of their sites or their means over tokens."""

    def __init__(self, capture: Capture, by_token: bool) -> None:
        self.values: list[float] = []
        self._capture = capture
        self._by_token = by_token
        self._outputs: dict[str, list[np.ndarray]] = {}

    def add(self, first: int, site: Site, step: int, outputs: torch.Tensor) -> None:
        """Take the outputs of clips, from number `first` on."""
        kept = (outputs if self._by_token else outputs.mean(dim=2)).cpu().numpy()
        batches = self._outputs.setdefault(f"{site}.{step}", [])
        alike = all(batch.shape[1:] == kept.shape[1:] and batch.dtype == kept.dtype for batch in batches)
        if not alike or sum(map(len, batches)) != first or len(self.values) != first:
            raise damaged_state()
        batches.append(kept)

    @property
    def outputs(self) -> dict[str, Float[np.ndarray, "clip pass step *token _channel"]]:
        """The outputs by site."""
        arrays, steps = self.state, self._capture.steps
        return {
            str(site): np.stack([arrays[f"{site}.{step}"] for step in steps], axis=2)
            for site in self._capture.sites
        }

    @property
    def names(self) -> list[str]:
        """Names of the arrays of `state`."""
        return ["values", *(f"{site}.{step}" for site in self._capture.sites for step in self._capture.steps)]

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The values, and the outputs by site and step."""
        outputs = {name: np.concatenate(batches) for name, batches in self._outputs.items()}
        return {"values": np.array(self.values), **outputs}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from these values and outputs."""
        self.values = state["values"].ravel().tolist()
        self._outputs = {name: [array] for name, array in state.items() if name != "values"}


def _check_number(n_clips: int) -> None:
    if n_clips < FEWEST_CLIPS:
        raise UserError(
            f"A direction needs at least {FEWEST_CLIPS} clips, on one side of the median, too; there are {n_clips}. "
            "Give more clips."
        )


def _measured(
    measure: Measure, name: str, samples: Float[np.ndarray, "channel sample"], sample_rate: int, clip: Clip
) -> float:
    value = float(measure(samples.mean(axis=0), sample_rate))
    if not np.isfinite(value):
        raise UserError(
            f"The clip {quoted(clip.prompt)} (seed {clip.seed}) has no {name}; it may be silent. Leave it out."
        )
    return value


def _directions(
    outputs: Float[np.ndarray, "clip pass step *token channel"],
    values: Float[np.ndarray, " clip"],
    method: DescriptorMethod,
) -> Float[np.ndarray, "pass step *token channel"]:
    """Return the directions of some clips; zero if their values are all the same."""
    found = np.zeros(outputs.shape[1:])
    if np.ptp(values) == 0:
        return found
    x, y = outputs - outputs.mean(axis=0), values - values.mean()
    if method == "covariance":
        return y.std() * np.tensordot(y, x, axes=1) / (y @ y)
    for cell in np.ndindex(outputs.shape[1:-1]):
        found[cell] = _direction(x[(slice(None), *cell)], y, method)
    return found


def _direction(
    x: Float[np.ndarray, "clip channel"], y: Float[np.ndarray, " clip"], method: Literal["ridge", "probe"]
) -> Float[np.ndarray, " channel"]:
    """Return the direction of a model that predicts y from x, both centred."""
    if method == "probe":
        return probe_direction(x, y > np.median(y))
    largest = np.linalg.norm(x, ord=2) ** 2
    weights = (
        Ridge(alpha=PENALTY * largest, fit_intercept=False).fit(x, y).coef_
        if largest
        else np.zeros(x.shape[1])
    )
    length = float(weights @ weights)
    return float(y.std()) * weights / length if length else weights
