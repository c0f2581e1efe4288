"""Generation settings. Imports nothing slow: `workbench trace` takes options from here."""

from pydantic import BaseModel, ConfigDict, Field

from workbench.validation import MadeByUsers, must_be

LONGEST_CLIP = 3600.0
"""Seconds of the longest clip; models make shorter ones."""
MOST_STEPS = 10_000


class GenerationSettings(BaseModel, metaclass=MadeByUsers):
    """Settings of a generation, the same for every row of a batch.

    Guidance is on if `guidance_scale` is above 1. `options` are the settings of one architecture (see
    `docs/reference/models.md`); a model refuses options that it does not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    duration: float = Field(4.0, gt=0, le=LONGEST_CLIP, description="Clip duration in seconds.")
    num_steps: int = Field(8, ge=1, le=MOST_STEPS, description="Denoising steps.")
    guidance_scale: float = Field(3.0, ge=1, description="Guidance scale; 1 disables guidance.")
    options: dict[str, bool | int | float | str] = {}


def settings_or_default(settings: GenerationSettings | None) -> GenerationSettings:
    """Return the settings, by default those of `GenerationSettings()`; raise UserError for anything else."""
    if settings is None:
        return GenerationSettings()
    must_be(
        GenerationSettings,
        settings,
        "Settings must be made by wb.GenerationSettings, such as wb.GenerationSettings(num_steps=8)",
    )
    return settings
