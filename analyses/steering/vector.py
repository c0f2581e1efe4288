"""A steering direction for each site and step, and its file."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from analyses.steering.reliability import as_dataset
from analyses.steering.schedule import Schedule, weights
from cache.errors import UserError
from cache.opening import UnsafeFile
from cache.protocol import Pass
from cache.wording import printable
from workbench.documents import parse_document
from workbench.engine.edits import Edit, add
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.provenance import content_hash
from workbench.tensor_files import load_tensors, write_tensors
from workbench.validation import Number, must_be, validated

PassMode = Literal["cond_only", "null_only", "null_on_cond", "separate", "cond_on_both", "null_on_both"]
PASS_MODES: dict[PassMode, dict[Pass, Pass]] = {
    "cond_only": {"cond": "cond"},
    "null_only": {"null": "null"},
    "null_on_cond": {"cond": "null"},
    "separate": {"cond": "cond", "null": "null"},
    "cond_on_both": {"cond": "cond", "null": "cond"},
    "null_on_both": {"cond": "null", "null": "null"},
}
"""For each mode of TADA's code, the passes that are steered, and the pass whose direction they get."""
_HEADER = "steering_vector"
_RELIABILITY = "reliability."
_FILE = "A vector's file must be given by its path, such as 'vectors/mood.safetensors'"


