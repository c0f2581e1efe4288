"""Read recordings of a study, which may be untrusted."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cache.opening import checked_path
from workbench.audio import LONGEST_SECONDS, read_audio


def read_recording(root: Path, name: str, duration: float) -> tuple[Float[np.ndarray, "channel sample"], int]:
    """Read a recording of the study in the folder `root`, given its relative path, with `workbench.audio.read_audio`.

    Raises:
        UserError: if it is missing, damaged, outside the study, or longer than clips of `duration` seconds.
    """
    longest = min(2 * duration + 1, LONGEST_SECONDS)  # models round up to whole frames
    with suppress(FileNotFoundError):  # `read_audio` raises a clear error
        checked_path(root, name)
    made_by = "`workbench trace`" if name.startswith("audio/clips/") else "the command that needs it"
    return read_audio(root / name, root, longest, f"run {made_by} again with the same options")
