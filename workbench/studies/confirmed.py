"""Remember which studies the user trusts to refer to locations outside their folder.

A `study.json` may contain a store's URL and a model's folder. Studies made here are trusted; those from elsewhere only
once the user confirms them (`--allow-store`). A study is identified by the SHA-256 of its `study.json`, so that it
stays confirmed if its folder is moved, but not if another address is written into it.
"""

import hashlib
from pathlib import Path

import platformdirs

from cache.errors import UserError
from workbench.files import replacing


class UnconfirmedStore(UserError):
    """A study from elsewhere stores its activations at an address that the user has not confirmed."""


def is_confirmed(document: bytes) -> bool:
    """Whether the study with this `study.json` was made here or confirmed."""
    return _file(document).is_file()


def confirm(document: bytes, study: Path) -> None:
    """Remember the study with this `study.json`; raise UserError if the user's state folder is not writable."""
    with replacing(_file(document)) as partial:
        partial.write_text(f"{study.resolve()}\n", encoding="utf-8")


def _file(document: bytes) -> Path:
    folder = platformdirs.user_state_path("audio-diffusion-workbench", appauthor=False)
    return folder / "confirmed-studies" / hashlib.sha256(document).hexdigest()
