"""Sparse autoencoders on disk, in SAELens' format: a folder with `cfg.json` and `sae_weights.safetensors`."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import UserError
from cache.opening import UnsafeFile, file_size, remove_file
from cache.wording import quoted
from workbench.documents import read_document
from workbench.files import replacing
from workbench.sae.architectures import Architecture, kept_architectures
from workbench.sae.base import SAE, SAEConfig
from workbench.sae.saelens import FOLDED, RELU_TRANSCODER, UnsupportedSAE, current_form, current_weights, fold
from workbench.sae.stored import WEIGHTS_FILE
from workbench.tensor_files import load_tensors, tensor_bytes
from workbench.validation import validated

CONFIG_FILE = "cfg.json"
MAX_CONFIG_BYTES = 2**24
LARGEST_WEIGHT = 1e12
"""Sums of products of two such weights with inputs of a million are still finite in float32."""
_DAMAGED = "is damaged; train it again, or get it again"

# SAELens keeps a folder's metadata only if the folder says that its format is that of version 6.
FORMAT = {"sae_lens_version": "6.0.0", "dtype": "float32", "device": "cpu"}


def save_folder(sae: SAE, folder: Path, root: Path | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads them.

    For a folder inside a study, `root` is the study's folder: links below it are not followed.
    """
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    with replacing(weights, root) as partial:
        # The configuration exists only while the weights are complete.
        remove_file(root or folder, config.relative_to(root or folder))
        partial.write_bytes(
            tensor_bytes(
                {
                    sae.STORED_NAMES.get(name, name): value.cpu().numpy()
                    for name, value in sae.state_dict().items()
                }
            )
        )
    save_config(sae, folder, root)


def save_config(sae: SAE, folder: Path, root: Path | None = None) -> None:
    """Write `cfg.json` alone, beside weights that are there already."""
    with replacing(folder / CONFIG_FILE, root) as partial:
        partial.write_text(json.dumps({**sae.config.model_dump(by_alias=True), **sae.config.FIXED, **FORMAT}))


def load_folder(folder: Path, root: Path | None = None) -> SAE:
    """Read a folder written by `save_folder` or SAELens, as float32 on the CPU.

    SAELens' settings that have no counterpart here, but equal weights, are moved into the weights (`saelens.fold`).

    Raises:
        UserError: if the folder is missing or damaged, its configuration needs unsupported arithmetic, or there are
            links between it and `root`, the study that contains it.
    """
    inside = folder.relative_to(root) if root else Path()
    if not folder.is_dir() or file_size(root or folder, inside / CONFIG_FILE) is None:
        raise UserError(f"{folder} is not a sparse autoencoder (it has no {CONFIG_FILE}). Train one first.")
    with naming(folder / CONFIG_FILE):
        stored = read_document(root or folder, inside / CONFIG_FILE, MAX_CONFIG_BYTES)
        check_supported(current_form(stored), folder)
    with naming(folder / WEIGHTS_FILE):
        arrays, _ = load_tensors(root or folder, inside / WEIGHTS_FILE)
    return from_saelens(stored, arrays, folder)


def from_saelens(stored: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path) -> SAE:
    """Return the autoencoder of a SAELens configuration and weights, which were read from a folder.

    Raises:
        UserError: if they do not fit together, or need unsupported arithmetic.
    """
    with naming(folder / CONFIG_FILE):
        stored = current_form(stored)
        architecture = check_supported(stored, folder)
    config = _config(architecture, stored, folder / CONFIG_FILE)
    with naming(folder / WEIGHTS_FILE):
        weights = current_weights(
            {key: torch.from_numpy(value).float() for key, value in arrays.items()},
            str(stored["architecture"]),
        )
        own_names = {there: name for name, there in architecture.sae.STORED_NAMES.items()}
        sae = architecture.sae(config, {own_names.get(key, key): value for key, value in weights.items()})
        check_weights(sae)
        fold(sae, stored)
        check_weights(sae)
    return sae


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Turn what is wrong with a file of an autoencoder into a UserError that names the file."""
    try:
        yield
    except (UnsafeFile, UnsupportedSAE):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file} {_DAMAGED}: there is no such file.") from error
    except (ValueError, UserError) as error:
        raise UserError(f"{file} {_DAMAGED}: {str(error).rstrip('.')}.") from error


def check_weights(sae: SAE) -> None:
    """Raise ValueError if a weight is not finite, so large that products overflow, or wrongly negative."""
    for name, value in sae.state_dict().items():
        stored, (low, high) = sae.STORED_NAMES.get(name, name), (each.item() for each in value.aminmax())
        # Gated SAEs use the exponential of r_mag.
        most = math.log(LARGEST_WEIGHT) if name == "r_mag" else LARGEST_WEIGHT
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{stored} has numbers that are not finite")
        if max(-low, high) > most:
            raise ValueError(
                f"{stored} has {max(low, high, key=abs):.3g}, beyond the largest weight, {most:.3g}"
            )
        if name in sae.NOT_NEGATIVE and low < 0:
            raise ValueError(f"{stored} has {low:.3g}, but must be at least 0")


def _config(architecture: Architecture, stored: dict[str, Any], file: Path) -> SAEConfig:
    """Return the entries of a configuration that its architecture has; raise UserError if they are wrong."""
    names = {field.alias or name for name, field in architecture.config.model_fields.items()} - {
        "architecture"
    }
    return validated(
        architecture.config, {name: stored[name] for name in names if name in stored}, f"{file} {_DAMAGED}"
    )


def check_supported(stored: dict[str, Any], folder: Path) -> Architecture:
    """Return a configuration's architecture; raises UnsupportedSAE if no supported one has its arithmetic.

    Raises ValueError if it names none.
    """
    if "architecture" not in stored:
        raise ValueError("architecture is missing")
    name, file, supported = str(stored["architecture"]), folder / CONFIG_FILE, kept_architectures()
    supported[RELU_TRANSCODER] = supported["jumprelu_transcoder"]
    if name not in supported:
        allowed = ", ".join(map(repr, supported))
        raise UnsupportedSAE(
            f"{file} is of an autoencoder that is not supported: {quoted(name)}. It must be one of {allowed}."
        )
    fixed = supported[name].config.FIXED
    for key, value in fixed.items():
        given = stored.get(key, value)
        if given != value and (key, given) not in FOLDED:
            raise UnsupportedSAE(
                f"{file} is of an autoencoder that is not supported: {key}={repr(given)[:80]}. It must be {value!r}."
            )
    return supported[name]
