"""Concept sliders of a study, in its folder `sliders`."""

from pathlib import Path

from analyses.steering.slider import Slider, load_slider
from analyses.steering.study_files import slider_files
from cache.errors import UserError


def load_sliders(study: Path) -> dict[str, Slider | UserError]:
    """Load the sliders of a study by file name without ending, in order; those that cannot be read are their error."""
    return {file.stem: _loaded(file, study) for file in slider_files(study)}


def _loaded(file: Path, study: Path) -> Slider | UserError:
    try:
        return load_slider(file, root=study)
    except UserError as error:
        return error
