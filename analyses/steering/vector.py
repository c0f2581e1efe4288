"""A steering direction for each site and step, and its file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from cache.errors import UserError
from cache.opening import UnsafeFile
from workbench.documents import parse_document
from workbench.engine.edits import Edit, add
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.tensor_files import load_tensors, write_tensors
from workbench.validation import must_be, validated

_HEADER = "steering_vector"
_FILE = "A vector's file must be given by its path, such as 'vectors/mood.safetensors'"


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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vector, with everything that it has, as a safetensors file; `load_vector` reads it.

        Returns:
            The path. Missing folders are created, and an existing file is replaced.

        Raises:
            UserError: if the file cannot be written; an existing file is then unchanged.
        """
        must_be((str, os.PathLike), path, _FILE)
        file = Path(path)
        header = _Header(
            **{name: getattr(self, name) for name in _PLAIN},
            model=dict(self.model),
            steps={site: array["step"].values.tolist() for site, array in self.directions.items()},
            sigmas={site: array["sigma"].values.tolist() for site, array in self.directions.items()},
        )
        arrays = {site: array.values for site, array in self.directions.items()}
        write_tensors(file, arrays, {_HEADER: json.dumps(header.model_dump(), ensure_ascii=False)})
        return file

    def __repr__(self) -> str:
        ends = f"{self.concept}: + is {self.positive}, − is {self.negative}"
        return f"Vector({ends}; {', '.join(self.directions)}; {self.n_pairs} pairs of {self.model['model']})"


class _Header(BaseModel):
    """What the file of a vector says about its arrays, which have the names of the sites."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    concept: str
    positive: str
    negative: str
    model: dict[str, Any]
    settings: GenerationSettings
    n_pairs: int = Field(ge=1)
    steps: dict[str, list[int]] = Field(min_length=1)
    sigmas: dict[str, list[float]]


_PLAIN = ("concept", "positive", "negative", "settings", "n_pairs")


def load_vector(path: str | os.PathLike[str]) -> Vector:
    """Load a vector that `Vector.save` wrote.

    Raises:
        UserError: if the file does not exist, is damaged, or is not a vector.
    """
    must_be((str, os.PathLike), path, _FILE)
    file = Path(path)
    try:
        arrays, texts = load_tensors(file.parent, file.name)
        if _HEADER not in texts:
            raise ValueError("it has no vector")
        header = validated(_Header, parse_document(texts[_HEADER]), "it is of another kind")
        return _vector(header, arrays)
    except UnsafeFile:
        raise
    except OSError as error:
        raise UserError(
            f"The vector {file} cannot be read ({error.strerror}). Give the path of its file."
        ) from error
    except (ValueError, UserError) as error:
        reason = str(error)[:200].rstrip(".")
        raise UserError(
            f"{file} is not a vector, or is damaged ({reason}). Give a file that a vector's `save` wrote."
        ) from error


def _vector(header: _Header, arrays: Mapping[str, np.ndarray]) -> Vector:
    """Combine a header with its arrays; raise ValueError or UserError unless they fit together."""
    for name in ("model", "weights_hash"):
        if not isinstance(header.model.get(name), str):
            raise ValueError(f"its model has no {name}")
    if not set(header.steps) == set(header.sigmas) == set(arrays):
        raise ValueError("its arrays are not those of its sites")
    directions = {}
    for site, steps in header.steps.items():
        Site.parse(site)
        values, sigmas = arrays[site], header.sigmas[site]
        if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all() or not values.size:
            raise ValueError(f"{site} does not have finite numbers by step and channel")
        if not len(values) == len(steps) == len(set(steps)) == len(sigmas):
            raise ValueError(f"{site} does not have one row for each step")
        coordinates = {"step": steps, "sigma": ("step", sigmas)}
        directions[site] = xr.DataArray(values, coordinates, ("step", "channel"), name=site)
    plain = {name: getattr(header, name) for name in _PLAIN}
    return Vector(**plain, directions=directions, model=header.model)
