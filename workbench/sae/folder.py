"""Sparse autoencoders on disk, in SAELens' format: a folder with `cfg.json` and `sae_weights.safetensors`."""

import json
from pathlib import Path
from typing import Any

import torch

from cache.errors import UserError
from cache.opening import UnsafeFile, file_size, remove_file
from cache.wording import quoted
from workbench.documents import read_document
from workbench.files import replacing
from workbench.sae.architectures import ARCHITECTURES, Architecture
from workbench.sae.base import SAE
from workbench.tensor_files import load_tensors, tensor_bytes

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
MAX_CONFIG_BYTES = 2**24

# SAELens keeps a folder's metadata only if the folder says that its format is that of version 6.
FORMAT = {"sae_lens_version": "6.0.0", "dtype": "float32", "device": "cpu"}


class UnsupportedSAE(UserError):
    """The autoencoder's arithmetic is that of no supported architecture."""


def save_folder(sae: SAE, folder: Path, root: Path | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads them.

    For a folder inside a study, `root` is the study's folder: links below it are not followed.
    """
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    with replacing(weights, root) as partial:
        # The configuration exists only while the weights are complete.
        remove_file(root or folder, config.relative_to(root or folder))
        partial.write_bytes(
            tensor_bytes({name: value.cpu().numpy() for name, value in sae.state_dict().items()})
        )
    save_config(sae, folder, root)


def save_config(sae: SAE, folder: Path, root: Path | None = None) -> None:
    """Write `cfg.json` alone, beside weights that are there already."""
    with replacing(folder / CONFIG_FILE, root) as partial:
        partial.write_text(json.dumps({**sae.config.model_dump(), **sae.config.FIXED, **FORMAT}))


def load_folder(folder: Path, root: Path | None = None) -> SAE:
    """Read a folder written by `save_folder`, or a SAELens folder with the same arithmetic, as float32 on the CPU.

    Raises:
        UserError: if the folder is missing or damaged, its configuration needs unsupported arithmetic, or there are
            links between it and `root`, the study that contains it.
    """
    inside = folder.relative_to(root) if root else Path()
    if not folder.is_dir() or file_size(root or folder, inside / CONFIG_FILE) is None:
        raise UserError(f"{folder} is not a sparse autoencoder (it has no {CONFIG_FILE}). Train one first.")
    try:
        stored = read_document(root or folder, inside / CONFIG_FILE, MAX_CONFIG_BYTES)
        architecture = _architecture(stored, folder / CONFIG_FILE)
        config = architecture.config.model_validate(
            {name: stored[name] for name in architecture.config.model_fields}
        )
        weights, _ = load_tensors(root or folder, inside / WEIGHTS_FILE)
        return architecture.sae(
            config, {name: torch.from_numpy(value).float() for name, value in weights.items()}
        )
    except (UnsafeFile, UnsupportedSAE):
        raise
    except (FileNotFoundError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"The sparse autoencoder in {folder} is damaged. Train it again.") from error


def _architecture(stored: dict[str, Any], file: Path) -> Architecture:
    """Return a configuration's architecture; raises UnsupportedSAE if no supported one has its arithmetic."""
    name = str(stored["architecture"])
    if name not in ARCHITECTURES:
        allowed = " or ".join(map(repr, ARCHITECTURES))
        raise UnsupportedSAE(
            f"{file} is of an autoencoder that is not supported: {quoted(name)}. It must be {allowed}."
        )
    for key, value in ARCHITECTURES[name].config.FIXED.items():
        given = stored.get(key, value)
        if given != value:
            raise UnsupportedSAE(
                f"{file} is of an autoencoder that is not supported: {key}={repr(given)[:80]}. It must be {value!r}."
            )
    return ARCHITECTURES[name]
