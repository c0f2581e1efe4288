"""Edits and runs as data: frozen objects with canonical JSON, each of which may contain the other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.autoencoders import HashedSAE
from workbench.engine.edits.targets import check_target
from workbench.engine.edits.window import (
    CONDITIONING_PARTS,
    EVERYTHING,
    ConditioningPart,
    Window,
    WindowOptions,
)
from workbench.engine.operators import NO_PARAMETERS, OPERATORS, Parameters, operator_named
from workbench.engine.runs import Clip
from workbench.engine.sites import TARGETS, EditTarget, Site, listed_sites
from workbench.engine.tensors import HashedTensor
from workbench.provenance import content_hash
from workbench.validation import must_be, validated

SELF = "self"
"""As a source: the edited run itself or, in the edits of a run that follows another, the run it follows."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An operator on a target at sites, in a window, reading from source runs.

    The target `output` is the output of each site; `conditioning` is what the cross-attention at each site reads: keys,
    values, padding mask and positions of the conditioning tokens; `weights` are those of the linear module whose output
    is the site. A run with other weights is read like any other: its values are those of its own weights. `velocity`,
    which has no sites, is what the sampler follows: the network's prediction after guidance. The velocities of sources
    are those of one pass.

    `made_on` is the name and the weights hash of the model that its parameters belong to, as those of a steering vector
    do: other models refuse the edit. `made_at` are the sigmas of the steps that they belong to: runs with other steps
    refuse it. None where it fits any model, or any run.

    Raises:
        UserError: if the operator or a site is unknown, or the fields do not fit together.
    """

    operator: str
    sites: tuple[str, ...]
    target: EditTarget = "output"
    parameters: Parameters = NO_PARAMETERS
    window: Window = EVERYTHING
    sources: tuple["Run", ...] = ()
    made_on: tuple[str, str] | None = None
    made_at: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        allowed = operator_named(self.operator)
        must_be(str, self.target, f"The target of an edit must be {', '.join(TARGETS)}")
        if not self.sites and self.target != "velocity":
            raise UserError(
                f"The edit '{self.operator}' must have at least one site, such as tf3.cross_attn."
            )
        if len(set(map(Site.parse, self.sites))) < len(self.sites):
            raise UserError(
                f"The sites of the edit '{self.operator}' must each be given once; got {', '.join(self.sites)}."
            )
        if type(self.parameters) is not allowed.parameters:
            needed = ", ".join(field.name for field in fields(allowed.parameters)) or "none"
            raise UserError(f"The parameters of '{self.operator}' must be {needed}.")
        if self.target not in allowed.targets:
            raise UserError(
                f"The target of '{self.operator}' must be {' or '.join(allowed.targets)}; got {self.target}."
            )
        least, most = allowed.sources
        if not least <= len(self.sources) <= most:
            number = str(least) if least == most else f"at least {least}"
            raise UserError(f"'{self.operator}' must have {number} source runs; got {len(self.sources)}.")
        self.parameters.check_sources(len(self.sources))
        check_target(self)

    @property
    def described(self) -> str:
        """Its operator and place, for sentences."""
        place = f"at {', '.join(self.sites)}" if self.sites else "of the velocity"
        return f"The edit '{self.operator}' {place}"

    @property
    def conditioning_parts(self) -> tuple[ConditioningPart, ...]:
        """Parts of the conditioning that it changes; empty if it changes outputs."""
        if self.target != "conditioning":
            return ()
        return CONDITIONING_PARTS if self.window.parts is None else self.window.parts

    @cached_property
    def blocks(self) -> frozenset[int]:
        """The blocks of its sites."""
        return frozenset(Site.parse(site).block for site in self.sites)

    @cached_property
    def value_sites(self) -> tuple[Site, ...]:
        """The sites whose values it changes; for the conditioning, the keys and values of its sites."""
        sites = tuple(map(Site.parse, self.sites))
        if self.target != "conditioning":
            return sites
        parts = [part for part, name in (("k", "keys"), ("v", "values")) if name in self.conditioning_parts]
        return tuple(Site(site.block, f"{site.part}.{part}") for site in sites for part in parts)

    @cached_property
    def conditioning_sites(self) -> tuple[Site, ...]:
        """The cross-attentions that take padding mask or positions from a source; empty if outputs are changed."""
        takes = self.sources and OPERATORS[self.operator].takes
        if not takes or not {"mask", "keys"} & set(self.conditioning_parts):
            return ()
        return tuple(map(Site.parse, self.sites))

    @property
    def runs(self) -> Iterator["Run"]:
        """Yield the runs that it reads from, recursively."""
        for source in self.sources:
            yield source
            yield from source.reads

    def bound(self, runs: Mapping[str, Sequence["Run"]]) -> "Edit":
        """Bind the names of its sources to runs; a name of several runs becomes several sources."""
        return replace(self, sources=tuple(run for source in self.sources for run in source.bound_each(runs)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data with tensors by hash; `edit_from_json` reads it back."""
        return {
            "operator": self.operator,
            "target": self.target,
            "sites": list(self.sites),
            "parameters": {
                name: value.to_json() if isinstance(value, HashedTensor | HashedSAE) else value
                for name, value in self.parameters.__dict__.items()
            },
            "window": dict(self.window.options),
            "sources": [source.to_json() for source in self.sources],
            **({} if self.made_on is None else {"made_on": list(self.made_on)}),
            **({} if self.made_at is None else {"made_at": list(self.made_at)}),
        }

    @property
    def tensors(self) -> Iterator[HashedTensor]:
        """Yield its tensors, including those of its sources' edits."""
        for value in self.parameters.__dict__.values():
            if isinstance(value, HashedTensor | HashedSAE):
                yield from value.tensors
        for run in self.runs:
            for edit in run.edits:
                yield from edit.tensors

    @cached_property
    def hash(self) -> str:
        """Return the hash of the canonical JSON, which identifies results."""
        return content_hash(self.to_json())


