"""The workbench's autoencoders with the weights of `sae_cases`: objectives, modules, and folders for others to read."""

import sys
from pathlib import Path

import torch

from tests.oracles import sae_cases as cases
from workbench.artefacts.sparsify import write_sparsify
from workbench.sae.base import SAE, Objective
from workbench.sae.batch_topk import BatchTopKObjective
from workbench.sae.folder import save_folder
from workbench.sae.gated import GatedObjective
from workbench.sae.jumprelu import JumpReLUObjective
from workbench.sae.matryoshka import MatryoshkaObjective
from workbench.sae.standard import StandardObjective
from workbench.sae.topk import TopKObjective
from workbench.sae.transcoder import BatchTopKTranscoderObjective, TopKTranscoderObjective

_TOPK = {"k": cases.K, "aux_coefficient": cases.AUX_COEFFICIENT}
_JUMPRELU = {
    "l0_coefficient": cases.SPARSITY_COEFFICIENT,
    "bandwidth": cases.BANDWIDTH,
    "tanh_scale": cases.TANH_SCALE,
    "pre_activation_coefficient": cases.PRE_ACTIVATION_COEFFICIENT,
}
_L1 = {"l1_coefficient": cases.SPARSITY_COEFFICIENT}
OBJECTIVES: dict[str, Objective] = {
    "topk": TopKObjective.model_validate(_TOPK),
    "batchtopk": BatchTopKObjective.model_validate(_TOPK),
    "matryoshka_batchtopk": MatryoshkaObjective.model_validate({**_TOPK, "widths": cases.WIDTHS}),
    "jumprelu_l0": JumpReLUObjective.model_validate(_JUMPRELU),
    "jumprelu_tanh": JumpReLUObjective.model_validate({**_JUMPRELU, "sparsity": "tanh"}),
    "standard": StandardObjective.model_validate(_L1),
    "gated": GatedObjective.model_validate(_L1),
}
TRANSCODERS: dict[str, Objective] = {
    "topk_transcoder": TopKTranscoderObjective(k=cases.K),
    "jumprelu_transcoder": BatchTopKTranscoderObjective(k=cases.K, d_out=cases.CHANNELS_OUT),
}


def our_sae(name: str, dtype: torch.dtype = torch.float32) -> SAE:
    """The autoencoder that an objective trains, with the weights of the cases."""
    objective = {**OBJECTIVES, **TRANSCODERS}[name]
    sae = objective.new_sae(
        cases.CHANNELS, cases.FEATURES, {"hook_name": "tf1.cross_attn", "pass_name": "cond"}
    ).to(dtype)
    threshold = cases.threshold()
    if name in ("batchtopk", "matryoshka_batchtopk"):
        threshold = torch.full_like(threshold, cases.RUNNING_THRESHOLD)
    unit = name not in ("standard", "gated")
    held = {
        **cases.weights(unit, sae.config.d_out),
        **cases.of_gated(),
        "threshold": threshold,
        "log_threshold": threshold.log(),
    }
    with torch.no_grad():
        for key, parameter in sae.named_parameters():
            parameter.copy_(held[key])
    return sae


def write_folders(root: Path) -> None:
    """Write `saelens/ours/<name>` and `sparsify/ours/<name>`."""
    for name in ("topk", "batchtopk", "jumprelu_l0", "standard", "gated", "jumprelu_transcoder"):
        objective = {**OBJECTIVES, **TRANSCODERS}[name]
        # Not `trained` of a free decoder: norms other than 1 are to be read, too.
        sae = objective.trained(our_sae(name)) if name == "jumprelu_l0" else our_sae(name)
        save_folder(sae, root / "saelens" / "ours" / name)
    for name in ("topk", "topk_transcoder"):
        write_sparsify(our_sae(name), root / "sparsify" / "ours" / name)


if __name__ == "__main__":
    write_folders(Path(sys.argv[1]))
