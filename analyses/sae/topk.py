"""The TopK sparse autoencoder and its folder on disk."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cache.errors import UserError
from workbench.files import replacing

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"

# What a folder must say to mean the arithmetic of this module.
ARITHMETIC = {
    "architecture": "topk",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "rescale_acts_by_decoder_norm": False,
}
# SAELens keeps the metadata of a folder only where it says that it has the format of version 6.
FORMAT = {"sae_lens_version": "6.0.0", "dtype": "float32", "device": "cpu"}


class TopKConfig(BaseModel):
    """Sizes of a TopK SAE: input channels, features, and how many features may be active on one row.

    `metadata` tells where the inputs come from: `hook_name` (the site), `pass_name`. Raises UserError when k
    is larger than the number of features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_in: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    k: int = Field(ge=1)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _k_fits(self) -> "TopKConfig":
        if self.k > self.d_sae:
            raise UserError(
                f"k is {self.k}, but the autoencoder has only {self.d_sae} features: ask for a smaller k."
            )
        return self


class TopKSAE(nn.Module):
    """Sparse autoencoder that keeps the k largest features of each row (Gao et al. 2024, arXiv 2406.04093).

    Encoding: `z = TopK_k(relu((x - b_dec) @ W_enc + b_enc))`. Decoding: `x_hat = z @ W_dec + b_dec`.
    Parameters have SAELens' names and axes: `W_enc` (channel, feature), `b_enc` (feature), `W_dec` (feature,
    channel), `b_dec` (channel). New modules are all zeros; `analyses.sae.train` initialises them.
    """

    def __init__(self, config: TopKConfig) -> None:
        super().__init__()
        self.config = config
        self.W_enc = nn.Parameter(torch.zeros(config.d_in, config.d_sae))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, config.d_in))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))

    def pre_activations(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows feature"]:
        """Feature values of either sign, before the k largest are kept."""
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows feature"]:
        """Feature activations: at most k of each row are positive, all others are 0."""
        return keep_largest(torch.relu(self.pre_activations(x)), self.config.k)

    def decode(self, acts: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows channel"]:
        """Reconstruction from feature activations."""
        return acts @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows channel"]:
        """Reconstruction of `x`."""
        return self.decode(self.encode(x))

    def save(self, folder: Path) -> None:
        """Write `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads them."""
        config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        # A folder has its configuration only while its weights are whole.
        config.unlink(missing_ok=True)
        with replacing(weights) as partial:
            save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, partial)
        with replacing(config) as partial:
            partial.write_text(json.dumps({**self.config.model_dump(), **ARITHMETIC, **FORMAT}))

    @classmethod
    def load(cls, folder: Path) -> "TopKSAE":
        """Read a folder written by `save`, or a SAELens folder of the same arithmetic, as float32 on the CPU.

        Raises:
            UserError: the folder is missing or damaged, or its configuration asks for another arithmetic.
        """
        if not (folder / CONFIG_FILE).is_file():
            raise UserError(f"{folder} is no sparse autoencoder (it has no {CONFIG_FILE}): train one first.")
        try:
            stored = json.loads((folder / CONFIG_FILE).read_text())
            sae = cls(TopKConfig.model_validate({name: stored[name] for name in TopKConfig.model_fields}))
            weights = load_file(folder / WEIGHTS_FILE)
            sae.load_state_dict({name: value.float() for name, value in weights.items()})
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"The sparse autoencoder in {folder} is damaged: train it again.") from error
        for key, value in ARITHMETIC.items():
            if stored.get(key, value) != value:
                raise UserError(
                    f"{folder / CONFIG_FILE} says {key}={stored[key]!r}: only {value!r} can be used."
                )
        return sae


def keep_largest(values: Float[Tensor, "*rows feature"], k: int) -> Float[Tensor, "*rows feature"]:
    """`values` with all but the k largest of each row set to 0."""
    largest = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, largest.indices, largest.values)
