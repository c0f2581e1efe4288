"""Studies of which this user has confirmed that what they name outside of their folder may be used.

A `study.json` may name a store's URL and a model's folder. The studies that are made here are confirmed as they are
made; those from elsewhere only when their user says so (`--allow-store`). A study is known by the SHA-256 of its
`study.json`, so that it stays confirmed where its folder is moved, and no longer is where another address is written
into it.
"""

import hashlib
from pathlib import Path

import platformdirs

from cache.errors import UserError
from workbench.files import replacing


class UnconfirmedStore(UserError):
    """A study from elsewhere keeps its activations at an address that nobody has confirmed."""


def is_confirmed(document: bytes) -> bool:
    """Whether the study with this `study.json` was made here or confirmed."""
    return _file(document).is_file()


def confirm(document: bytes, study: Path) -> None:
    """Remember the study with this `study.json`; raises OSError when the user's state folder cannot be written."""
    with replacing(_file(document)) as partial:
        partial.write_text(f"{study.resolve()}\n", encoding="utf-8")


def _file(document: bytes) -> Path:
    folder = platformdirs.user_state_path("audio-diffusion-workbench", appauthor=False)
    return folder / "confirmed-studies" / hashlib.sha256(document).hexdigest()
