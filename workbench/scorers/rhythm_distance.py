"""The rhythm distance: how many beats fall elsewhere."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, NoDistanceError, Samples
from workbench.scorers.mir_features import beat_times

Beats = Float[np.ndarray, " beat"]


class RhythmDistance(ClipDistance):
    """1 less the F-measure of both clips' beats, which agree if less than 70 ms apart (mir_eval); symmetric.

    As published with the paper (arXiv:2602.11910). It hears when beats fall, not how fast they follow: a shift by half
    a beat is as far as another tempo. Where no beats are found, there is no distance.
    """

    name = "rhythm"
    min_seconds = 2.0
    libraries = ("librosa", "mir_eval")

    def features(self, mono: Samples, sample_rate: int) -> Beats:
        """Return the times of beats in seconds."""
        return beat_times(mono, sample_rate)

    def between(self, ours: Beats, reference: Float[np.ndarray, " reference_beat"]) -> float:
        """Return the distance of beats."""
        import mir_eval

        for beats, whose in ((ours, "it"), (reference, "its reference")):
            if not len(beats):
                raise NoDistanceError(f"{whose} has no beats")
        return 1 - float(mir_eval.beat.f_measure(reference, ours))
