"""Distances between recordings of a run store, kept there like scores."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from workbench.audio import unscorable
from workbench.engine.edits import Run
from workbench.scorers import score_key
from workbench.scorers.distances import Distance
from workbench.studies.judging import judge
from workbench.studies.recordings import read_recording
from workbench.studies.runs import RunRecord, RunStore


class DistanceFrom:
    """A distance from one recording as a scorer, whose only text is the hash of the recording's file."""

    def __init__(self, distance: Distance, reference: Float[np.ndarray, "channel sample"]) -> None:
        self.name, self.identity, self.min_seconds = distance.name, distance.identity, distance.min_seconds
        self._compare, self._reference = distance.compare, reference

    def check_texts(self, texts: Sequence[str]) -> None:
        """Accept every text: it names the reference."""

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the distance of each clip from the reference."""
        references = np.broadcast_to(self._reference, audio.shape)
        distances = self._compare(audio, references, sample_rate)
        return np.repeat(distances[:, None], len(texts), axis=1)


def measure(store: RunStore, runs: Sequence[Run], reference: Run, distance: Distance) -> None:
    """Measure how far each run is from the reference, unless that is known; NaN if one of the two has no sound.

    Raises:
        UserError: if a recording is missing, damaged, or not the one generated for its run.
    """
    (record,) = store.records([reference])
    if record is None or not record.audio:
        return
    if all(distance_key(distance, record) in found.scores for found in store.records(runs) if found):
        return
    clip, _ = read_recording(store.root, record.audio, store.settings.duration)
    store.check(record)
    if not unscorable(clip):
        judge(store, runs, DistanceFrom(distance, clip), [record.sha256])


def distance_key(distance: Distance, reference: RunRecord) -> str:
    """Return the key of a distance from a recording in the scores of a run."""
    return score_key(distance.name, distance.identity, reference.sha256)


def measured(
    store: RunStore, runs: Sequence[Run], reference: Run, distances: Sequence[Distance]
) -> Float[np.ndarray, "run distance"]:
    """Return the distances of each run from the reference as measured; NaN where there is none."""
    (record,) = store.records([reference])
    found = [
        [
            each.scores.get(distance_key(distance, record)) if record and each else None
            for distance in distances
        ]
        for each in store.records(runs)
    ]
    return np.array(found, dtype=np.float64).reshape(len(runs), len(distances))
