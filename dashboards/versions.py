"""Versions of a study's files, by which the dashboard and its open pages notice changes."""

from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from cache.errors import UserError
from cache.protocol import MANIFEST
from dashboards.results import Identity, unfinished
from workbench.files import file_version
from workbench.studies.study import CACHE, Study

OWN_FILES = ("study.json", "clips.parquet")
FOLDERS = ("results", "packs", "sliders", "imported")
"""The folders whose files the pages show; what they hold changes while the dashboard runs."""


def own_version(study: Path) -> tuple[Identity | None, ...]:
    """Versions of the study's own files, which `Study.open` reads once; None for one that is missing."""
    return tuple(_version(study / name) for name in OWN_FILES)


def study_fault(study: Path) -> str:
    """A sentence as long as a study is not in its folder; "" if it is, even half-written."""
    if own_version(study)[0] is not None:
        return ""
    return f"The study {study} is not there: its folder was moved or removed, or its disk is not mounted."


def shown_version(study: Path) -> str:
    """A text that changes whenever a file that the pages show is added, replaced or removed."""
    files = [file for folder in FOLDERS for file in _files(study / folder)]
    own, manifest = own_version(study), _version(study / CACHE / MANIFEST)
    half = manifest is not None and _is_half(study, own, manifest)
    described = repr([own, half, [(str(file), _version(file)) for file in files]])
    return sha256(described.encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _is_half(study: Path, own: tuple[Identity | None, ...], manifest: Identity) -> bool:
    """Whether a study is only partly traced; asked again when its own files or the cache's manifest have changed."""
    del own, manifest
    with suppress(UserError):
        return bool(unfinished(Study.open(study)))
    return False


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


def _version(file: Path) -> Identity | None:
    try:
        return file_version(file)
    except OSError:  # removed meanwhile
        return None
