"""Distances, which measure how far a clip is from another one."""

from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cache.errors import UserError

# Named, not imported, and with a class method `identify`, as `workbench.scorers.SCORERS`.
DISTANCES = {
    "log-mel": ("workbench.scorers.log_mel_distance", "LogMelDistance"),
    "mr-stft": ("workbench.scorers.stft_distance", "StftDistance"),
    "harmony": ("workbench.scorers.harmony_distance", "HarmonyDistance"),
    "self-similarity": ("workbench.scorers.self_similarity_distance", "SelfSimilarityDistance"),
    "rhythm": ("workbench.scorers.rhythm_distance", "RhythmDistance"),
    "melody": ("workbench.scorers.melody_distance", "MelodyDistance"),
    "lpaps": ("workbench.scorers.lpaps", "LpapsDistance"),
}


@runtime_checkable
class Distance(Protocol):
    """A distance between two clips: 0 for a clip from itself, larger the less they are alike.

    `identity` is a hash of everything that determines a distance except the audio, such as weights. A clip shorter
    than `min_seconds` has no distance.
    """

    name: str
    identity: str
    min_seconds: float

    def compare(
        self,
        audio: Float[np.ndarray, "clip channel sample"],
        reference: Float[np.ndarray, "clip channel sample"],
        sample_rate: int,
    ) -> Float[np.ndarray, " clip"]:
        """Compare clips of audio in [-1, 1] at `sample_rate` Hz, each with its reference; NaN where it failed."""
        ...


def load_distance(name: str, device: str = "cpu", **options: Any) -> Distance:
    """Load the distance `name`, one of `DISTANCES`.

    `device` is a torch device, for distances with a network; `options` are passed to the distance's constructor.

    Raises:
        UserError: if the name is unknown, or the distance's weights or packages are missing.
    """
    return _distance_class(name)(device=device, **options)


def distance_identity(name: str) -> str:
    """Return the `identity` of the distance `name` with its defaults; raise as `load_distance` does."""
    return str(_distance_class(name).identify())


def _distance_class(name: str) -> Any:
    if name not in DISTANCES:
        raise UserError(f"Unknown distance {name!r}. Distances: {', '.join(map(repr, DISTANCES))}.")
    module, distance = DISTANCES[name]
    return getattr(import_module(module), distance)
