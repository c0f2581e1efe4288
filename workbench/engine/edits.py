"""Edits as data: what to change in a run, where and when, as frozen objects with canonical JSON.

`patch`, `random_patch`, `ablate`, `add`, `add_to_conditioning`, `add_difference`, `add_velocity`, `clamp`,
`steer_back`, `edit_features`, `low_rank` and `blend` create them. A source is a run: a clip, a `Run`, or a name to be
bound to one later (`Run.bound`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, TypedDict, Unpack, cast

from pydantic import ConfigDict

from cache.errors import UserError
from cache.protocol import Pass
from cache.wording import quoted
from workbench.engine.operators import (
    NO_PARAMETERS,
    OPERATORS,
    Difference,
    FeatureMode,
    Operator,
    Parameters,
)
from workbench.engine.runs import Clip
from workbench.engine.sites import LINEAR_PARTS, TARGETS, EditTarget, Site, Target, listed_sites
from workbench.engine.tensors import HashedTensor, Numbers, Tensors
from workbench.provenance import content_hash
from workbench.sae.topk import TopKSAE
from workbench.validation import must_be, validated

ConditioningPart = Literal["keys", "values", "mask"]
CONDITIONING_PARTS: tuple[ConditioningPart, ...] = ("keys", "values", "mask")
SELF = "self"
"""As a source: the edited run itself or, in the edits of a run that follows another, the run it follows."""
MOST_NESTED = 8
_PER_HEAD = ("q", "k", "v", "heads")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The calls in which an edit acts, and the part of its target that it changes; None means no restriction.

    `steps` (first, last) restricts the calls, inclusive, as does `sigmas` (low, high), which excludes its low end so
    that adjacent windows share no call; `passes` are guidance passes. For outputs, `tokens` (first, last) restricts the
    site's token axis, and `heads` selects attention heads at `q`, `k`, `v` or `heads` sites (key and value heads at `k`
    and `v`). For the conditioning, `segments` are spans of its tokens (see `workbench.engine.segments`), and `parts`
    are some of keys, values and mask; keys include their positions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    steps: tuple[int, int] | None = None
    sigmas: tuple[float, float] | None = None
    passes: tuple[Pass, ...] | None = None
    tokens: tuple[int, int] | None = None
    heads: tuple[int, ...] | None = None
    segments: tuple[str, ...] | None = None
    parts: tuple[ConditioningPart, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "sigmas", "tokens"):
            window = getattr(self, name)
            if window is None:
                continue
            if not all(0 <= end < math.inf for end in window):
                raise UserError(
                    f"The {name} window {window[0]} to {window[1]} must have finite ends that are not below 0."
                )
            # A window of sigmas excludes its low end.
            if window[0] > window[1] or (name == "sigmas" and window[0] == window[1]):
                raise UserError(
                    f"The {name} window {window[0]} to {window[1]} is empty. Give the lower end first."
                )
        for name in ("passes", "heads", "segments", "parts"):
            values = getattr(self, name)
            if values == ():
                raise UserError(f"The {name} of an edit must be at least one, or None for all; got none.")
            if values is not None and len(set(values)) < len(values):
                raise UserError(
                    f"The {name} of an edit must each be given once; got {', '.join(map(str, values))}."
                )
        if min(self.heads or (0,)) < 0:
            raise UserError(f"Heads are numbered from 0; got {min(self.heads or ())}.")

    def acts_at(self, step: int, sigma: float, pass_name: str) -> bool:
        """Whether the window includes this pass of this call."""
        in_steps = self.steps is None or self.steps[0] <= step <= self.steps[1]
        in_sigmas = self.sigmas is None or self.sigmas[0] < sigma <= self.sigmas[1]
        in_passes = self.passes is None or pass_name in self.passes
        return in_steps and in_sigmas and in_passes

    @property
    def options(self) -> "WindowOptions":
        """Return the restrictions as keyword arguments of the functions that make edits."""
        return cast(
            WindowOptions, {name: value for name, value in self.__dict__.items() if value is not None}
        )


EVERYTHING = Window()


class WindowOptions(TypedDict, total=False):
    """The fields of `Window` as keyword arguments."""

    steps: tuple[int, int] | None
    sigmas: tuple[float, float] | None
    passes: tuple[Pass, ...] | None
    tokens: tuple[int, int] | None
    heads: tuple[int, ...] | None
    segments: tuple[str, ...] | None
    parts: tuple[ConditioningPart, ...] | None


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
        allowed = _operator(self.operator)
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
        _CHECKS[self.target](self)

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
                name: {"tensor": value.hash} if isinstance(value, HashedTensor) else value
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
        yield from (value for value in self.parameters.__dict__.values() if isinstance(value, HashedTensor))
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


def patch(
    sites: str | Sequence[str],
    source: Source,
    *,
    target: Target = "conditioning",
    **window: Unpack[WindowOptions],
) -> Edit:
    """Activation patching: replace values by those of the source run in the same call.

    With the target `conditioning`, the cross-attentions at the sites read the source's conditioning (its keys, values,
    padding mask and positions, or only some `parts` of them) with the run's own queries (TADA, arXiv 2602.11910). With
    `output`, the sites' outputs are the source's.
    """
    return _edit("patch", sites, as_run(source), window, target)


def random_patch(
    sites: str | Sequence[str],
    source: Source,
    seed: int,
    *,
    target: Target = "conditioning",
    **window: Unpack[WindowOptions],
) -> Edit:
    """Null patch of the same norm: values as far from the run's own as the source's, but in a random direction."""
    return _edit("random_patch", sites, as_run(source), window, target, seed=seed)


def ablate(
    sites: str | Sequence[str],
    method: Literal["zero", "mean", "resample"] = "zero",
    source: Source | Sequence[Source] = (),
    **window: Unpack[WindowOptions],
) -> Edit:
    """Ablation: set the sites' outputs to zero, the mean of the sources (over runs and tokens), or the source's.

    With `resample` the source should be unrelated to the ablated run.
    """
    return _edit(method, sites, source, window)


def add(
    vector: Numbers,
    sites: str | Sequence[str],
    strength: float = 1.0,
    *,
    keep_norm: bool = False,
    cycle: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Activation addition: add `strength * vector` to every token of the sites' outputs.

    The vector has a number for each edited channel: those of the window's heads, or all channels of the site. One by
    token, with dims (token, channel), has a row for each edited token or, with `cycle`, rows that repeat along the
    clip. With `keep_norm` every token keeps its norm, so that only its direction changes.
    """
    given = HashedTensor.of(vector)
    return _edit("add", sites, [], window, vector=given, strength=strength, keep_norm=keep_norm, cycle=cycle)


