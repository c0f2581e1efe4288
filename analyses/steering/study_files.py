"""Files of a study's vectors (packs) and concept sliders, by name. Imports nothing slow: dashboards list them."""

from pathlib import Path

from cache.errors import UserError
from cache.opening import checked_folder
from workbench.files import file_name

PACKS, SLIDERS = "packs", "sliders"


def pack_file(study: Path, name: str) -> Path:
    """Return the file of the pack called `name` in a study's folder."""
    return study / PACKS / f"{file_name(name)}.safetensors"


def find_pack(study: Path, name: str) -> Path:
    """Return the file of a study's pack by its name, or by its file's name as `load_packs` gives it."""
    listed = study / PACKS / f"{name}.safetensors"
    return listed if listed in pack_files(study) else pack_file(study, name)


def check_new_pack(study: Path, name: str) -> None:
    """Raise UserError if the study has a pack of this name, which must not be lost."""
    file = pack_file(study, name)
    if file.exists():
        raise UserError(
            f"{study} has a vector '{name}' already. Give another name (--name), delete {file}, or judge it with "
            "`workbench steer check`."
        )


def pack_files(study: Path) -> list[Path]:
    """Return the files in a study's folder of packs; raise UnsafeFile if the folder is a link."""
    return sorted(checked_folder(study, PACKS).glob("*.safetensors"))


def slider_file(study: Path, name: str) -> Path:
    """Return the file of the slider called `name`, or listed under it, in a study's folder."""
    listed = study / SLIDERS / f"{name}.safetensors"
    return listed if listed in slider_files(study) else study / SLIDERS / f"{file_name(name)}.safetensors"


def slider_files(study: Path) -> list[Path]:
    """Return the files in a study's folder of sliders; raise UnsafeFile if the folder is a link."""
    return sorted(checked_folder(study, SLIDERS).glob("*.safetensors"))
