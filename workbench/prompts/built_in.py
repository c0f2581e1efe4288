"""Sets that come with the workbench, and those that people write in the same form."""

from pathlib import Path
from typing import TypeVar

from cache.errors import UserError
from workbench.text_files import read_document
from workbench.validation import validated

Set = TypeVar("Set")


def load_set(kind: type[Set], name: str, folder: Path, what: str) -> Set:
    """The built-in set of that name, a YAML file in `folder`, or the set in a YAML or JSON file.

    Raises:
        UserError: for a set that there is not, or that is wrong; it is called `what` in the sentence.
    """
    built_in = sorted(file.stem for file in folder.glob("*.yaml"))
    path = folder / f"{name}.yaml" if name in built_in else Path(name)
    if not path.exists():
        raise UserError(
            f"There is no {what} '{name}': give a YAML file, or a built-in one ({', '.join(built_in)})."
        )
    named = f"The {what} {path}"
    return validated(kind, read_document(path, named), named)
