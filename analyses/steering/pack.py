"""Packs, the files of vectors: a safetensors file with a JSON header, in which everything is mandatory.

`docs/reference/packs.md` defines the format.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from analyses.steering.checks import Checks
from analyses.steering.directions import hook, labelled, labelled_norms
from analyses.steering.examples import Example
from analyses.steering.files import damaged, read_file
from analyses.steering.header import Line, ModelEntry, Sigmas, Strict, check_ends, content_of, rises
from analyses.steering.reliability import as_dataset
from analyses.steering.used_saes import UsedSAEs
from cache.errors import UserError
from cache.protocol import Pass
from workbench.documents import parse_document
from workbench.engine.settings import GenerationSettings
from workbench.models.sampling import Sampling
from workbench.tensor_files import write_tensors
from workbench.validation import distinct, must_be, validated

VERSION = 5
_HEADER: Final = "steering_vector"
_ROUNDING = 1e-6
"""By how much rounding may take a cosine beyond 1."""
_DIRECTIONS, _RAW_NORMS, _RELIABILITY = "direction.", "raw_norm.", "reliability."
_FILE = "A vector's file must be given by its path, such as 'vectors/mood.safetensors'"


class PackSite(Strict):
    """A site of a pack: what its directions are added to, and their width."""

    hook: str
    width: int = Field(ge=1)


class Header(Strict):
    """Everything that a pack says beside its arrays; `content` is a hash of both."""

    version: Literal[5]
    operation: Literal["add"]
    method: Line
    concept: Line
    positive: Line
    negative: Line
    unit: Line
    sites: dict[str, PackSite] = Field(min_length=1)
    passes: list[Pass] = Field(min_length=1)
    sigmas: Sigmas
    latents: Literal["own", "positive", "negative", "mixed", "unknown"]
    cycle: bool
    model: ModelEntry
    settings: GenerationSettings
    sampling: Sampling
    examples: list[Example]
    pairs: list[int]
    saes: UsedSAEs
    checks: Checks
    provenance: dict[str, Any]
    content: str

    @field_validator("provenance")
    @classmethod
    def _dated(cls, provenance: dict[str, Any]) -> dict[str, Any]:
        for name in ("code_version", "created"):
            if not isinstance(provenance.get(name), str):
                raise ValueError(f"it must have a {name}")
        return provenance

    @field_validator("passes")
    @classmethod
    def _once(cls, passes: list[Pass]) -> list[Pass]:
        return list(distinct(tuple(passes)))

    @model_validator(mode="after")
    def _agreeing(self) -> "Header":
        check_ends(self.positive, self.negative)
        steps = self.settings.num_steps
        if len(self.sigmas) != steps and "resampled" not in self.provenance:
            raise ValueError(f"it has {len(self.sigmas)} sigmas, but settings.num_steps is {steps}")
        if len(self.sampling.passes) != steps:
            raise ValueError(
                f"sampling.passes has {len(self.sampling.passes)} entries, but settings.num_steps is {steps}"
            )
        for sae in self.saes:
            if sae.site not in self.sites:
                raise ValueError(f"it has an autoencoder of {sae.site}, but no directions there")
            if sae.closed and sae.closed[-1].step >= len(self.sigmas):
                raise ValueError(f"closed steps of its autoencoders must be from 0 to {len(self.sigmas) - 1}")
        numbers = {example.pair for example in self.examples} - {None}
        most = len(numbers or self.examples)  # without pairs, each clip counts as one
        if self.pairs and (self.pairs[0] < 1 or self.pairs[-1] > most or not rises(self.pairs)):
            raise ValueError(f"pairs must be rising numbers from 1 to {most}, the number of pairs")
        return self


_PLAIN = (
    "method",
    "concept",
    "positive",
    "negative",
    "unit",
    "latents",
    "cycle",
    "model",
    "settings",
    "sampling",
    "saes",
    "checks",
    "provenance",
)


def write_pack(path: str | os.PathLike[str], fields: Mapping[str, Any], root: Path | None = None) -> Path:
    """Write the fields of a `Vector` as a pack; see `Vector.save`."""
    must_be((str, os.PathLike), path, _FILE)
    file = Path(path)
    directions, reliable = fields["directions"], fields["reliability"]
    first = next(iter(directions.values()))
    arrays = {f"{_DIRECTIONS}{site}": array.values for site, array in directions.items()}
    arrays |= {f"{_RAW_NORMS}{site}": array.values for site, array in fields["raw_norms"].items()}
    arrays |= {f"{_RELIABILITY}{name}": array.values for name, array in reliable.items()}
    values = {
        **{name: fields[name] for name in _PLAIN},
        "version": VERSION,
        "operation": "add",
        "sites": {
            site: PackSite(hook=hook(site), width=array.sizes["channel"])
            for site, array in directions.items()
        },
        "passes": first["pass"].values.tolist(),
        "sigmas": first["sigma"].values.tolist(),
        "examples": list(fields["examples"]),
        "pairs": reliable["pairs"].values.tolist(),
        "content": "",
    }
    refused = f"The vector cannot be written to {file}"
    checked = validated(Header, values, refused)
    try:
        _fields(checked, arrays)
    except ValueError as error:
        raise UserError(f"{refused}: {error}.") from error
    header = checked.model_dump(mode="json")
    header["content"] = content_of(header, arrays)
    write_tensors(file, arrays, {_HEADER: json.dumps(header, ensure_ascii=False)}, root)
    return file


def read_pack(path: str | os.PathLike[str], root: Path | None = None) -> dict[str, Any]:
    """Return the fields of the `Vector` in a pack; see `load_vector`."""
    must_be((str, os.PathLike), path, _FILE)
    file = Path(path)
    arrays, text = read_file(file, _HEADER, root)
    try:
        document = parse_document(text)
        _check_version(document.get("version"), file)
        header = validated(Header, document, "its header is incomplete or wrong")
        if header.content != content_of(document, arrays):
            raise ValueError("its content is not what was written")
        return _fields(header, arrays)
    except _OtherVersion:
        raise
    except (ValueError, UserError) as error:
        raise damaged(file, _HEADER, str(error)) from error


class _OtherVersion(UserError):
    """A vector of another version of the format."""


def _check_version(version: Any, file: Path) -> None:
    if type(version) is not int or version == VERSION:
        return  # what is no number is refused with the rest of the header
    if version < VERSION:
        raise _OtherVersion(f"{file} is a vector of version {version}, not {VERSION}. Compute it again.")
    raise _OtherVersion(
        f"{file} is a vector of version {version}; this workbench reads version {VERSION}. Update it, or compute the "
        "vector again."
    )


def _fields(header: Header, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Combine a header with its arrays; raise ValueError or UserError unless they fit together."""
    expected = {f"{kind}{site}" for kind in (_DIRECTIONS, _RAW_NORMS) for site in header.sites}
    of_reliability = {name for name in arrays if name.startswith(_RELIABILITY)}
    if expected != arrays.keys() - of_reliability:
        raise ValueError("its arrays are not those of its sites")
    directions, raw_norms = {}, {}
    for site, declared in header.sites.items():
        values, lengths = arrays[_DIRECTIONS + site], arrays[_RAW_NORMS + site]
        _check_directions(site, values, declared, header)
        if lengths.dtype.kind != "f" or lengths.shape != values.shape[:2]:
            raise ValueError(f"{site} does not have one raw norm for each pass and step")
        if np.isinf(lengths).any() or (lengths < 0).any():
            raise ValueError(f"{site} has raw norms below 0 or infinite")
        directions[site] = labelled(values, site, header.passes, header.sigmas)
        raw_norms[site] = labelled_norms(lengths, site, header.passes, header.sigmas)
    known = {name.removeprefix(_RELIABILITY): arrays[name] for name in of_reliability}
    reliable = as_dataset(known, list(header.sites), header.passes, header.pairs)
    if reliable.sizes["step"] != len(header.sigmas):
        raise ValueError("its reliability is of other steps")
    if any((np.abs(array.values) > 1 + _ROUNDING).any() for array in reliable.values()):
        raise ValueError("its reliability has cosines outside -1 to 1")
    if header.cycle and all("token" not in array.dims for array in directions.values()):
        raise ValueError("it is a cycle without tokens")
    return {
        **{name: getattr(header, name) for name in _PLAIN},
        "directions": directions,
        "raw_norms": raw_norms,
        "examples": tuple(header.examples),
        "reliability": reliable,
    }


def _check_directions(site: str, values: np.ndarray, declared: PackSite, header: Header) -> None:
    if declared.hook != hook(site):
        raise ValueError(f"{site} is the {hook(site)}, but its hook is {declared.hook}")
    if values.dtype.kind != "f" or not np.isfinite(values).all() or not values.size:
        raise ValueError(f"{site} does not have finite numbers")
    if values.ndim not in (3, 4) or values.shape[:2] != (len(header.passes), len(header.sigmas)):
        raise ValueError(f"{site} does not have one direction for each pass and step")
    if values.shape[-1] != declared.width:
        raise ValueError(f"{site} has {values.shape[-1]} channels, but its width is {declared.width}")
