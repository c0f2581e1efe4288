"""The melody distance: how often the pitch is another one."""

import numpy as np
from jaxtyping import Float

from workbench.scorers.clip_distance import ClipDistance, NoDistanceError, Samples
from workbench.scorers.mir_features import pitches

Pitches = Float[np.ndarray, " frame"]


class MelodyDistance(ClipDistance):
    """1 less the raw pitch accuracy (mir_eval): the share of pitched frames that differ.

    As published with the paper (arXiv:2602.11910): pYIN, which expects one voice, from C2 to C7, and pitches agree if
    less than 50 cents apart. A reference without pitch has no distance. Not symmetric: what is pitched in the clip
    alone does not count.
    """

    name = "melody"
    min_seconds = 0.5
    libraries = ("librosa", "mir_eval")

    def features(self, mono: Samples, sample_rate: int) -> Pitches:
        """Return the pitch of each frame in Hz, 0 where there is none."""
        return pitches(mono, sample_rate)

    def between(self, ours: Pitches, reference: Pitches) -> float:
        """Return the share of frames."""
        import mir_eval

        if not reference.any():
            raise NoDistanceError("its reference has no pitch")
        if not ours.any():
            return 1.0  # mir_eval would say so, too, with a warning
        voicing = [(found > 0).astype(float) for found in (reference, ours)]
        cents = [mir_eval.melody.hz2cents(found) for found in (reference, ours)]
        accuracy = mir_eval.melody.raw_pitch_accuracy(voicing[0], cents[0], voicing[1], cents[1])
        return 1 - float(accuracy)
