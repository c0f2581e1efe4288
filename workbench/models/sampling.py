"""The effective sampling of a run: every setting that shapes it, with the defaults filled in."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Sampling(BaseModel):
    """What a model does when it is asked for some settings (see `AudioDiffusionModel.sampling`).

    `guidance_scale` is 1 if no step is guided. `passes` are the guidance passes of each step. `options` are all options
    of the `architecture`, such as the shift of its schedule. `adapters` are the names of those loaded into the
    denoiser.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: str
    scheduler: str
    guidance_scale: float
    passes: tuple[tuple[str, ...], ...]
    options: dict[str, Any]
    adapters: tuple[str, ...]

    def differences(self, other: "Sampling") -> dict[str, tuple[Any, Any]]:
        """Return the two values of everything that differs, this one's first; the passes follow from the rest."""
        mine, its = (
            {**each.model_dump(exclude={"passes", "options"}), **each.options} for each in (self, other)
        )
        return {
            name: (mine.get(name), its.get(name))
            for name in {**mine, **its}
            if mine.get(name) != its.get(name)
        }
