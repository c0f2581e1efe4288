"""Models: an adapter for each architecture, on a common base class."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cache.errors import UserError
from cache.protocol import Dtype
from workbench.devices import check_device
from workbench.hub import is_hub_id
from workbench.models.folders import read_settings
from workbench.validation import must_be

if TYPE_CHECKING:
    import workbench.models.base  # imports torch, which is slow

DTYPES = (*get_args(Dtype), "float64")
ORGANISMS = ("organism-shared", "organism-split")
_ORGANISM_WEIGHTS = Path(__file__).parent / "organisms"
_INDEX = "model_index.json"
_V1_CONFIG = "ace_step_transformer/config.json"  # the published folder of ACE-Step v1 has no index
_ADAPTERS = {
    "AceStepPipeline": ("workbench.models.ace_step", "AceStep15"),
    "AceStepV1Pipeline": ("workbench.models.ace_step_v1.adapter", "AceStepV1"),
    "StableAudioPipeline": ("workbench.models.stable_audio", "StableAudioOpen"),
    "AudioLDM2Pipeline": ("workbench.models.audioldm2", "AudioLDM2"),
}


def model_source(name: str) -> str:
    """Return the folder or hub id of a model: an embedded organism, a local pipeline folder, or a hub id.

    Raises:
        UserError: if `name` is none of them.
    """
    if name in ORGANISMS:
        return str(_ORGANISM_WEIGHTS / name)
    folder = located(name)
    if os.path.isdir(folder):
        if not any((Path(folder) / file).is_file() for file in (_INDEX, _V1_CONFIG)):
            raise UserError(
                f"The folder {name} is not a pipeline: it has neither a {_INDEX} (diffusers) nor an "
                f"{_V1_CONFIG} (ACE-Step v1)."
            )
        return folder
    if is_hub_id(name):
        return name
    if "/" in name:
        raise UserError(
            f"The model folder {name} does not exist. Give the path of one, or restore it (or a link to it)."
        )
    raise UserError(
        f"Unknown model '{name}'. Give {' or '.join(ORGANISMS)}, a local pipeline folder, "
        "or a hub id such as ACE-Step/acestep-v15-base."
    )


def located(name: str) -> str:
    """Return a model's name as stored in a study: a folder as an absolute path, other names unchanged."""
    folder = os.path.expanduser(name)
    return os.path.abspath(folder) if name not in ORGANISMS and os.path.isdir(folder) else name


def load_model(
    name: str | os.PathLike[str], device: str = "cpu", dtype: str = "float32"
) -> "workbench.models.base.AudioDiffusionModel":
    """Load a model by name (see `model_source`) with weights in `dtype` on `device`; its files determine the adapter.

    Raises:
        UserError: for an unknown name, device or dtype, missing weights, or a pipeline without an adapter.
    """
    must_be((str, os.PathLike), name, "A model must be given by its name or its folder")
    name = os.fspath(name)
    check_device(device)
    must_be(str, dtype, "A dtype must be text, such as 'float32'")
    if dtype not in DTYPES:
        raise UserError(f"Unknown dtype '{dtype}'. Use one of {', '.join(DTYPES)}.")
    source = model_source(name)
    kind = _pipeline_class(source)
    if kind not in _ADAPTERS:
        raise UserError(f"'{name}' is a {kind}, which is not supported. Supported: {', '.join(_ADAPTERS)}.")
    module, adapter = _ADAPTERS[kind]
    # Imports torch, diffusers and nnsight, which takes seconds.
    return getattr(importlib.import_module(module), adapter)(name, source, device=device, dtype=dtype)


def _pipeline_class(source: str) -> str:
    """Return the name of the pipeline's class."""
    index = _model_file(source, _INDEX)
    if index is None:
        return "AceStepV1Pipeline"
    try:
        return str(read_settings(index)["_class_name"])
    except KeyError as error:
        raise UserError(
            f"The {_INDEX} of {source} does not name its pipeline. Get the model again."
        ) from error


def _model_file(source: str, file: str) -> Path | None:
    """Return a file of a model, downloaded if it is on the hub; None for a checkpoint of ACE-Step v1."""
    if Path(source).is_dir():
        path = Path(source) / file
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        try:
            return Path(hf_hub_download(source, file))
        except EntryNotFoundError:  # not in the repository, or, without a network, not in the hub cache
            hf_hub_download(source, _V1_CONFIG)
            return None
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise unreachable_weights(source, error) from error


def unreachable_weights(source: str, error: Exception) -> UserError:
    """Make the error for a hub model that is neither cached nor downloadable."""
    return UserError(
        f"The weights of '{source}' are not in the hub cache and cannot be downloaded ({type(error).__name__}). Check "
        f"the name and the network (or run `hf download {source}` on a machine with access), and that the model has "
        f"diffusers' layout, with a {_INDEX}, or that of ACE-Step v1."
    )