@dataclass(frozen=True)
class Run:
    """A clip with its edits.

    A run that `follows` another has no latents of its own: in every call it sees the other's latents, with its own
    prompt and edits. It provides counterfactual values along another run's trajectory, such as velocities. Instead of a
    clip there may be a name, to be bound later, or "self" (see `SELF`).
    """

    clip: Clip | str
    edits: Sequence[Edit] = ()
    follows: "Run | None" = None

    def __post_init__(self) -> None:
        must_be((Clip, str), self.clip, "A run must have a clip, such as one of wb.clips(['a fast song'])")
        must_be((Run, type(None)), self.follows, "A run must follow another run, or None")
        object.__setattr__(self, "edits", all_edits(self.edits))

    @property
    def is_self(self) -> bool:
        """Whether it stands for the run that reads it."""
        return self.clip == SELF

    @property
    def depends_on_reader(self) -> bool:
        """Whether it is a different run for each run that reads it."""
        return self.is_self or (self.follows is not None and self.follows.is_self)

    @property
    def reads(self) -> Iterator["Run"]:
        """Yield the runs that its edits read from, recursively, and the run that it follows."""
        if self.follows is not None:
            yield self.follows
        for edit in self.edits:
            yield from edit.runs

    @property
    def nested_edits(self) -> Iterator[Edit]:
        """Yield its edits, and those of the runs that it reads from or follows."""
        for edit in self.edits:
            yield edit
            for source in edit.sources:
                yield from source.nested_edits
        if self.follows is not None:
            yield from self.follows.nested_edits

    def without_idle_edits(self) -> "Run":
        """Return the run without edits that change nothing, such as an addition with strength 0."""
        if not any(edit.parameters.changes_nothing for edit in self.nested_edits):
            return self
        edits = tuple(
            replace(edit, sources=tuple(source.without_idle_edits() for source in edit.sources))
            for edit in self.edits
            if not edit.parameters.changes_nothing
        )
        return Run(self.clip, edits, self.follows and self.follows.without_idle_edits())

    @property
    def source_names(self) -> frozenset[str]:
        """Return the unbound names of the runs that its edits read from."""
        return frozenset(run.clip for run in self.reads if isinstance(run.clip, str)) - {SELF}

    def bound(self, runs: Mapping[str, Sequence["Run"]]) -> "Run":
        """Bind names to runs; its own name must be that of one run."""
        (run,) = self.bound_each(runs)
        return run

    def bound_each(self, runs: Mapping[str, Sequence["Run"]]) -> list["Run"]:
        """Bind names to runs; return one run for each run that its own name stands for."""
        named = [self] if self.is_self or not isinstance(self.clip, str) else _runs_named(self.clip, runs)
        edits = tuple(edit.bound(runs) for edit in self.edits)
        follows = None if self.follows is None else self.follows.bound(runs)
        return [Run(run.clip, edits or run.edits, follows or run.follows) for run in named]

    def to_json(self) -> Any:
        """Return plain JSON data: only the name or clip if there are no edits."""
        clip = self.clip if isinstance(self.clip, str) else dict(self.clip.__dict__)
        if not self.edits and self.follows is None:
            return clip
        follows = {} if self.follows is None else {"follows": self.follows.to_json()}
        return {"run": clip, "edits": [edit.to_json() for edit in self.edits], **follows}


def _runs_named(name: str, runs: Mapping[str, Sequence[Run]]) -> Sequence[Run]:
    if name not in runs:
        known = ", ".join(runs) or "none"
        raise UserError(f"The run {quoted(name)} must be bound to a clip, like the others; got {known}.")
    return runs[name]


Source = Clip | Run | str
"""A run that an edit reads from: a clip, a clip with edits, or a name for one."""


def as_run(source: Source) -> Run:
    """Convert a source to a run; raise UserError for anything else."""
    if isinstance(source, Run):
        return source
    must_be(
        (Clip, str), source, "A source must be a clip, such as one of wb.clips(['a fast song']), or a run"
    )
    return Run(source)


def all_edits(edits: Edit | Sequence[Edit | Sequence[Edit]]) -> tuple[Edit, ...]:
    """Flatten a sequence of edits and sequences of edits.

    Raises:
        UserError: for anything that is not an edit.
    """
    if isinstance(edits, Edit):
        return (edits,)
    must_be(
        (list, tuple),
        edits,
        "Edits must be a list of what wb.patch, wb.ablate, wb.add, wb.clamp, wb.steer_back, wb.blend or a vector's "
        "`at` returned (leave them out for none)",
    )
    return tuple(edit for each in edits for edit in all_edits(each))


def make_edit(
    operator: str,
    sites: str | Sequence[str],
    sources: Source | Sequence[Source],
    window: WindowOptions,
    target: EditTarget = "output",
    **parameters: Any,
) -> Edit:
    """Make an edit from what a caller gives, checked; raise UserError if it does not fit the operator."""
    return Edit(
        operator=operator,
        sites=listed_sites(sites),
        target=target,
        parameters=validated(operator_named(operator).parameters, parameters, f"Invalid edit '{operator}'"),
        window=validated(Window, dict(window), f"Invalid window of the edit '{operator}'"),
        sources=tuple(map(as_run, listed(sources))),
    )


def listed(values: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple."""
    return (
        tuple(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else (values,)
    )
