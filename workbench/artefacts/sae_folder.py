"""Published sparse autoencoders in the format of EleutherAI's sparsify, as published with TADA (arXiv 2602.11910).

A folder `<hookpoint>/` has `cfg.json` and `sae.safetensors` with `encoder.weight` [feature, channel], `encoder.bias`,
`W_dec` [feature, channel] and `b_dec`. Encoding is TopK(relu((x − b_dec) encoder.weightᵀ + encoder.bias)), decoding
z W_dec + b_dec. TopK is per row here, even if training took it over the batch (`batch_topk`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from cache.errors import UserError
from workbench.artefacts.checks import shown, table, vector
from workbench.artefacts.lora import load_safetensors
from workbench.artefacts.sources import Origin, check_inside, open_source, read_settings, sha256_of
from workbench.engine.sites import Site
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
# Settings that change the computation, with the only values supported here.
_SUPPORTED = {
    "input_unit_norm": False,
    "transcode": False,
    "skip_connection": False,
    "signed": False,
    "activation": "topk",
}
_CHECKS = {"encoder.weight": table, "encoder.bias": vector, "W_dec": table, "b_dec": vector}
_HOOKPOINT = re.compile(r"(?:transformer_blocks\.|tf)(\d+)[._-]cross[_-]attn")


@dataclass(frozen=True)
class PublishedSAE:
    """A published autoencoder, with the site and guidance pass it was trained on."""

    kind: ClassVar[str] = "sae"

    site: str
    pass_name: str
    sae: SAE
    origin: Origin


def read_sae(source: str, site: str = "", pass_name: str = "cond") -> PublishedSAE:
    """Read and validate a published autoencoder.

    Args:
        source: its folder, or a folder of several.
        site: its site; required if the folder's name does not give it, or to choose one of several.
        pass_name: the guidance pass it was trained on.

    Raises:
        UserError: if files are missing, damaged or in another format, or their settings are not supported.
    """
    root = open_source(source, [CONFIG, WEIGHTS, f"*/{CONFIG}", f"*/{WEIGHTS}"])
    folder = _folder(root, source, site)
    named = site or _site(folder.name) or _site(source)
    if not named:
        raise UserError(
            f"The name of {source} does not include the site. Give the site, such as tf6.cross_attn."
        )
    check_inside(root, folder / CONFIG, folder / WEIGHTS)
    settings = read_settings(folder / CONFIG)
    architecture = settings.get("architecture", "topk")
    if architecture != "topk":
        raise UserError(
            f"{folder / CONFIG} is of an autoencoder that is not supported: {shown(architecture)}. It must be 'topk'."
        )
    for key, value in _SUPPORTED.items():
        if settings.get(key, value) != value:
            raise UserError(
                f"{folder / CONFIG} says {key}={shown(settings[key])}; only {value!r} is supported."
            )
    file = folder / WEIGHTS
    origin = Origin(source, file, sha256_of(file), settings)
    weights = load_safetensors(file)
    if set(weights) != set(_CHECKS):
        names = ", ".join(sorted(weights)[:8])
        raise UserError(f"{file} must have the weights {', '.join(_CHECKS)}; it has {names}.")
    checked = {name: check(weights[name], f"{file}, {name}") for name, check in _CHECKS.items()}
    features, channels = _check_shapes(checked, settings, folder)
    k = _integer(settings, "k", folder)
    if not 1 <= k <= features:
        raise UserError(
            f"{folder / CONFIG} says k={k}; k must be from 1 to the number of features, {features}."
        )
    name = str(Site.parse(named))
    metadata = {
        "hook_name": name,
        "pass_name": pass_name,
        "source": source,
        "source_sha256": origin.sha256,
        "source_config": settings,
    }
    config = TopKConfig(d_in=channels, d_sae=features, k=k, metadata=metadata)
    converted = {
        "W_enc": checked["encoder.weight"].T,
        "b_enc": checked["encoder.bias"],
        "W_dec": checked["W_dec"],
        "b_dec": checked["b_dec"],
    }
    sae = TopKSAE(config, {name: torch.from_numpy(value.copy()) for name, value in converted.items()})
    return PublishedSAE(name, pass_name, sae, origin)


def _folder(root: Path, source: str, site: str) -> Path:
    if (root / CONFIG).exists():
        return root
    folders = sorted(file.parent for file in root.glob(f"*/{CONFIG}")) if root.is_dir() else []
    if site and len(folders) > 1:
        folders = [folder for folder in folders if _site(folder.name) == site]
    if len(folders) != 1:
        problem = (
            f"several autoencoders ({', '.join(folder.name for folder in folders)})"
            if folders
            else f"no {CONFIG}"
        )
        raise UserError(f"{source} has {problem}. Give the folder of one autoencoder, or its site.")
    return folders[0]


def _site(name: str) -> str:
    match = _HOOKPOINT.search(name)
    return f"tf{match[1]}.cross_attn" if match else ""


def _integer(settings: dict[str, object], key: str, folder: Path) -> int:
    value = settings.get(key)
    if type(value) is not int or value < 0:
        raise UserError(f"{folder / CONFIG} says {key}={shown(value)}; {key} must be a whole number from 0.")
    return value


def _check_shapes(
    weights: dict[str, np.ndarray], settings: dict[str, object], folder: Path
) -> tuple[int, int]:
    """Return the numbers of features and channels; raise UserError if the weights have other shapes."""
    width = weights["encoder.weight"].shape[1]
    channels = _integer({"d_in": width, **settings}, "d_in", folder)
    declared = _integer({"num_latents": 0, **settings}, "num_latents", folder)
    features = (
        declared or _integer({"expansion_factor": 0, **settings}, "expansion_factor", folder) * channels
    )
    expected = ((features, channels), (features,), (features, channels), (channels,))
    shapes = tuple(array.shape for array in weights.values())
    if shapes != expected:
        raise UserError(
            f"{folder} has weights of the shapes {', '.join(map(str, shapes))}, but its settings say {features} "
            f"features of {channels} channels."
        )
    return features, channels
