"""Settings for training a sparse autoencoder. Imports nothing slow: `workbench sae train` offers them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.seeds import Seed

FOLDER = "sae"
"""In a study, of its autoencoders."""

MADE_WITH = "made_with"
"""The entry of an autoencoder's metadata that has the spec which it was made with."""

InputScale = Literal["global", "channel", "step", "uncentred"]
"""What inputs are centred and scaled alike: all, those of a channel, or those of a step; or all are only scaled."""

DEAD_AFTER = 20
"""A feature that has not been positive on any row for this many training steps is dead, and is revived.

Features die for good when they are left longer: of 67,200 rows, 20 steps are a third.
"""
MOST_TRAIN_STEPS = 100_000_000
MOST_FEATURES = 1024  # per channel: more would not fit into memory


class TrainSettings(BaseModel):
    """Training settings shared by all architectures; training uses all steps and tokens of one site and pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    site: str = Field(description="Site to decompose; a cached one, unless the source is generation.")
    pass_name: str = Field("cond", description="Guidance pass to decompose.")
    expansion: int = Field(
        4, ge=1, le=MOST_FEATURES, description="Expansion factor: features per channel of the site."
    )
    train_steps: int = Field(1000, ge=1, le=MOST_TRAIN_STEPS, description="Training steps.")
    batch_size: int = Field(1024, ge=1, description="Activation vectors per training step.")
    target_site: str = Field("", description="For a transcoder: the site that it reconstructs.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number format of the products in training; the weights stay in float32."
    )
    source: Literal["cache", "generation"] = Field(
        "cache",
        description="Where activations come from: the study's cache, or clips that the model generates meanwhile.",
    )
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of Adam.")
    input_scale: InputScale = Field(
        "global",
        description="Centre and scale the inputs alike (global), per channel, or per step; or only scale them "
        "(uncentred).",
    )
    held_out_fraction: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Fraction of the prompts held out for the final metrics; every concept value is among them.",
    )
    seed: Seed = Field(0, description="Seed of the initialisation.")
    data_seed: Seed = Field(0, description="Seed of the data order and the held-out prompts.")

    @property
    def sites(self) -> tuple[str, ...]:
        """The site, and that of the target if there is one."""
        return (self.site, self.target_site) if self.target_site else (self.site,)


def foretelling(ratio: float, where: str = "") -> str:
    """Return a sentence on the ratio of the inputs' mean to their spread, which foretells dead features."""
    return (
        f"The mean of the inputs{where} has {ratio:.3g} times the norm of the spread about it. The larger this ratio, "
        "the more features tend to be dead."
    )
