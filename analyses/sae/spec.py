"""Settings for training a sparse autoencoder. Imports nothing slow: `workbench sae train` offers them."""

from pydantic import BaseModel, ConfigDict, Field

from workbench.seeds import Seed

MOST_TRAIN_STEPS = 100_000_000
MOST_FEATURES = 1024  # per channel: more would not fit into memory


class TrainSettings(BaseModel):
    """Training settings shared by all architectures; training uses all steps and tokens of one site and pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    site: str = Field(description="Cached site to decompose.")
    pass_name: str = Field("cond", description="Guidance pass to decompose.")
    expansion: int = Field(
        4, ge=1, le=MOST_FEATURES, description="Expansion factor: features per channel of the site."
    )
    train_steps: int = Field(1000, ge=1, le=MOST_TRAIN_STEPS, description="Training steps.")
    batch_size: int = Field(1024, ge=1, description="Activation vectors per training step.")
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of Adam.")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=1, description="Fraction of the prompts held out for the final metrics."
    )
    seed: Seed = Field(0, description="Seed of the initialisation and data order.")
