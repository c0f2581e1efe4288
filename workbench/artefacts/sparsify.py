"""Folders of EleutherAI's sparsify: TopK autoencoders and transcoders.

`cfg.json` and `sae.safetensors` with `encoder.weight` [feature, channel], `encoder.bias`, `W_dec` [feature, channel]
and `b_dec`. Encoding is TopK(relu((x − b_dec) encoder.weightᵀ + encoder.bias)), decoding z W_dec + b_dec. A transcoder
(`transcode`) does not subtract b_dec. TopK is per row here, even if training took it over the batch (`batch_topk`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import UserError
from workbench.artefacts.checks import shown, table, vector
from workbench.files import replacing
from workbench.sae.base import SAE
from workbench.sae.folder import check_weights, naming
from workbench.sae.topk import TopKConfig, TopKSAE
from workbench.sae.transcoder import TopKTranscoder, TopKTranscoderConfig
from workbench.tensor_files import tensor_bytes

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
# Settings that change the computation, with the only values supported here.
_SUPPORTED = {"input_unit_norm": False, "skip_connection": False, "signed": False, "activation": "topk"}
_CHECKS = {"encoder.weight": table, "encoder.bias": vector, "W_dec": table, "b_dec": vector}


def from_sparsify(
    settings: dict[str, Any], weights: dict[str, np.ndarray], folder: Path, metadata: dict[str, Any]
) -> SAE:
    """Return the autoencoder of sparsify's settings and weights, which were read from a folder.

    Raises:
        UserError: if the settings are not supported, or the weights are not those that they describe.
    """
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
    if set(weights) != set(_CHECKS):
        names = ", ".join(sorted(weights)[:8])
        raise UserError(f"{folder / WEIGHTS} must have the weights {', '.join(_CHECKS)}; it has {names}.")
    checked = {name: check(weights[name], f"{folder / WEIGHTS}, {name}") for name, check in _CHECKS.items()}
    features, channels = _check_shapes(checked, settings, folder)
    k = _integer(settings, "k", folder)
    if not 1 <= k <= features:
        raise UserError(
            f"{folder / CONFIG} says k={k}; k must be from 1 to the number of features, {features}."
        )
    converted = {
        "W_enc": checked["encoder.weight"].T,
        "b_enc": checked["encoder.bias"],
        "W_dec": checked["W_dec"],
        "b_dec": checked["b_dec"],
    }
    tensors = {name: torch.from_numpy(value.copy()) for name, value in converted.items()}
    sizes: dict[str, Any] = {"d_in": channels, "d_sae": features, "k": k, "metadata": metadata}
    sae: SAE = (
        TopKTranscoder(TopKTranscoderConfig(**sizes, d_out=channels), tensors)
        if _truth(settings, "transcode", folder)
        else TopKSAE(TopKConfig(**sizes), tensors)
    )
    with naming(folder / WEIGHTS):
        check_weights(sae)
    return sae


def write_sparsify(sae: SAE, folder: Path) -> None:
    """Write an autoencoder as `sparsify.SparseCoder.load_from_disk` reads it.

    Raises:
        UserError: if it is neither a TopK autoencoder nor a TopK transcoder between sites of one width.
    """
    if not isinstance(sae, TopKSAE | TopKTranscoder):
        raise UserError(
            f"sparsify has only TopK autoencoders; this one is '{sae.config.architecture}'. Export it as saelens."
        )
    if sae.config.d_in != sae.config.d_out:
        raise UserError(
            f"sparsify has only transcoders between sites of one width; this one is from {sae.config.d_in} channels "
            f"to {sae.config.d_out}."
        )
    settings = {
        "activation": "topk",
        "expansion_factor": max(1, sae.config.d_sae // sae.config.d_in),
        "normalize_decoder": True,
        "num_latents": sae.config.d_sae,
        "k": sae.config.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": isinstance(sae, TopKTranscoder),
        "d_in": sae.config.d_in,
        "metadata": sae.config.metadata,  # sparsify leaves out what it does not know
    }
    weights = {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    with replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(tensor_bytes({name: value.numpy(force=True) for name, value in weights.items()}))
    with replacing(folder / CONFIG) as partial:
        partial.write_text(json.dumps(settings))


def _integer(settings: dict[str, object], key: str, folder: Path) -> int:
    value = settings.get(key)
    if type(value) is not int or value < 0:
        raise UserError(f"{folder / CONFIG} says {key}={shown(value)}; {key} must be a whole number from 0.")
    return value


def _truth(settings: dict[str, object], key: str, folder: Path) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"{folder / CONFIG} says {key}={shown(value)}; {key} must be true or false.")
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
