"""What a vector does to a descriptor of the audio: a dose–response with intervals, and random vectors as its null."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.statistics import bootstrap_interval
from analyses.steering.clip_stream import Progress
from analyses.steering.nulls import random_vectors
from analyses.steering.vector import Vector
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.models.base import AudioDiffusionModel
from workbench.scorers.descriptors import Measure, asked_descriptor

RUNS_PER_BATCH = 16
TAIL = 0.025


def descriptor_effects(
    model: AudioDiffusionModel,
    vector: Vector,
    clips: Sequence[Clip],
    strengths: Sequence[float] = (-2.0, -1.0, 1.0, 2.0),
    *,
    descriptor: str | Measure | None = None,
    randoms: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
    **how: Any,
) -> xr.Dataset:
    """Steer clips at several strengths, and measure how a descriptor of their audio changes.

    Clips whose prompts the vector was computed from tell nothing about others.

    Args:
        model: the model.
        vector: the vector, steered with its own settings.
        clips: clips to steer.
        strengths: strengths, without 0, which is the unsteered clip.
        descriptor: the descriptor (see `analyses.steering.descriptor`), by default the vector's concept.
        randoms: number of random vectors of the same norms, which are steered at every strength, too; 0 for none.
        seed: seed of the random vectors.
        progress: called as `progress(done, total)` with numbers of steered clips.
        how: options of `Vector.at`.

    Returns:
        `unsteered` (clip) and `change` (strength, clip) in the descriptor's unit, NaN for clips without a value;
        `effect`, `effect_lo` and `effect_hi` (strength), the mean change with its 95 % BCa bootstrap interval over
        clips; `random_effect` (random, strength), the mean change of each random vector; `null_lo` and `null_hi`
        (strength), the central 95 % of these.

    Raises:
        UserError: if the descriptor is unknown, or as `Vector.at` and `generate_batch`.
    """
    _, measure = asked_descriptor(descriptor or vector.concept)
    drawn = random_vectors(vector, randoms, seed) if randoms else []
    arms = [each.at(strength, **how) for each in (vector, *drawn) for strength in strengths]
    runs = [Run(clip, edits) for clip in clips for edits in ((), *arms)]
    values = _values(model, vector, runs, measure, progress).reshape(len(clips), 1 + len(arms)).T
    change = (values[1:] - values[0]).reshape(1 + len(drawn), len(strengths), len(clips))
    random_effect = np.nanmean(change[1:], axis=-1)
    intervals = [bootstrap_interval(np.mean, (row[~np.isnan(row)],)) for row in change[0]]
    found = {
        "unsteered": ("clip", values[0]),
        "change": (("strength", "clip"), change[0]),
        "effect": ("strength", np.nanmean(change[0], axis=-1)),
        "effect_lo": ("strength", [low for low, _ in intervals]),
        "effect_hi": ("strength", [high for _, high in intervals]),
        "random_effect": (("random", "strength"), random_effect),
    }
    if drawn:
        band = np.quantile(random_effect, (TAIL, 1 - TAIL), axis=0)
        found |= {"null_lo": ("strength", band[0]), "null_hi": ("strength", band[1])}
    prompts = {"prompt": ("clip", [clip.prompt for clip in clips])}
    return xr.Dataset(found, {"strength": list(strengths), **prompts})


def _values(
    model: AudioDiffusionModel,
    vector: Vector,
    runs: Sequence[Run],
    measure: Measure,
    progress: Progress | None,
) -> Float[np.ndarray, " run"]:
    """Return the descriptor of each run's audio, NaN where it has none."""
    values: list[float] = []
    for first in range(0, len(runs), RUNS_PER_BATCH):
        latents = model.generate_batch(runs[first : first + RUNS_PER_BATCH], vector.settings).latents
        audio = model.decode(latents, vector.settings.duration).float().cpu().numpy()
        values += [float(measure(samples.mean(axis=0), model.sample_rate)) for samples in audio]
        if progress is not None:
            progress(len(values), len(runs))
    return np.array(values)
