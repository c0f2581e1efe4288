"""Models: one adapter per architecture behind one protocol."""

from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import UserError

if TYPE_CHECKING:
    import workbench.models.protocol  # imports torch, which no command may wait for that does not need it

ORGANISMS = ("organism-shared", "organism-split")
_ORGANISM_WEIGHTS = Path(__file__).parent / "organism" / "weights"


def model_source(name: str) -> str:
    """Folder or hub id of a model: an embedded organism's name, a local pipeline folder, or a hub id.

    Raises UserError when `name` is none of them.
    """
    if name in ORGANISMS:
        return str(_ORGANISM_WEIGHTS / name)
    if Path(name).is_dir():
        if not (Path(name) / "model_index.json").is_file():
            raise UserError(f"The folder {name} is not a diffusers pipeline: it has no model_index.json.")
        return name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise UserError(
        f"Unknown model '{name}': give {' or '.join(ORGANISMS)}, a local pipeline folder, "
        "or a hub id such as ACE-Step/acestep-v15-base."
    )


def load_model(
    name: str, device: str = "cpu", dtype: str = "float32"
) -> "workbench.models.protocol.AudioDiffusionModel":
    """Load a model by name (see `model_source`) with weights in `dtype` on `device`.

    Raises UserError for an unknown name and for weights that are missing.
    """
    from workbench.models.ace_step import AceStep15  # imports torch, diffusers and nnsight: seconds

    return AceStep15(name, model_source(name), device=device, dtype=dtype)
