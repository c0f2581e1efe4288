"""The state of a fit, kept in a study so that the same command continues a fit that was interrupted."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from analyses.steering.study_files import PACKS
from cache.errors import UserError
from cache.opening import UnsafeFile, remove_folder
from workbench.files import file_name, remove_partials
from workbench.provenance import code_version, content_hash
from workbench.studies.study import Study
from workbench.tensor_files import is_whole, load_tensors, sealed, write_tensors

VERSION = 1
SHARE = 0.05
"""Part of the time that writing may take: states that take longer to write are written less often."""
MAX_BYTES = 4 * 2**30
"""Larger states are not kept, because writing one takes as much memory again."""
_FOLDERS = {"vector": PACKS, "ladder": "results"}
"""Folders of a study in which the states of these are kept, beside what they lead to."""
_FILE, _HEADER, _CLIPS = "state.safetensors", "steering_fit", "clips"


class FitState:
    """The state of a fit, in a folder of its own below `root`, which no other process may use at the same time.

    It is a safetensors file with the sums over the clips that were generated. What determines them is in a hash beside
    them: a state of another fit, or a damaged one, is not used, and `note` is called with a sentence that says so.
    """

    def __init__(self, root: Path, folder: Path, note: Callable[[str], None]) -> None:
        self.file = folder / _FILE
        self._root = root
        self._note = note
        self._is_kept = True
        self._written, self._cost = -np.inf, 0.0

    def beside(self, name: str) -> "FitState":
        """Return the state of another fit for the same thing, which is removed with this one."""
        return FitState(self._root, self.file.parent / name, self._note)

    def load(
        self, identity: Mapping[str, Any], names: Collection[str], known: Collection[int]
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Return the number of clips whose sums are kept, one of those known, and the sums, which have these names.

        It is 0, without sums, if there is no state of the fit with this identity.

        Raises:
            cache.opening.UnsafeFile: if the path of the file contains a link.
        """
        try:
            arrays, texts = load_tensors(self._root, self.file.relative_to(self._root), MAX_BYTES)
        except FileNotFoundError:
            return 0, {}
        except UnsafeFile:
            raise
        except (UserError, OSError):
            arrays, texts = {}, {}
        clips = texts.get(_CLIPS, "")
        is_own = texts.get(_HEADER) == _hashed(identity) and is_whole(texts, arrays)
        if not (is_own and clips in map(str, known) and arrays.keys() == set(names)):
            self._note(f"{self.file} is the state of another fit, or damaged. The fit starts anew.")
            return 0, {}
        return int(clips), arrays

    def save(self, identity: Mapping[str, Any], clips: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the sums over so many clips, whole or not at all, unless it would take too much of the time."""
        started = time.monotonic()
        if not self._is_kept or started - self._written < self._cost / SHARE:
            return
        try:
            if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
                raise UserError("its state is too large to be kept.")
            texts = sealed({_HEADER: _hashed(identity), _CLIPS: str(clips)}, arrays)
            write_tensors(self.file, arrays, texts, self._root)
        except UserError as error:
            self._is_kept = False
            self._note(f"If this fit is interrupted, it cannot be continued: {error}")
        self._written = time.monotonic()
        self._cost = self._written - started

    def remove(self) -> None:
        """Remove the state and its folder, if they are there."""
        remove_folder(self._root, self.file.parent.relative_to(self._root))


@contextmanager
def fit_state(
    study: Study, kind: Literal["vector", "ladder"], name: str, note: Callable[[str], None]
) -> Iterator[FitState]:
    """Keep the state of a fit for something of a study until it is complete, at the end of the block.

    Raises:
        UserError: if another process makes the same, or a folder or file of the state is a link.
    """
    folder = study.path / _FOLDERS[kind] / f"{file_name(name)}.fit"
    with study.making(name, kind, can_be_named=kind == "vector"):
        remove_partials(study.path, folder)
        state = FitState(study.path, folder, note)
        yield state
        state.remove()


def damaged_state() -> UserError:
    """Return the error for a state that no fit writes, though its hashes are right."""
    return UserError(
        "The state of this fit is damaged. Remove its folder, which ends in .fit, from the study."
    )


def _hashed(identity: Mapping[str, Any]) -> str:
    return content_hash([VERSION, code_version(), identity], 64)
