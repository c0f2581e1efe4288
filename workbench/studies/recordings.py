"""Recordings of a study, which may have come from elsewhere."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cache.opening import checked_path
from workbench.audio import LONGEST_SECONDS, read_audio


def read_recording(root: Path, name: str, duration: float) -> tuple[Float[np.ndarray, "channel sample"], int]:
    """A recording of the study in the folder `root` by its path in it, as `workbench.audio.read_audio` reads it.

    Raises:
        UserError: for one that is missing, damaged, no file of the study's, or longer than clips of `duration` seconds.
    """
    longest = min(2 * duration + 1, LONGEST_SECONDS)  # models round up to whole frames
    with suppress(FileNotFoundError):  # which `read_audio` says in a sentence
        checked_path(root, name)
    return read_audio(root / name, root, longest)
