"""A steering direction for each site and step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from workbench.engine.edits import Edit, add
from workbench.engine.settings import GenerationSettings


@dataclass(frozen=True, eq=False)
class Vector:
    """Directions from the `negative` values of a concept to its `positive` one.

    `directions` has an array for each site with dims (step, channel) and coordinates step and sigma, in the units of
    the site's output. They are valid for the `model` (its `describe()`) and `settings` that they were computed with.
    """

    concept: str
    positive: str
    negative: str
    directions: Mapping[str, xr.DataArray]
    model: Mapping[str, Any]
    settings: GenerationSettings
    n_pairs: int

    def at(self, strength: float) -> tuple[Edit, ...]:
        """Return edits that add `strength` times the direction to every token at each site and step, in the cond pass.

        Pass them to `generate` as one entry of its `edits`. A model with other weights, and a run with other steps,
        refuse them.
        """
        made_on = (self.model["model"], self.model["weights_hash"])
        made_at = tuple(next(iter(self.directions.values()))["sigma"].values.tolist())
        edits = (
            add(array.sel(step=step).values, site, strength, steps=(step, step), passes=("cond",))
            for site, array in self.directions.items()
            for step in array["step"].values.tolist()
        )
        return tuple(replace(edit, made_on=made_on, made_at=made_at) for edit in edits)

    def __repr__(self) -> str:
        ends = f"{self.concept}: + is {self.positive}, − is {self.negative}"
        return f"Vector({ends}; {', '.join(self.directions)}; {self.n_pairs} pairs of {self.model['model']})"