@dataclass(frozen=True, eq=False)
class Vector:
    """Directions from the `negative` values of a concept to its `positive` one.

    `directions` has an array for each site with dims (pass, step, channel) or, if they change along the clip, (pass,
    step, token, channel), and coordinates pass, step and sigma, in the units of the site's output. They are valid for
    the `model` (its `describe()`) and `settings` that they were computed with. With `cycle`, the tokens are a cycle
    that repeats along the clip. `reliability` says how much the directions depend on the choice of pairs (see
    `analyses.steering.reliability`).
    """

    concept: str
    positive: str
    negative: str
    directions: Mapping[str, xr.DataArray]
    model: Mapping[str, Any]
    settings: GenerationSettings
    n_pairs: int
    reliability: xr.Dataset
    cycle: bool = False

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The sigma of each step."""
        return tuple(next(iter(self.directions.values()))["sigma"].values.tolist())

    @cached_property
    def norms(self) -> dict[str, xr.DataArray]:
        """The norm of each site's direction by pass and step; if it has tokens, the root mean square over them."""
        return {site: _norm(array) for site, array in self.directions.items()}

    def at(
        self,
        strength: float,
        *,
        unit: Literal["difference", "norm"] = "difference",
        passes: PassMode = "cond_only",
        schedule: Schedule = "constant",
        over: Literal["steps", "sigmas"] = "steps",
        start_step: int = 0,
        keep_norm: bool = False,
    ) -> tuple[Edit, ...]:
        """Return edits that add `strength` times the direction to every token at each site and step.

        Pass them to `generate` as one entry of its `edits`. A model with other weights, and a run with other steps,
        refuse them.

        Args:
            strength: the factor; negative towards the `negative` values.
            unit: what a strength of 1 adds: the direction as it is, which is a mean `difference`, or one of length 1 at
                every site, pass and step (`norm`, as in TADA).
            passes: to which passes the direction is added, and of which pass it is (see `PASS_MODES`).
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.
            keep_norm: scale every token to the norm that it had before the addition.

        Raises:
            UserError: for an unknown mode or schedule, a strength that is not finite, a pass that the vector does not
                have, or a first step beyond its last.
        """
        how = validated(
            _Application,
            {"strength": strength, "unit": unit, "passes": passes, "over": over, "start_step": start_step},
            "Invalid steering",
        )
        by_step = weights(schedule, self.sigmas, over)
        if start_step >= len(by_step):
            raise UserError(f"The first steered step must be from 0 to {len(by_step) - 1}; got {start_step}.")
        edits = (
            self._edit(site, acting, own, step, how, float(by_step[step]), keep_norm)
            for site in self.directions
            for acting, own in PASS_MODES[how.passes].items()
            for step in range(start_step, len(by_step))
        )
        made_on = (self.model["model"], self.model["weights_hash"])
        return tuple(replace(edit, made_on=made_on, made_at=self.sigmas) for edit in edits)

    def _edit(
        self,
        site: str,
        acting: Pass,
        own: Pass,
        step: int,
        how: "_Application",
        weight: float,
        keep_norm: bool,
    ) -> Edit:
        """Return the edit of one site and step in the pass `acting`, with the direction of the pass `own`."""
        array = self.directions[site]
        if own not in array["pass"].values:
            raise UserError(
                f"This vector has no direction of the {own} pass. Make it with passes=('cond', 'null')."
            )
        place = {"pass": own, "step": step}
        length = float(self.norms[site].sel(place)) if how.unit == "norm" else 1.0
        return add(
            array.sel(place).values,
            site,
            how.strength * weight / (length or 1.0),
            keep_norm=keep_norm,
            cycle=self.cycle,
            steps=(step, step),
            passes=(acting,),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vector, with everything that it has, as a safetensors file; `load_vector` reads it.

        Returns:
            The path. Missing folders are created, and an existing file is replaced.

        Raises:
            UserError: if the file cannot be written; an existing file is then unchanged.
        """
        must_be((str, os.PathLike), path, _FILE)
        file = Path(path)
        arrays = {site: array.values for site, array in self.directions.items()}
        arrays |= {f"{_RELIABILITY}{name}": array.values for name, array in self.reliability.items()}
        header = _Header(
            **{name: getattr(self, name) for name in _PLAIN},
            model=dict(self.model),
            sites=list(self.directions),
            passes=next(iter(self.directions.values()))["pass"].values.tolist(),
            sigmas=list(self.sigmas),
            pairs=self.reliability["pairs"].values.tolist(),
            content=_content(arrays),
        )
        write_tensors(file, arrays, {_HEADER: json.dumps(header.model_dump(), ensure_ascii=False)})
        return file

    def __repr__(self) -> str:
        ends = f"{self.concept}: + is {self.positive}, − is {self.negative}"
        made_of = f"{', '.join(self.directions)}; {self.n_pairs} pairs of {self.model['model']}"
        return printable(f"Vector({ends}; {made_of})")


@dataclass(frozen=True, kw_only=True)
class _Application:
    """Checked arguments of `Vector.at`."""

    strength: Number
    unit: Literal["difference", "norm"]
    passes: PassMode
    over: Literal["steps", "sigmas"]
    start_step: Annotated[int, Field(ge=0)]


def _norm(directions: xr.DataArray) -> xr.DataArray:
    squares = (directions.astype(float) ** 2).sum("channel")
    return (squares.mean("token") if "token" in squares.dims else squares) ** 0.5


class _Header(BaseModel):
    """What the file of a vector says about its arrays, which have the names of the sites; `content` is their hash."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    version: Literal[2] = 2
    concept: str
    positive: str
    negative: str
    model: dict[str, Any]
    settings: GenerationSettings
    n_pairs: int = Field(ge=1)
    cycle: bool
    sites: list[str] = Field(min_length=1)
    passes: list[Pass] = Field(min_length=1)
    sigmas: list[float] = Field(min_length=1)
    pairs: list[int]
    content: str


_PLAIN = ("concept", "positive", "negative", "settings", "n_pairs", "cycle")


def _content(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of all numbers, which shows damage."""
    data = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return content_hash(
        {
            name: [array.dtype.str, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
            for name, array in data.items()
        }
    )


def labelled(values: np.ndarray, site: str, passes: Sequence[str], sigmas: Sequence[float]) -> xr.DataArray:
    """Return a site's directions (pass, step, channel) or (pass, step, token, channel) with their coordinates."""
    dims = ("pass", "step", "token", "channel") if values.ndim == 4 else ("pass", "step", "channel")
    coordinates = {"pass": list(passes), "step": range(len(sigmas)), "sigma": ("step", list(sigmas))}
    return xr.DataArray(values, coordinates, dims, name=site)


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
    of_reliability = {name: array for name, array in arrays.items() if name.startswith(_RELIABILITY)}
    arrays_of_sites = {name: array for name, array in arrays.items() if name not in of_reliability}
    if sorted(header.sites) != sorted(arrays_of_sites):
        raise ValueError("its arrays are not those of its sites")
    directions = {}
    for site in header.sites:
        Site.parse(site)
        values = arrays[site]
        if values.dtype.kind != "f" or not np.isfinite(values).all() or not values.size:
            raise ValueError(f"{site} does not have finite numbers")
        if values.ndim not in (3, 4) or values.shape[:2] != (len(header.passes), len(header.sigmas)):
            raise ValueError(f"{site} does not have one direction for each pass and step")
        directions[site] = labelled(values, site, header.passes, header.sigmas)
    if header.content != _content(arrays):
        raise ValueError("its numbers are not those that were written")
    known = {name.removeprefix(_RELIABILITY): array for name, array in of_reliability.items()}
    reliable = as_dataset(known, header.sites, header.passes, header.pairs)
    plain = {name: getattr(header, name) for name in _PLAIN}
    return Vector(**plain, directions=directions, model=header.model, reliability=reliable)
