"""Training settings by architecture. Imports nothing slow: `workbench sae train` takes options from here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TopKSettings(BaseModel):
    """Settings of `TopKObjective`."""

    model_config = ConfigDict(defer_build=True)

    architecture: Literal["topk"] = "topk"
    k: int = Field(8, ge=1, description="Active features per token.")
    aux_coefficient: float = Field(
        1 / 32, ge=0, description="Weight of the auxiliary loss, which revives dead features."
    )
