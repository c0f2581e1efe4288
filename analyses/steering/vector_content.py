"""What a steering vector has, which can be read and described without the code that steers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from analyses.steering.checks import Check
from analyses.steering.directions import norms
from analyses.steering.examples import Example
from analyses.steering.pack import read_pack
from analyses.steering.used_saes import UsedSAE
from workbench.engine.settings import GenerationSettings
from workbench.models.sampling import Sampling
from workbench.provenance import provenance

Latents = Literal["own", "positive", "negative"]
"""At which latents the prompts of a pair are compared: each at those of its own run, or both at those of one run."""
KnownLatents = Latents | Literal["mixed", "unknown"]
"""Those of a vector, which may be a stack of different ones, or come from elsewhere."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorContent:
    """Directions from the `negative` values of a concept to its `positive` one.

    Attributes:
        method: the name of the method that found them, such as caa.
        concept: the concept, or descriptor.
        positive: the value, or end, towards which they point.
        negative: the values that they point away from.
        directions: an array for each site with dims (pass, step, channel) or, if they change along the clip, (pass,
            step, token, channel), and coordinates pass, step and sigma, in the units of the site's output.
        unit: what a strength of 1 adds, in words.
        model: the model that they are valid for (its `describe()`).
        settings: the settings that they were computed with.
        sampling: what the model did with these settings (its `sampling(settings)`).
        examples: the clips that they were computed from; empty if they are unknown.
        reliability: how much they depend on the choice of pairs (see `analyses.steering.reliability`).
        latents: at which latents the clips of a pair were compared (see `KnownLatents`).
        cycle: whether the tokens are a cycle that repeats along the clip.
        raw_norms: the norms by site, pass and step before the directions were normalised, NaN if they are unknown; by
            default their own, if they are not normalised.
        saes: the sparse autoencoders whose features the directions are, if any, with the steps at which they may not be
            used.
        checks: what judges say of it on other prompts, an entry for each (see `analyses.steering.judging`); empty if it
            was not judged, as after any change of its directions.
        provenance: versions and time of the computation.
    """

    method: str
    concept: str
    positive: str
    negative: str
    directions: Mapping[str, xr.DataArray]
    unit: str
    model: Mapping[str, Any]
    settings: GenerationSettings
    sampling: Sampling
    examples: tuple[Example, ...]
    reliability: xr.Dataset
    latents: KnownLatents = "own"
    cycle: bool = False
    raw_norms: Mapping[str, xr.DataArray] = field(default_factory=dict)
    saes: tuple[UsedSAE, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=provenance)

    def __post_init__(self) -> None:
        if not self.raw_norms:
            object.__setattr__(self, "raw_norms", self.norms)

    @property
    def n_pairs(self) -> int:
        """Number of pairs among the examples."""
        return len({example.pair for example in self.examples} - {None})

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The sigma of each step."""
        return tuple(next(iter(self.directions.values()))["sigma"].values.tolist())

    @cached_property
    def norms(self) -> dict[str, xr.DataArray]:
        """The norm of each site's direction by pass and step; if it has tokens, the root mean square over them."""
        return {site: norms(array) for site, array in self.directions.items()}


def load_content(path: str | os.PathLike[str], root: Path | None = None) -> VectorContent:
    """Load what a vector has from its file; as `analyses.steering.vector.load_vector`, but without importing torch."""
    return VectorContent(**read_pack(path, root))
