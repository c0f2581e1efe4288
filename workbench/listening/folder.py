"""The folder of a listening study: `study.json`, `audio/` with blind names, and the answers."""

import json
from pathlib import Path

from pydantic import ValidationError

from cache.errors import UserError
from cache.opening import UnsafeFile, read_file
from workbench.documents import read_document
from workbench.listening.config import ListeningConfig, Stimulus

DOCUMENT = "study.json"
AUDIO = "audio"
ANSWERS = "answers.sqlite"
LARGEST_DOCUMENT = 2**25
LARGEST_AUDIO = 2**26


def write_config(folder: Path, config: ListeningConfig) -> None:
    """Write the document of a study."""
    text = json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / DOCUMENT).write_text(f"{text}\n", encoding="utf-8")


def read_config(folder: Path) -> ListeningConfig:
    """Read the document of a listening study.

    Raises:
        UserError: if the folder has none, or it is damaged.
    """
    try:
        return ListeningConfig.model_validate(read_document(folder, DOCUMENT, LARGEST_DOCUMENT))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{folder} is not a listening study. Make one with `workbench listen make`."
        ) from error
    except UnsafeFile:
        raise
    except (ValueError, ValidationError) as error:
        raise UserError(
            f"{folder / DOCUMENT} is damaged, or not of a listening study. Make it again with `workbench listen make`."
        ) from error


def read_stimulus(folder: Path, stimulus: Stimulus) -> bytes:
    """Return the content of a stimulus, a WAV file.

    Raises:
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` does.
    """
    return read_file(folder, f"{AUDIO}/{stimulus.token}.wav", LARGEST_AUDIO)
