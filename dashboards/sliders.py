"""A study's concept sliders, each read once per version of its file."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.steering.study_files import slider_files
from cache.errors import UserError
from dashboards.results import Identity
from workbench.files import file_version
from workbench.studies.study import Study

if TYPE_CHECKING:
    from analyses.steering.slider import Slider


def slider_names(study: Study) -> list[str]:
    """Names of the study's sliders, damaged or not; none if their folder cannot be read."""
    return [file.stem for file in _files(study)]


def sliders(study: Study) -> "dict[str, Slider | UserError]":
    """The study's sliders by name; those that cannot be read are their error. None if their folder cannot be read."""
    return {file.stem: _loaded(file, study.path) for file in _files(study)}


def _files(study: Study) -> list[Path]:
    try:
        return slider_files(study.path)
    except UserError:
        return []


def _loaded(file: Path, root: Path) -> "Slider | UserError":
    try:
        return _load(file, root, file_version(file))
    except OSError as error:
        return UserError(f"{file} cannot be read: {error.strerror}.")
    except UserError as error:
        return error


@lru_cache(maxsize=32)
def _load(file: Path, root: Path, version: Identity) -> "Slider":
    del version  # only part of the cache key: a changed file is read again
    from analyses.steering.slider import load_slider  # imports torch; only studies with sliders need it

    return load_slider(file, root=root)
