"""A steering direction for each site and step."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from analyses.steering.closed_steps import check_open
from analyses.steering.directions import at_steps, nearest_steps
from analyses.steering.pack import read_pack, write_pack
from analyses.steering.schedule import Schedule, weights
from analyses.steering.vector_content import VectorContent
from cache.errors import UserError
from cache.protocol import Pass
from cache.wording import counted, printable
from workbench.engine.edits import Edit, add, clamp, steer_back
from workbench.engine.edits.window import WindowOptions
from workbench.engine.sites import Site, listed_sites, numbered_site
from workbench.engine.tensors import HashedTensor
from workbench.validation import Number, validated

Operation = Literal["add", "clamp", "steer_back"]
"""What is done with a direction (see `Vector.at`)."""
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

RESAMPLED = ("resampled", "original_sigmas", "original_steps")
"""Entries of a resampled vector's provenance, whose sigmas are not those of its settings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Vector(VectorContent):
    """A vector that makes edits; what it has is described at `VectorContent`."""

    @cached_property
    def _tensors(self) -> dict[tuple[str, Pass, int], HashedTensor]:
        """The directions that edits have taken so far."""
        return {}

    def _direction(self, site: str, pass_name: Pass, step: int) -> HashedTensor:
        key = (site, pass_name, step)
        if key not in self._tensors:
            self._tensors[key] = HashedTensor.of(
                self.directions[site].sel({"pass": pass_name, "step": step}).values
            )
        return self._tensors[key]

    def over_time(self) -> "Vector":
        """Return the vector whose directions are constant in time: the means over tokens, or itself if they are."""
        if all("token" not in array.dims for array in self.directions.values()):
            return self
        means = {site: array.mean("token") for site, array in self.directions.items()}
        return replace(self, directions=means, cycle=False, raw_norms={}, checks=())

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
        operation: Operation = "add",
        tokens: tuple[int, int] | None = None,
        ignore_gate: bool = False,
    ) -> tuple[Edit, ...]:
        """Return edits that add `strength` times the direction to every token at each site and step.

        Pass them to `generate` as one entry of its `edits`. A model with other weights, and a run with other steps,
        refuse them.

        Args:
            strength: the factor; negative towards the `negative` values. 0 leaves the run as it is.
            unit: the length of a strength of 1: that of the direction as it is, which is a mean `difference`, or 1 at
                every site, pass and step (`norm`, as in TADA).
            passes: to which passes the direction is added, and of which pass it is (see `PASS_MODES`).
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.
            keep_norm: scale every token to the norm that it had before the addition.
            operation: what is done to every token x, with the unit vector u of the direction: `add` it; `clamp` x·u to
                `strength` times the length (Verdini, arXiv 2609.33810); or `steer_back`: take `|strength|` of x·u out
                of tokens on the other side, that is x·u < 0 if the strength is positive (TADA).
            tokens: first and last token that is steered, by default all.
            ignore_gate: steer also at steps at which its autoencoders may not be used.

        Raises:
            GatedStep: for a steered step at which an autoencoder of the site may not be used.
            UserError: for an unknown mode or schedule, a strength that is not finite, a pass that the vector does not
                have, a first step beyond its last, or an operation that cannot be combined with the other options or
                with directions that change along the clip.
        """
        how = validated(
            _Application,
            {
                "strength": strength, "unit": unit, "passes": passes, "over": over, "start_step": start_step,
                "keep_norm": keep_norm, "operation": operation, "tokens": tokens,
            },
            "Invalid steering",
        )  # fmt: skip
        if how.operation != "add":
            self._check_projection(how)
        by_step = weights(schedule, self.sigmas, over)
        if start_step >= len(by_step):
            raise UserError(f"The first steered step must be from 0 to {len(by_step) - 1}; got {start_step}.")
        edits = [
            edit
            for site in self.directions
            for acting, own in PASS_MODES[how.passes].items()
            for step in range(start_step, len(by_step))
            for edit in self._edits(site, acting, own, step, how, float(by_step[step]))
        ]
        if not ignore_gate:
            check_open(self.saes, edited_places(edits), self.sigmas)
        made_on, made_at = (self.model["model"], self.model["weights_hash"]), self.sigmas
        return tuple(replace(edit, made_on=made_on, made_at=made_at) for edit in edits)

    def ignoring_gate(self) -> "Vector":
        """Return the vector that steers also at steps at which its autoencoders may not be used."""
        return replace(self, saes=tuple(sae.model_copy(update={"closed": ()}) for sae in self.saes))

    def _check_projection(self, how: "_Application") -> None:
        """Raise UserError if a projection onto the direction cannot be changed as asked."""
        if how.keep_norm:
            raise UserError(
                f"keep_norm is for adding a vector, and cannot be combined with '{how.operation}'."
            )
        if how.operation == "steer_back" and how.unit == "norm":
            raise UserError("A strength of 'steer_back' is a share of the projection, and has no unit.")
        if self.over_time() is not self:
            raise UserError(
                f"A vector by token can only be added. For '{how.operation}' use one that is constant in time, such as "
                "its mean (over_time())."
            )

    def _edits(
        self, site: str, acting: Pass, own: Pass, step: int, how: "_Application", weight: float
    ) -> Iterator[Edit]:
        """Yield the edit of one site and step in the pass `acting`, with the direction of the pass `own`, if any."""
        if own not in self.directions[site]["pass"].values:
            raise UserError(
                f"This vector has no direction of the {own} pass. Make it with passes=('cond', 'null')."
            )
        direction, strength = self._direction(site, own, step), how.strength * weight
        window: WindowOptions = {"steps": (step, step), "passes": (acting,), "tokens": how.tokens}
        if how.operation == "add":
            length = self._norm(site, own, step) if how.unit == "norm" else 1.0
            yield add(
                direction,
                site,
                strength / (length or 1.0),
                keep_norm=how.keep_norm,
                cycle=self.cycle,
                **window,
            )
        elif strength and (norm := self._norm(site, own, step)):
            if how.operation == "clamp":
                yield clamp(direction, site, strength * (norm if how.unit == "difference" else 1.0), **window)
            else:
                other_side = direction.value * (-1.0 if strength > 0 else 1.0)
                yield steer_back(other_side, site, abs(strength), **window)

    def _norm(self, site: str, pass_name: Pass, step: int) -> float:
        return float(self.norms[site].sel({"pass": pass_name, "step": step}))

    def only(self, sites: str | Sequence[str]) -> "Vector":
        """Return the vector with some of its sites, or itself for all; `*.cross_attn` is that part wherever it has it.

        Raises:
            UserError: for a site that it lacks, or no site.
        """
        names = self.model.get("block_names", ())
        chosen = [
            own
            for site in listed_sites(sites)
            for own in (
                (each for each in self.directions if each.endswith(site[1:]))
                if site.startswith("*.")
                else (str(Site.parse(numbered_site(site, names))),)
            )
        ]
        for site in chosen:
            if site not in self.directions:
                raise UserError(
                    f"This vector has no direction at {site}. It has {', '.join(self.directions)}."
                )
        if not chosen:
            raise UserError(f"Choose at least one site of the vector: {', '.join(self.directions)}.")
        kept = [site for site in self.directions if site in chosen]
        if kept == list(self.directions):
            return self
        return replace(
            self,
            directions={site: self.directions[site] for site in kept},
            raw_norms={site: self.raw_norms[site] for site in kept},
            reliability=self.reliability.sel(site=kept),
            saes=tuple(sae for sae in self.saes if sae.site in kept),
            checks=(),
        )

    def resampled(self, sigmas: Sequence[float]) -> "Vector":
        """Return the vector for runs with other sigmas: each step gets the direction of the step nearest in sigma.

        Directions are chosen rather than interpolated, so that each is one that was measured, with its own norm; a
        mean of two different directions would be shorter than both. The provenance says what was chosen.

        Args:
            sigmas: those of the runs, such as `model.sigmas(settings)`.

        Raises:
            UserError: if there are no sigmas, or they are not positive numbers that fall from step to step.
        """
        wanted = validated(_Resampling, {"sigmas": sigmas}, "Invalid steps").sigmas
        if any(following >= sigma for sigma, following in pairwise(wanted)):
            raise UserError("Invalid steps: sigmas must fall from step to step.")
        steps = nearest_steps(self.sigmas, wanted)
        reliability = self.reliability.isel(step=steps, step_b=steps)
        numbers = range(len(steps))
        first, last = self.sigmas[0], self.sigmas[-1]
        return replace(
            self,
            directions={site: at_steps(array, steps, wanted) for site, array in self.directions.items()},
            raw_norms={site: at_steps(array, steps, wanted) for site, array in self.raw_norms.items()},
            reliability=reliability.assign_coords(step=numbers, step_b=numbers),
            saes=tuple(sae.at_steps(steps) for sae in self.saes),
            checks=(),
            provenance={
                **self.provenance,
                "resampled": f"by the nearest sigma, from {counted(len(self.sigmas), 'step')} (sigma {first:.4g} to "
                f"{last:.4g}) to {len(steps)}",
                "original_sigmas": list(self.sigmas),
                "original_steps": steps,
            },
        )

    def save(self, path: str | os.PathLike[str], root: Path | None = None) -> Path:
        """Write the vector, with everything that it has, as a safetensors file; `load_vector` reads it.

        Args:
            path: the file. Missing folders are created, and an existing file is replaced.
            root: the study's folder, if the file is in a study; links between the two are not followed.

        Returns:
            The path.

        Raises:
            UserError: if the vector contradicts itself, so that `load_vector` would refuse it, or the file cannot be
                written; an existing file is then unchanged.
        """
        return write_pack(path, {each.name: getattr(self, each.name) for each in fields(self)}, root)

    def __repr__(self) -> str:
        ends = f"{self.concept}: + is {self.positive}, − is {self.negative}"
        made_of = (
            f"{self.method} at {', '.join(self.directions)}; {self.n_pairs} pairs of {self.model['model']}"
        )
        return printable(f"Vector({ends}; {made_of})")


@dataclass(frozen=True, kw_only=True)
class _Resampling:
    """Checked sigmas of `Vector.resampled`."""

    sigmas: Annotated[tuple[Annotated[Number, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _Application:
    """Checked arguments of `Vector.at`."""

    strength: Number
    unit: Literal["difference", "norm"]
    passes: PassMode
    over: Literal["steps", "sigmas"]
    start_step: Annotated[int, Field(ge=0)]
    keep_norm: bool
    operation: Operation
    tokens: tuple[int, int] | None


def edited_places(edits: Sequence[Edit]) -> list[tuple[str, int]]:
    """Return site and step of edits, each of one site and step, that change anything."""
    return [
        (edit.sites[0], edit.window.steps[0])
        for edit in edits
        if edit.window.steps is not None and not edit.parameters.changes_nothing
    ]


def load_vector(path: str | os.PathLike[str], root: Path | None = None) -> Vector:
    """Load a vector that `Vector.save` wrote; see there for `root`.

    Raises:
        UserError: if the file does not exist, is damaged or incomplete, or is not a vector.
    """
    return Vector(**read_pack(path, root))
