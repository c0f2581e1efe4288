"""Write the fixtures of the autoencoders: what SAELens and sparsify compute. README.md says how to run it.

Weights and rows are those of `sae_cases`, so only outputs are stored. `ours/` must exist already (`our_saes`).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import numpy as np
import sae_lens
import torch
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAE, TrainingSAE, TrainStepInput
from sparsify import SparseCoder, SparseCoderConfig

from tests.oracles import sae_cases as cases

Arrays = dict[str, np.ndarray]

TOPK = {
    "k": cases.K,
    "rescale_acts_by_decoder_norm": False,
    "aux_loss_coefficient": cases.AUX_COEFFICIENT,
}
JUMPRELU = {
    "jumprelu_bandwidth": cases.BANDWIDTH,
    "jumprelu_tanh_scale": cases.TANH_SCALE,
    "pre_act_loss_coefficient": cases.PRE_ACTIVATION_COEFFICIENT,
}
L0, L1 = {"l0": cases.SPARSITY_COEFFICIENT}, {"l1": cases.SPARSITY_COEFFICIENT}
# By name of the fixture: SAELens' architecture, options, coefficients.
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "topk": ("topk", TOPK, {}),
    "batchtopk": ("batchtopk", TOPK, {}),
    "matryoshka_batchtopk": (
        "matryoshka_batchtopk",
        {**TOPK, "matryoshka_widths": [*cases.WIDTHS, cases.FEATURES]},
        {},
    ),
    "jumprelu_l0": ("jumprelu", JUMPRELU, L0),
    "jumprelu_tanh": ("jumprelu", {**JUMPRELU, "jumprelu_sparsity_loss_mode": "tanh"}, L0),
    "standard": ("standard", {}, L1),
    "gated": ("gated", {}, L1),
}
FREE_DECODER = ("standard", "gated")


def set_weights(sae: SAE, unit: bool, dtype: torch.dtype, out: int = cases.CHANNELS) -> None:
    held = {**cases.weights(unit, out), **cases.of_gated(), "threshold": cases.threshold()}
    held["b_gate"] = held["b_enc"]
    for name, parameter in sae.named_parameters():
        # `.data`: SAELens keeps thresholds in float32, too narrow for a comparison in float64.
        parameter.data = held[name].to(dtype).clone()
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold = torch.tensor(cases.RUNNING_THRESHOLD, dtype=torch.float64)


def in_training(name: str, dtype: torch.dtype) -> TrainingSAE:
    architecture, options, _ = KINDS[name]
    sae_class, config_class = get_sae_training_class(architecture)
    sae = sae_class(
        config_class(
            d_in=cases.CHANNELS, d_sae=cases.FEATURES, dtype=str(dtype).removeprefix("torch."), **options
        )
    )
    set_weights(sae, name not in FREE_DECODER, dtype)
    return sae


def of_training(name: str, dtype: torch.dtype) -> Arrays:
    """Outputs, terms, gradients of each term, and the parameters after a step of plain gradient descent."""
    sae = in_training(name, dtype)
    parameters = dict(sae.named_parameters())
    x = cases.rows().to(dtype)
    out = sae.training_forward_pass(TrainStepInput(x, KINDS[name][2], cases.dead(), 0, False))
    arrays = {"acts": out.feature_acts, "x_hat": out.sae_out}
    if hasattr(sae, "topk_threshold"):
        arrays["running_threshold"] = sae.topk_threshold.to(dtype)
    for term, value in out.losses.items():
        arrays[f"term/{term}"] = value
        found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        for key, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                arrays[f"gradient/{term}/{key}"] = gradient
    out.loss.backward()
    torch.optim.SGD(parameters.values(), lr=cases.LEARNING_RATE).step()
    arrays |= {f"after/{key}": value for key, value in parameters.items()}
    return {key: value.detach().numpy() for key, value in arrays.items()}


def for_inference(folder: Path, architecture: str, **options: Any) -> None:
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class(d_in=cases.CHANNELS, d_sae=cases.FEATURES, **options))
    set_weights(sae, False, torch.float32, options.get("d_out", cases.CHANNELS))
    sae.save_model(folder)


def of_folders(root: Path) -> Arrays:
    """Write `theirs/<name>`, and return what SAELens computes with these folders and with `ours/<name>`."""
    transcoder = {"apply_b_dec_to_input": False, "d_out": cases.CHANNELS_OUT}
    makers: dict[str, Callable[[Path], object]] = {
        **{
            name: lambda at, name=name: in_training(name, torch.float32).save_inference_model(at)
            for name in KINDS
            if name != "jumprelu_tanh"
        },
        "transcoder": lambda at: for_inference(at, "transcoder", **transcoder),
        "jumprelu_transcoder": lambda at: for_inference(at, "jumprelu_transcoder", **transcoder),
        "standard_without_b_dec": lambda at: for_inference(at, "standard", apply_b_dec_to_input=False),
        "gated_without_b_dec": lambda at: for_inference(at, "gated", apply_b_dec_to_input=False),
        "topk_rescaled": lambda at: for_inference(at, "topk", k=cases.K, rescale_acts_by_decoder_norm=True),
    }
    for name, make in makers.items():
        make(root / "theirs" / name)
    arrays = {}
    for at in sorted([*(root / "theirs").iterdir(), *(root / "ours").iterdir()]):
        sae = sae_lens.SAE.load_from_disk(at, device="cpu")
        with torch.no_grad():
            acts = sae.encode(cases.rows().float())
            name = f"{at.parent.name}/{at.name}"
            arrays[f"{name}/acts"], arrays[f"{name}/x_hat"] = acts.numpy(), sae.decode(acts).numpy()
    return arrays


def of_sparsify(root: Path) -> Arrays:
    """Forward pass, fraction of variance unexplained and auxiliary loss, and what is reconstructed with `ours/`."""
    arrays = {}
    for name in ("topk", "topk_transcoder"):
        transcode = name == "topk_transcoder"
        for label, dtype in cases.DTYPES.items():
            config = SparseCoderConfig(num_latents=cases.FEATURES, k=cases.K, transcode=transcode)
            coder = SparseCoder(cases.CHANNELS, config, dtype=dtype)
            held = cases.weights(unit=True)
            with torch.no_grad():
                coder.encoder.weight.copy_(held["W_enc"].T)
                coder.encoder.bias.copy_(held["b_enc"])
                coder.W_dec.copy_(held["W_dec"])
                coder.b_dec.copy_(held["b_dec"])
            target = cases.targets().to(dtype) if transcode else None
            out = coder(cases.rows().to(dtype), target, dead_mask=cases.dead())
            acts = torch.zeros(cases.ROWS, cases.FEATURES, dtype=dtype)
            found = {
                "acts": acts.scatter(1, out.latent_indices, out.latent_acts),
                "x_hat": out.sae_out,
                "fvu": out.fvu,
                "auxk": out.auxk_loss,
            }
            for term in ("fvu", "auxk"):
                (found[f"gradient/{term}/W_dec"],) = torch.autograd.grad(
                    found[term], [coder.W_dec], retain_graph=True
                )
            arrays |= {f"{name}/{label}/{key}": value.detach().numpy() for key, value in found.items()}
            if label == "float32":
                coder.save_to_disk(root / "theirs" / name)
    for at in sorted((root / "ours").iterdir()):
        with torch.no_grad():
            arrays[f"ours/{at.name}"] = SparseCoder.load_from_disk(at)(cases.rows().float()).sae_out.numpy()
    return arrays


def main() -> None:
    saelens, sparsify = (Path(sys.argv[1]) / name for name in ("saelens", "sparsify"))
    for name in KINDS:
        arrays = {
            f"{label}/{key}": value
            for label, dtype in cases.DTYPES.items()
            for key, value in of_training(name, dtype).items()
            if label == "float64" or not key.startswith("gradient")
        }
        np.savez_compressed(saelens / f"{name}.npz", **arrays)
    np.savez_compressed(saelens / "folders.npz", **of_folders(saelens))
    np.savez_compressed(sparsify / "outputs.npz", **of_sparsify(sparsify))


if __name__ == "__main__":
    main()
