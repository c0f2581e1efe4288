"""Training settings by architecture. Imports nothing slow: `workbench sae train` takes options from here.

A field of the same name means the same, with the same default, in every architecture that has it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cache.errors import UserError


class TopKSettings(BaseModel):
    """Settings of `TopKObjective`."""

    model_config = ConfigDict(defer_build=True)

    architecture: Literal["topk"] = "topk"
    k: int = Field(8, ge=1, description="Active features per token.")
    aux_coefficient: float = Field(
        1 / 32, ge=0, description="Weight of the auxiliary loss, which revives dead features."
    )


class BatchTopKSettings(TopKSettings):
    """Settings of `BatchTopKObjective`; k is the mean over the tokens of a batch."""

    architecture: Literal["batchtopk"] = "batchtopk"  # type: ignore[assignment]
    decoder_norm: Literal["unit", "free"] = Field(
        "unit",
        description="Norms of decoder rows in training; free as in SAELens, which leaves more features dead.",
    )


class MatryoshkaSettings(BatchTopKSettings):
    """Settings of `MatryoshkaObjective`."""

    architecture: Literal["matryoshka_batchtopk"] = "matryoshka_batchtopk"  # type: ignore[assignment]
    widths: tuple[int, ...] = Field(
        (),
        description="Number of features of a prefix that must reconstruct alone. Default: 1, 3, 7 and 15 of 32.",
    )

    def prefixes(self, d_sae: int) -> list[int]:
        """Return the widths of the prefixes, without the whole.

        The default is that of Bussmann et al. 2025 (arXiv 2503.17547), whose groups double.

        Raises:
            UserError: if the widths do not increase from 1 to below `d_sae`.
        """
        widths = list(self.widths) or [d_sae * part // 32 for part in (1, 3, 7, 15) if d_sae * part >= 32]
        if widths != sorted({width for width in widths if 0 < width < d_sae}):
            raise UserError(
                f"The widths of the prefixes must increase, from at least 1 to less than the {d_sae} features; "
                f"they are {', '.join(map(str, widths))}."
            )
        return widths


class JumpReLUSettings(BaseModel):
    """Settings of `JumpReLUObjective`."""

    model_config = ConfigDict(defer_build=True)

    architecture: Literal["jumprelu"] = "jumprelu"
    sparsity: Literal["l0", "tanh"] = Field(
        "l0",
        description="Sparsity term: the number of active features, or a smooth count of their activations.",
    )
    l0_coefficient: float = Field(1.0, ge=0, description="Weight of the sparsity term of JumpReLU.")
    warm_up: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Fraction of the training over which the sparsity term grows to its weight.",
    )
    threshold: float = Field(1.0, gt=0, description="Threshold of all features before training.")
    bandwidth: float = Field(0.1, gt=0, description="Width around a threshold in which activations move it.")
    tanh_scale: float = Field(4.0, gt=0, description="Factor of the activations inside the tanh.")
    pre_activation_coefficient: float = Field(
        3e-6, ge=0, description="Weight of the loss that lifts dead features to their thresholds."
    )


class StandardSettings(BaseModel):
    """Settings of `StandardObjective`."""

    model_config = ConfigDict(defer_build=True)

    architecture: Literal["standard"] = "standard"
    l1_coefficient: float = Field(1.0, ge=0, description="Weight of the sum of activations (L1).")
    warm_up: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Fraction of the training over which the sparsity term grows to its weight.",
    )


class GatedSettings(StandardSettings):
    """Settings of `GatedObjective`."""

    architecture: Literal["gated"] = "gated"  # type: ignore[assignment]


class TopKTranscoderSettings(TopKSettings):
    """Settings of `TopKTranscoderObjective`; `d_out` is the number of channels of the site that it reconstructs."""

    architecture: Literal["topk_transcoder"] = "topk_transcoder"  # type: ignore[assignment]
    d_out: int | None = Field(None, ge=1)  # as many as the inputs have


class BatchTopKTranscoderSettings(BatchTopKSettings):
    """Settings of `BatchTopKTranscoderObjective`."""

    architecture: Literal["batchtopk_transcoder"] = "batchtopk_transcoder"  # type: ignore[assignment]
    d_out: int | None = Field(None, ge=1)


SETTINGS = (
    TopKSettings,
    BatchTopKSettings,
    MatryoshkaSettings,
    JumpReLUSettings,
    StandardSettings,
    GatedSettings,
    TopKTranscoderSettings,
    BatchTopKTranscoderSettings,
)
"""Those of all architectures."""
ARCHITECTURES: tuple[str, ...] = tuple(each.model_fields["architecture"].default for each in SETTINGS)


def sae_kind(trained_as: str, kept_as: str) -> str:
    """Return the kind that an autoencoder was trained as, and what it is kept as if that is another."""
    return kept_as if trained_as == kept_as else f"{trained_as}, kept as {kept_as}"
