"""Folders of SAELens in forms that the workbench does not write: turned into equal configurations and weights."""

from typing import Any

import torch
from torch import Tensor

from cache.errors import UserError
from cache.wording import quoted
from workbench.sae.base import SAE

Weights = dict[str, Tensor]

# Written by SAELens before version 6; the values are dropped if they are all 1, as SAELens does.
_FINE_TUNING = ("scaling_factor", "finetuning_scaling_factor")

RESCALE = "rescale_acts_by_decoder_norm"
FOLDED = (("apply_b_dec_to_input", False), (RESCALE, True))
"""Settings other than the workbench's that `fold` moves into the weights."""

RELU_TRANSCODER = "transcoder"


class UnsupportedSAE(UserError):
    """The autoencoder's arithmetic is that of no supported architecture."""


def current_form(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in the form of SAELens 6.

    Older ones need not name their architecture, put TopK into the activation function, and mix metadata with settings.

    Raises:
        UnsupportedSAE: if the activation function is neither ReLU nor TopK.
        ValueError: if an entry is not what it should be.
    """
    if not isinstance(stored.get("metadata", {}), dict):
        raise ValueError("metadata must be a mapping (name: value)")
    if not isinstance(stored.get(RESCALE, False), bool):
        raise ValueError(f"{RESCALE} must be true or false")
    if _version(stored) >= 6:
        return stored
    function = stored.get("activation_fn", stored.get("activation_fn_str", "relu"))
    if function not in ("relu", "topk"):
        raise UnsupportedSAE(
            f"The autoencoder is not supported: its activation function is {quoted(str(function))}. It must be "
            "'relu' or 'topk'."
        )
    current = {"architecture": "standard", **stored}
    if function == "topk":
        arguments = stored.get("activation_fn_kwargs")
        if not isinstance(arguments, dict) or "k" not in arguments:
            raise ValueError("activation_fn_kwargs must be a mapping that has k")
        current |= {"architecture": "topk", "k": arguments["k"]}
    if not stored.get("normalize_activations"):
        current["normalize_activations"] = "none"
    site = stored.get("hook_name", stored.get("hook_point"))
    names = {"hook_name": site, "model_name": stored.get("model_name")}
    return {"metadata": {name: value for name, value in names.items() if value is not None}, **current}


def _version(stored: dict[str, Any]) -> int:
    """Return the main version of SAELens that wrote a configuration; 0 if it does not say."""
    version = str(stored.get("sae_lens_version") or stored.get("metadata", {}).get("sae_lens_version"))
    main = version.partition(".")[0]
    return int(main) if main.isdecimal() else 0


def current_weights(weights: Weights, architecture: str) -> Weights:
    """Return weights in the form of SAELens 6; a ReLU transcoder gets thresholds of 0, as a JumpReLU transcoder.

    Raises:
        UnsupportedSAE: if the weights have scales of fine-tuning, which no architecture has.
    """
    for name in _FINE_TUNING:
        if name in weights and not bool((weights[name] == 1).all()):
            raise UnsupportedSAE(f"The autoencoder is not supported: it has fine-tuned scales ({name}).")
    weights = {name: value for name, value in weights.items() if name not in _FINE_TUNING}
    return (
        {**weights, "threshold": torch.zeros_like(weights["b_enc"])}
        if architecture == RELU_TRANSCODER
        else weights
    )


def fold(sae: SAE, stored: dict[str, Any]) -> None:
    """Move settings into the weights that this module has no arithmetic for.

    - `apply_b_dec_to_input` false: what the decoder bias would take away from pre-activations is added to them.
    - `rescale_acts_by_decoder_norm`: features are multiplied by the norms of their decoder rows, which become 1.
    """
    if sae.config.FIXED["apply_b_dec_to_input"] and not stored.get("apply_b_dec_to_input", True):
        sae.shift_input(sae.b_dec.detach())
    if stored.get(RESCALE, False):
        norms = sae.W_dec.detach().norm(dim=1)
        if not bool((norms > 0).all()):
            raise ValueError(
                f"W_dec has zeros only at feature {int(norms.argmin())}, by whose norm its features are rescaled"
            )
        sae.scale_features(norms)
