"""Published sparse autoencoders, in the form of EleutherAI's sparsify, as published with TADA (arXiv 2602.11910).

A folder `<hookpoint>/` has `cfg.json` and `sae.safetensors` with `encoder.weight` [feature, channel], `encoder.bias`,
`W_dec` [feature, channel] and `b_dec`. Encoding is TopK(relu((x − b_dec) encoder.weightᵀ + encoder.bias)), decoding
z W_dec + b_dec. Training may have kept the largest of a whole batch (`batch_topk`); it is those of each row here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from cache.errors import UserError
from workbench.artefacts.checks import table, vector
from workbench.artefacts.lora import load_safetensors
from workbench.artefacts.sources import Origin, check_inside, open_source, read_settings, sha256_of
from workbench.engine.sites import Site
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
# What would make other features of the same weights, and the value that the arithmetic here has.
_FIXED = {
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
    """A published autoencoder, with the site and guidance pass that its inputs come from."""

    kind: ClassVar[str] = "sae"

    site: str
    pass_name: str
    sae: SAE
    origin: Origin


def read_sae(source: str, site: str = "", pass_name: str = "cond") -> PublishedSAE:
    """Read and check a published autoencoder: its folder, or one that holds it (then `site` says which of several).

    Raises:
        UserError: files are missing, damaged or of another form, or their settings ask for another arithmetic.
    """
    root = open_source(source, [CONFIG, WEIGHTS, f"*/{CONFIG}", f"*/{WEIGHTS}"])
    folder = _folder(root, source, site)
    named = site or _site(folder.name) or _site(source)
    if not named:
        raise UserError(
            f"The name of {source} does not say which site it is of: give the site, such as tf6.cross_attn."
        )
    check_inside(root, folder / CONFIG, folder / WEIGHTS)
    settings = read_settings(folder / CONFIG)
    architecture = str(settings.get("architecture", "topk"))[:80]
    if architecture != "topk":
        raise UserError(
            f"{folder / CONFIG} is of an autoencoder that is not supported: {architecture}. It must be 'topk'."
        )
    for key, value in _FIXED.items():
        if settings.get(key, value) != value:
            raise UserError(f"{folder / CONFIG} says {key}={settings[key]!r}: only {value!r} can be used.")
    file = folder / WEIGHTS
    origin = Origin(source, file, sha256_of(file), settings)
    weights = load_safetensors(file)
    if set(weights) != set(_CHECKS):
        names = ", ".join(sorted(weights)[:8])
        raise UserError(f"{file} has the weights {names}, where {', '.join(_CHECKS)} are needed.")
    checked = {name: check(weights[name], f"{file}, {name}") for name, check in _CHECKS.items()}
    features, channels = _check_shapes(checked, settings, folder)
    k = _integer(settings, "k", folder)
    if not 1 <= k <= features:
        raise UserError(f"{folder / CONFIG} says k={k}, and there are {features} features.")
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
    below = sorted(file.parent for file in root.glob(f"*/{CONFIG}")) if root.is_dir() else []
    if site and len(below) > 1:
        below = [folder for folder in below if _site(folder.name) == site]
    if len(below) != 1:
        holds = (
            f"several autoencoders ({', '.join(folder.name for folder in below)})"
            if below
            else f"no {CONFIG}"
        )
        raise UserError(f"{source} has {holds}: give the folder of one, or its site.")
    return below[0]


def _site(name: str) -> str:
    match = _HOOKPOINT.search(name)
    return f"tf{match[1]}.cross_attn" if match else ""


def _integer(settings: dict[str, object], key: str, folder: Path) -> int:
    value = settings.get(key)
    if type(value) is not int or value < 0:
        raise UserError(f"{folder / CONFIG} says {key}={value!r}, where a number is needed.")
    return value


def _check_shapes(
    weights: dict[str, np.ndarray], settings: dict[str, object], folder: Path
) -> tuple[int, int]:
    """Features and channels; raises UserError where the weights' shapes are not those of the settings."""
    width = weights["encoder.weight"].shape[1]
    channels = _integer({"d_in": width, **settings}, "d_in", folder)
    asked = _integer({"num_latents": 0, **settings}, "num_latents", folder)
    features = asked or _integer({"expansion_factor": 0, **settings}, "expansion_factor", folder) * channels
    expected = ((features, channels), (features,), (features, channels), (channels,))
    shapes = tuple(array.shape for array in weights.values())
    if shapes != expected:
        raise UserError(
            f"{folder} has weights of the shapes {', '.join(map(str, shapes))}, and its settings say {features} "
            f"features of {channels} channels."
        )
    return features, channels