def add_to_conditioning(
    vector: Numbers,
    sites: str | Sequence[str],
    part: Literal["keys", "values"],
    strength: float = 1.0,
    *,
    source: Source | None = None,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Add `strength * vector` to the keys or the values of conditioning tokens, such as segments=("word:song",).

    Nothing is taken from the `source`, which only says where the prompts differ, for the segments `swapped`, `before`
    and `after`.
    """
    sources = () if source is None else (source,)
    given: WindowOptions = {**window, "parts": (part,)}
    values = {"vector": HashedTensor.of(vector), "strength": strength}
    return _edit("add_to_conditioning", sites, sources, given, "conditioning", **values)


def add_difference(
    sites: str | Sequence[str],
    plus: Source,
    minus: Source,
    strength: float = 1.0,
    *,
    constant: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Add `strength` times the difference of two runs' outputs, of `plus` minus `minus`, in the same call.

    It is added token by token or, if `constant`, as its mean over tokens. The difference of a single pair bounds what a
    vector, the mean over pairs, can restore at the sites.
    """
    return _edit("add_difference", sites, (plus, minus), window, strength=strength, constant=constant)


def add_velocity(plus: Source, minus: Source, strength: float = 1.0, **window: Unpack[WindowOptions]) -> Edit:
    """Add `strength` times the difference of two runs' velocities to the velocity that the sampler follows.

    The runs' velocities are those of the cond pass, or another one of `passes`; that of the edited run is what guidance
    makes of its passes. Runs that follow the edited one, `Run(clip, follows=Run("self"))`, give their velocities at its
    latents, as in FreeSliders.
    """
    given: WindowOptions = {"passes": ("cond",), **window}
    return _edit("add_difference", (), (plus, minus), given, "velocity", strength=strength, constant=False)


def clamp(
    vector: Numbers,
    sites: str | Sequence[str],
    projection: float = 0.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Set the projection of every token of the sites' outputs onto the vector, keeping the orthogonal part.

    The projection is x·d / |d|, in the units of the site's output. 0 projects the vector out.
    """
    return _edit("clamp", sites, [], window, vector=HashedTensor.of(vector), projection=projection)


def steer_back(
    vector: Numbers,
    sites: str | Sequence[str],
    amount: float = 1.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Take `amount` of the projection onto the vector out of every token that lies on the vector's side.

    x − amount · relu(x·d) · d, with the unit vector d: tokens that point the other way are unchanged (TADA, arXiv
    2602.11910).
    """
    return _edit("steer_back", sites, [], window, vector=HashedTensor.of(vector), amount=amount)


def low_rank(
    down: Numbers,
    up: Numbers,
    sites: str | Sequence[str],
    strength: float = 1.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Low-rank change of weights: add `strength * up @ down` to that of the linear module whose output is the site.

    Other runs of the batch keep their weights. A LoRA's factors are down (rank, in) and up (out, rank), as in PEFT's
    `lora_A` and `lora_B`; its scale is part of the strength. The module of an attention's own site (`cross_attn`,
    `self_attn`) is its output projection (`to_out.0`); those of its `q`, `k` and `v` are `to_q`, `to_k` and `to_v`.
    """
    factors = {"down": HashedTensor.of(down), "up": HashedTensor.of(up)}
    return _edit("low_rank", sites, [], window, "weights", strength=strength, **factors)


def edit_features(
    sae: TopKSAE,
    features: int | Sequence[int],
    sites: str | Sequence[str],
    strength: float = 1.0,
    *,
    mode: FeatureMode = "post_topk",
    **window: Unpack[WindowOptions],
) -> Edit:
    """Edit features of a TopK SAE at every token of the sites' outputs, and keep the SAE's reconstruction error.

    With features z and z' before and after the edit, z' W_dec − z W_dec is added to the output. With a strength s:

    - `post_topk` multiplies the activations of the features by 1 + s; it changes only those that are active.
    - `pre_topk` multiplies them before the k largest are chosen, by 1 + s but not below 0: features may become active,
      and others then do not.
    - `inject` sets the activations to s, also of features that are not active.

    Strength 0 always leaves the run as it is; -1 turns features off, except with `inject`.

    Raises:
        UserError: if the autoencoder is of another kind or lacks a feature, or the strength is not finite.
    """
    must_be(TopKSAE, sae, "An autoencoder must be a TopK one, such as that of study.train_sae or read_sae")
    parameters: dict[str, Any] = {name: HashedTensor.of(value) for name, value in sae.state_dict().items()}
    parameters |= {"k": sae.config.k, "features": _listed(features), "strength": strength, "mode": mode}
    return _edit("edit_features", sites, [], window, **parameters)


def blend(
    sites: str | Sequence[str],
    sources: Source | Sequence[Source],
    weights: float | Sequence[float],
    **window: Unpack[WindowOptions],
) -> Edit:
    """Blend conditionings: cross-attentions read the weighted sum of the sources' keys and of their values.

    The padding mask and positions are those of the first source, and must be the same for all: prompts whose
    conditioning tokens are at different positions raise an error, because adding a word to padding is meaningless.
    """
    return _edit("blend", sites, sources, window, "conditioning", weights=_listed(weights))


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


def _edit(
    operator: str,
    sites: str | Sequence[str],
    sources: Source | Sequence[Source],
    window: WindowOptions,
    target: EditTarget = "output",
    **parameters: Any,
) -> Edit:
    return Edit(
        operator=operator,
        sites=listed_sites(sites),
        target=target,
        parameters=validated(_operator(operator).parameters, parameters, f"Invalid edit '{operator}'"),
        window=validated(Window, dict(window), f"Invalid window of the edit '{operator}'"),
        sources=tuple(map(as_run, _listed(sources))),
    )


def _listed(values: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple."""
    return (
        tuple(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else (values,)
    )


def _operator(name: str) -> Operator:
    if not isinstance(name, str) or name not in OPERATORS:
        raise UserError(f"Unknown operator '{name}'. Use one of {', '.join(OPERATORS)}.")
    return OPERATORS[name]


def _check_output(edit: Edit) -> None:
    window = edit.window
    if window.segments is not None or window.parts is not None:
        raise UserError("Segments and parts are for edits of the conditioning, not of outputs.")
    parts = {site: Site.parse(site).part.rpartition(".")[2] for site in edit.sites}
    without = [site for site, part in parts.items() if part not in _PER_HEAD]
    if window.heads is not None and without:
        raise UserError(f"{without[0]} has no separate heads. Use .heads, .q, .k or .v of its attention.")


def _check_conditioning(edit: Edit) -> None:
    window = edit.window
    wrong = [site for site in edit.sites if Site.parse(site).part != "cross_attn"]
    if wrong:
        raise UserError(
            f"An edit of the conditioning must be at cross_attn sites; got {', '.join(wrong)}. {_advice(edit)}"
        )
    if window.tokens is not None or window.heads is not None:
        raise UserError(
            f"An edit of the conditioning cannot have a window of latent tokens or heads. {_advice(edit)}"
        )
    if not set(edit.conditioning_parts) <= set(CONDITIONING_PARTS):
        raise UserError(f"Parts must be at least one of {', '.join(CONDITIONING_PARTS)}.")
    if not _operator(edit.operator).takes and edit.conditioning_parts not in (("keys",), ("values",)):
        raise UserError(
            f"'{edit.operator}' must have one part, keys or values; got {', '.join(edit.conditioning_parts)}."
        )


def _check_weights(edit: Edit) -> None:
    parts = {site: Site.parse(site).part for site in edit.sites}
    without = [site for site, part in parts.items() if part not in LINEAR_PARTS]
    if without:
        raise UserError(
            f"{without[0]} is not the output of one linear module, so it has no weights to change. Use sites with the "
            f"parts {', '.join(LINEAR_PARTS)}."
        )
    restricted = set(edit.window.options) - {"steps", "sigmas", "passes"}
    if restricted:
        raise UserError(
            "A change of weights acts on every token and channel: its window can have steps, sigmas and passes; got "
            f"{', '.join(sorted(restricted))}."
        )


def _check_velocity(edit: Edit) -> None:
    if edit.sites:
        raise UserError(f"An edit of the velocity has no sites; got {', '.join(edit.sites)}.")
    window = edit.window
    restricted = set(window.options) - {"steps", "sigmas", "passes"}
    if restricted or window.passes is None or len(window.passes) != 1:
        raise UserError(
            "The window of an edit of the velocity can have steps and sigmas, and must have one pass, whose velocities "
            f"are read; got {', '.join(sorted(window.options)) or 'none'}."
        )
    if isinstance(edit.parameters, Difference) and edit.parameters.constant:
        raise UserError("A difference of velocities cannot be constant, because a velocity has no tokens.")


def _advice(edit: Edit) -> str:
    """Say how to edit the outputs of sites, for which a conditioning edit was given."""
    if "output" in _operator(edit.operator).targets:
        return 'To edit the output of a site, use target="output" (--mode output on the command line).'
    return f"To edit the output of a site, use an edit other than '{edit.operator}'."


_CHECKS = {
    "weights": _check_weights,
    "output": _check_output,
    "conditioning": _check_conditioning,
    "velocity": _check_velocity,
}


def edit_from_json(data: Any, tensors: Tensors | None = None) -> Edit:
    """Rebuild an edit from `Edit.to_json` data; `tensors` returns its tensors by hash.

    Raises:
        UserError: for an unknown operator or field, a value of a wrong type, or a missing tensor.
    """
    return _edit_from_json(data, tensors, 0)


def _edit_from_json(data: Any, tensors: Tensors | None, depth: int) -> Edit:
    what = "Invalid edit"
    given = validated(_EditFields, data, what)
    allowed = _operator(given.operator)
    parameters = {name: _with_tensor(value, tensors) for name, value in given.parameters.items()}
    return Edit(
        operator=given.operator,
        sites=given.sites,
        target=given.target,
        parameters=validated(allowed.parameters, parameters, what),
        window=given.window,
        sources=tuple(_run_from_json(source, tensors, depth) for source in given.sources),
        made_on=given.made_on,
        made_at=given.made_at,
    )


@dataclass(frozen=True, kw_only=True)
class _EditFields:
    """The fields of an edit in JSON."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    operator: str
    sites: tuple[str, ...]
    target: EditTarget = "output"
    parameters: dict[str, Any]
    window: Window = EVERYTHING
    sources: tuple[Any, ...] = ()
    made_on: tuple[str, str] | None = None
    made_at: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _RunFields:
    """The fields of a run in JSON, if it is more than a clip."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    run: Any
    edits: tuple[Any, ...] = ()
    follows: Any = None


def _run_from_json(data: Any, tensors: Tensors | None, depth: int) -> Run:
    if not isinstance(data, dict) or "run" not in data:
        return Run(_clip_from_json(data))
    if depth == MOST_NESTED:
        raise UserError(f"Invalid source: runs are nested more than {MOST_NESTED} deep.")
    given = validated(_RunFields, data, "Invalid source")
    return Run(
        _clip_from_json(given.run),
        tuple(_edit_from_json(edit, tensors, depth + 1) for edit in given.edits),
        None if given.follows is None else _run_from_json(given.follows, tensors, depth + 1),
    )


def _clip_from_json(data: Any) -> Clip | str:
    return data if isinstance(data, str) else validated(Clip, data, "Invalid source")


def _with_tensor(value: Any, tensors: Tensors | None) -> Any:
    """Return the tensor that a value refers to, or the value itself."""
    if not isinstance(value, dict):
        return value
    if set(value) != {"tensor"} or not isinstance(value["tensor"], str):
        raise UserError('A tensor of an edit must be written as {"tensor": hash}.')
    if tensors is None:
        raise UserError(f"The tensor {value['tensor'][:80]} is missing. Store it with the edit.")
    return tensors(value["tensor"])
