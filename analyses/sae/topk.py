"""The TopK sparse autoencoder and its folder on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from cache.errors import UserError
from cache.opening import UnsafeFile, file_size, remove_file
from workbench.documents import read_document
from workbench.files import replacing
from workbench.tensor_files import load_tensors

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
MAX_CONFIG_BYTES = 2**24

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


class UnsupportedSae(UserError):
    """An autoencoder of another arithmetic than this module's."""


class TopKSAE(nn.Module):
    """Sparse autoencoder that keeps the k largest features of each row (Gao et al. 2024, arXiv 2406.04093).

    Encoding: `z = TopK_k(relu((x - b_dec) @ W_enc + b_enc))`. Decoding: `x_hat = z @ W_dec + b_dec`.
    Parameters have SAELens' names and axes: `W_enc` (channel, feature), `b_enc` (feature), `W_dec` (feature,
    channel), `b_dec` (channel). Without `weights` all are zeros, and `analyses.sae.train` initialises them.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, config: TopKConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        shapes = {
            "W_enc": (config.d_in, config.d_sae),
            "b_enc": (config.d_sae,),
            "W_dec": (config.d_sae, config.d_in),
            "b_dec": (config.d_in,),
        }
        # Compared before anything of that size is made: a configuration can say what it likes.
        if weights is not None and {name: tuple(value.shape) for name, value in weights.items()} != shapes:
            raise ValueError("the weights have other shapes than the configuration says")
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape) if weights is None else weights[name]))

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

    def save(self, folder: Path, root: Path | None = None) -> None:
        """Write `cfg.json` and `sae_weights.safetensors`, as `sae_lens.SAE.load_from_disk` reads them.

        Where the folder lies in a study, `root` is the study's folder: links between the two are not followed.
        """
        config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        with replacing(weights, root) as partial:
            # A folder has its configuration only while its weights are whole.
            remove_file(root or folder, config.relative_to(root or folder))
            save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, partial)
        with replacing(config, root) as partial:
            partial.write_text(json.dumps({**self.config.model_dump(), **ARITHMETIC, **FORMAT}))

    @classmethod
    def load(cls, folder: Path, root: Path | None = None) -> "TopKSAE":
        """Read a folder written by `save`, or a SAELens folder of the same arithmetic, as float32 on the CPU.

        Raises:
            UserError: the folder is missing or damaged, its configuration asks for another arithmetic, or there are
                links between it and `root`, the study in which it lies.
        """
        inside = folder.relative_to(root) if root else Path()
        if not folder.is_dir() or file_size(root or folder, inside / CONFIG_FILE) is None:
            raise UserError(f"{folder} is no sparse autoencoder (it has no {CONFIG_FILE}): train one first.")
        try:
            stored = read_document(root or folder, inside / CONFIG_FILE, MAX_CONFIG_BYTES)
            _check_arithmetic(stored, folder / CONFIG_FILE)
            config = TopKConfig.model_validate({name: stored[name] for name in TopKConfig.model_fields})
            weights, _ = load_tensors(root or folder, inside / WEIGHTS_FILE)
            sae = cls(config, {name: torch.from_numpy(value).float() for name, value in weights.items()})
        except (UnsafeFile, UnsupportedSae):
            raise
        except (FileNotFoundError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"The sparse autoencoder in {folder} is damaged: train it again.") from error
        return sae


def _check_arithmetic(stored: dict[str, Any], file: Path) -> None:
    """Raise UnsupportedSae for the configuration of another arithmetic."""
    for key, value in ARITHMETIC.items():
        found = stored.get(key, value)
        if found != value:
            shown = str(found)[:80] if key == "architecture" else f"{key}={repr(found)[:80]}"
            raise UnsupportedSae(
                f"{file} is of an autoencoder that is not supported: {shown}. It must be {value!r}."
            )


def keep_largest(values: Float[Tensor, "*rows feature"], k: int) -> Float[Tensor, "*rows feature"]:
    """`values` with all but the k largest of each row set to 0."""
    largest = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, largest.indices, largest.values)
