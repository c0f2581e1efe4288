"""The base class of distances: which clips are compared, and when there is no distance."""

import hashlib
import logging
from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.audio import check_clips, unscorable
from workbench.provenance import content_hash

Samples = Float[np.ndarray, " sample"]

_log = logging.getLogger(__name__)


class NoDistanceError(Exception):
    """Two clips have no distance; the message says why, such as "its reference has no beats"."""


class ClipDistance(ABC):
    """A distance between the channel means of a clip and of its reference, through features of each.

    There is none, but NaN and an error in the log, if one of them is silent, shorter than `min_seconds` or not finite.
    Every pair is compared alone, so that its distance does not depend on the other clips of the call. The features of
    the last reference are kept, because all strengths of a trial have the same one.
    """

    name: str
    min_seconds: float
    formula = 1
    """Part of the identity; it counts up when a formula changes."""
    libraries: tuple[str, ...] = ()
    """Packages that decide what is found in a clip; their versions are part of the identity, too."""

    def __init__(self, device: str = "cpu", **options: Any) -> None:  # noqa: ARG002 - for those with a network
        self.identity = self.identify(**options)
        self._last: tuple[Any, Any] = None, None

    @classmethod
    def identify(cls) -> str:
        """Return the hash of the distance's name and formula, and of its libraries' versions."""
        return content_hash([cls.name, cls.formula, [version(library) for library in cls.libraries]])

    def compare(
        self,
        audio: Float[np.ndarray, "clip channel sample"],
        reference: Float[np.ndarray, "clip channel sample"],
        sample_rate: int,
    ) -> Float[np.ndarray, " clip"]:
        """Return the distance of clips in [-1, 1] at `sample_rate` Hz, each from its reference.

        Raises:
            UserError: if the audio of either does not have three dimensions, or the two differ in them.
        """
        check_clips(audio)
        check_clips(reference)
        if audio.shape != reference.shape:
            raise UserError(
                "Clips and references must have the same number of clips, channels and samples; got"
                f" {audio.shape} and {reference.shape}."
            )
        distances = np.full(len(audio), np.nan)
        for number, pair in enumerate(zip(audio, reference, strict=True)):
            try:
                distances[number] = self._compare(*pair, sample_rate)
            except NoDistanceError as error:
                _log.error("%s cannot compare clip %d: %s.", self.name, number, error)
        return distances

    def _compare(
        self,
        audio: Float[np.ndarray, "channel sample"],
        reference: Float[np.ndarray, "channel sample"],
        sample_rate: int,
    ) -> float:
        clip, other = (
            self._mono(audio, sample_rate, "it"),
            self._mono(reference, sample_rate, "its reference"),
        )
        content = hashlib.sha256(other.tobytes()).hexdigest(), sample_rate
        if self._last[0] != content:
            self._last = content, self.features(other, sample_rate)
        of_other = self._last[1]
        of_clip = of_other if np.array_equal(clip, other) else self.features(clip, sample_rate)
        distance = self.between(of_clip, of_other)
        if not np.isfinite(distance):
            raise NoDistanceError("its distance is not finite")
        return distance

    def _mono(self, clip: Float[np.ndarray, "channel sample"], sample_rate: int, whose: str) -> Samples:
        mono = clip.mean(axis=0, dtype=np.float64)
        if fault := unscorable(mono[None]):
            raise NoDistanceError(fault.replace("it", whose, 1))
        if len(mono) < self.min_seconds * sample_rate:
            raise NoDistanceError(f"{whose} is shorter than {self.min_seconds:g} s")
        return mono

    @abstractmethod
    def features(self, mono: Samples, sample_rate: int) -> Any:
        """Return what is compared of a mono clip that is neither silent nor too short."""

    @abstractmethod
    def between(self, ours: Any, reference: Any) -> float:
        """Return the distance of a clip's features from those of its reference.

        Raises:
            NoDistanceError: if they have none.
        """
