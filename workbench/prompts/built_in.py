"""Load sets that come with the workbench, or users' files in the same format."""

import os
from pathlib import Path
from typing import TypeVar

from cache.errors import UserError
from cache.wording import quoted
from workbench.text_files import read_document
from workbench.validation import validated

Set = TypeVar("Set")


def load_set(kind: type[Set], name: str, folder: Path, what: str) -> Set:
    """Load a built-in set by name (a YAML file in `folder`), or one from a YAML or JSON file.

    Raises:
        UserError: if the set does not exist or is invalid; the sentence calls it `what`.
    """
    built_in = sorted(file.stem for file in folder.glob("*.yaml"))
    path = folder / f"{name}.yaml" if name in built_in else Path(name)
    if not os.path.exists(path):  # also for a name that is too long for a path
        raise UserError(
            f"Unknown {what} {quoted(name)}. Give a YAML file, or a built-in one ({', '.join(built_in)})."
        )
    named = f"The {what} {path}"
    return validated(kind, read_document(path, named), named)
