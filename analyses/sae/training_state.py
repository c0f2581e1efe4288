"""The state of a training, kept in a study, so that the same command continues one that was killed."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from cache.errors import UserError
from cache.opening import UnsafeFile, remove_file
from workbench.files import remove_partials
from workbench.provenance import content_hash
from workbench.studies.study import Study
from workbench.tensor_files import is_whole, load_tensors, sealed, write_tensors

VERSION = 1
SHARE = 0.05
"""Part of the time that writing may take: states that take longer to write are written less often."""
FIRST_AFTER = 5.0
"""Seconds of training before the first state is written."""
FOLDER = "training"
_HEADER = "sae_training"


class Kept(NamedTuple):
    """A state: what is not arrays, as plain JSON, and the arrays."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


class TrainingState:
    """The state of the training of SAEs with certain specs, one file in the study's folder `training`.

    Whoever uses it keeps other processes out (`name` is what to lock). A state of other activations, or a damaged one,
    is not used: `note` is called with a sentence that says so.
    """

    def __init__(self, study: Study, specs: Sequence[BaseModel], note: Callable[[str], None]) -> None:
        self._root = study.path
        self._identity = content_hash(
            {
                "version": VERSION,
                "specs": [spec.model_dump(mode="json") for spec in specs],
                "study": study.spec.model_dump(mode="json", warnings=False),
                "model": study.model,
            }
        )
        self.name = f"training-{self._identity[:16]}"
        self.file = self._root / FOLDER / f"{self.name}.safetensors"
        self._note = note
        self._due = time.monotonic() + FIRST_AFTER

    def load(self) -> Kept | None:
        """Return the last state, None if there is none.

        Raises:
            cache.opening.UnsafeFile: if the path of the file contains a link.
        """
        remove_partials(self._root, self.file.parent)
        try:
            arrays, texts = load_tensors(self._root, self.file.relative_to(self._root))
            header = json.loads(texts[_HEADER])
            if header["identity"] == self._identity and is_whole(texts, arrays):
                return Kept(header, arrays)
        except FileNotFoundError:
            return None
        except UnsafeFile:
            raise
        except (UserError, OSError, ValueError, KeyError, TypeError):
            pass
        self._note(f"{self.file} is damaged, or of another study. The training starts anew.")
        return None

    def is_due(self) -> bool:
        """Whether it is time to write the state again."""
        return time.monotonic() >= self._due

    def save(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write the state, whole or not at all."""
        started = time.monotonic()
        text = json.dumps({**header, "identity": self._identity})
        write_tensors(self.file, arrays, sealed({_HEADER: text}, arrays), self._root)
        now = time.monotonic()
        self._due = now + (now - started) / SHARE

    def remove(self) -> None:
        """Remove the state, as what it leads to is kept."""
        remove_file(self._root, self.file.relative_to(self._root))
