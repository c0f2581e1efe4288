"""Model folders: their configurations are looked at before a library loads them, and nothing of theirs is run."""

from pathlib import Path
from typing import Any

from cache.errors import UserError
from workbench.documents import parse_document

MAX_BYTES = 2**28
INDEX = "model_index.json"
# Whose classes a pipeline's parts may be; another name would be a Python file of the folder's own.
_LIBRARIES = {"diffusers", "transformers", "ace_step", "stable_audio", "audioldm2"}


def check_model_folder(folder: Path) -> None:
    """Look through the JSON files of a model's folder.

    Raises:
        UserError: if one is no JSON object, or asks for code of the folder's own (`auto_map`, or a part of
            another library).
    """
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if file.exists() and not file.is_file():
            raise UserError(f"{file} is no file: get the model anew.")
        if not file.is_file():  # a link that leads nowhere
            continue
        if file.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{file} is larger than {MAX_BYTES} bytes, which no configuration is: get the model anew."
            )
        try:
            settings = parse_document(file.read_bytes())
        except ValueError as error:
            raise UserError(f"{file} is damaged ({error}): get the model anew.") from error
        _refuse_code(settings, file)


def _refuse_code(settings: dict[str, Any], file: Path) -> None:
    foreign = "auto_map" in settings
    if file.name == INDEX:
        parts = [
            value for name, value in settings.items() if not name.startswith("_") and isinstance(value, list)
        ]
        foreign |= any(part and part[0] is not None and part[0] not in _LIBRARIES for part in parts)
    if foreign:
        raise UserError(
            f"{file} asks for Python code that came with the model, which is never run: use a model in diffusers' own "
            "format."
        )
