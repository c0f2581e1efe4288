"""Concept sliders of a study, in its folder `sliders`."""

from pathlib import Path

from analyses.steering.slider import Slider, load_slider
from cache.errors import UserError
from cache.opening import checked_folder
from workbench.files import file_name

FOLDER = "sliders"


def slider_file(study: Path, name: str) -> Path:
    """Return the file of the slider called `name`, or listed under it, in a study's folder."""
    listed = study / FOLDER / f"{name}.safetensors"
    return listed if listed in slider_files(study) else study / FOLDER / f"{file_name(name)}.safetensors"


def load_sliders(study: Path) -> dict[str, Slider | UserError]:
    """Load the sliders of a study by file name without ending, in order; those that cannot be read are their error."""
    return {file.stem: _loaded(file, study) for file in slider_files(study)}


def slider_files(study: Path) -> list[Path]:
    """Return the files in a study's folder of sliders; raise UnsafeFile if the folder is a link."""
    return sorted(checked_folder(study, FOLDER).glob("*.safetensors"))


def _loaded(file: Path, study: Path) -> Slider | UserError:
    try:
        return load_slider(file, root=study)
    except UserError as error:
        return error
