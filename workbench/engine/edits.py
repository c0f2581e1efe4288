"""Interventions are data: what to change, where, and when, as frozen dataclasses with canonical JSON."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.provenance import content_hash

Pass = Literal["cond", "text", "null"]
Carried = Literal["keys", "values", "mask"]
CARRIED: tuple[Carried, ...] = ("keys", "values", "mask")
_PER_HEAD = ("q", "k", "v", "heads")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every intervention states: sites, and the window in which it acts.

    `steps` (first, last) bounds the calls, ends included, as do `sigmas` (low, high), the low end excluded, so that
    neighbouring windows share no call; `passes` are the guidance's; `tokens` (first, last) bounds the site's
    token axis; `heads` names attention heads of `q`, `k`, `v` or `heads`
    sites (numbers of key and value heads at `k` and `v`). None is everywhere.
    """

    kind: ClassVar[str]
    sites: tuple[str, ...]
    steps: tuple[int, int] | None = None
    sigmas: tuple[float, float] | None = None
    passes: tuple[Pass, ...] | None = None
    tokens: tuple[int, int] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.sites:
            raise UserError(f"A {self.kind} needs at least one site, such as tf3.cross_attn.")
        parts = {site: Site.parse(site).part.rpartition(".")[2] for site in self.sites}
        without = [site for site, part in parts.items() if part not in _PER_HEAD]
        if self.heads is not None and without:
            raise UserError(
                f"{without[0]} has no heads to choose from: take .heads, .q, .k or .v of its attention."
            )
        for name in ("steps", "sigmas", "tokens"):
            window = getattr(self, name)
            # Sigmas exclude their low end.
            if window is not None and (
                window[0] > window[1] or (name == "sigmas" and window[0] == window[1])
            ):
                raise UserError(
                    f"The {name} window {window[0]} to {window[1]} is empty: give the lower end first."
                )

    def acts_at(self, step: int, sigma: float, pass_name: str) -> bool:
        """Whether the intervention applies to this pass of this call."""
        in_steps = self.steps is None or self.steps[0] <= step <= self.steps[1]
        in_sigmas = self.sigmas is None or self.sigmas[0] < sigma <= self.sigmas[1]
        in_passes = self.passes is None or pass_name in self.passes
        return in_steps and in_sigmas and in_passes

    @property
    def exchanges(self) -> tuple[Carried, ...]:
        """What the cross-attention reads of another row, where the edit is of its conditioning; else nothing."""
        return ()

    @property
    def conditioning_segments(self) -> tuple[str, ...] | None:
        """Spans of the conditioning tokens that the edit is limited to; None for all."""
        return None

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError unless this many source rows are as many as the edit reads."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, with the kind; `spec_from_json` reads it back."""
        return {"kind": self.kind, **asdict(self)}

    @property
    def hash(self) -> str:
        """Hash of the canonical JSON: names results."""
        return content_hash(self.to_json())


@dataclass(frozen=True, kw_only=True)
class PatchSpec(Spec):
    """Activation patching: take the value of the source row in the same call.

    `mode="conditioning"` lets the block's cross-attention read the source row's conditioning: `carry` says whether
    its keys, its values and its padding mask; all three together are the paper's definition (TADA, arXiv 2602.11910).
    `segments` limits it to spans of the conditioning tokens (see `workbench.engine.segments`). Sites must be
    `cross_attn`.
    `mode="output"` replaces the site's output.

    With `random_seed` the patched value lies as far from the row's own as the source's does, but in a direction
    drawn at random: a null patch of the same norm.
    """

    kind: ClassVar[str] = "patch"
    mode: Literal["conditioning", "output"] = "conditioning"
    carry: tuple[Carried, ...] = CARRIED
    segments: tuple[str, ...] | None = None
    random_seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "output":
            if self.segments is not None or self.carry != CARRIED:
                raise UserError(
                    "Segments and what is carried belong to a conditioning patch, not to an output patch."
                )
            return
        wrong = [site for site in self.sites if Site.parse(site).part != "cross_attn"]
        if wrong:
            raise UserError(f"A conditioning patch acts on cross_attn sites only, not on {', '.join(wrong)}.")
        if self.tokens is not None:
            raise UserError("A conditioning patch has no window of latent tokens: patch the output instead.")
        if not self.carry or not set(self.carry) <= set(CARRIED):
            raise UserError(f"A conditioning patch carries some of {', '.join(CARRIED)}.")

    @property
    def exchanges(self) -> tuple[Carried, ...]:
        """What the cross-attention reads of the source row."""
        return self.carry if self.mode == "conditioning" else ()

    @property
    def conditioning_segments(self) -> tuple[str, ...] | None:
        """Spans of the conditioning tokens that are patched."""
        return self.segments

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError unless there is one source row."""
        if n_sources != 1:
            raise UserError("A patch needs one source row: Intervention(row, spec, source=...).")


@dataclass(frozen=True, kw_only=True)
class AblationSpec(Spec):
    """Ablation: the site's output becomes zero, the mean of the source rows (over rows and tokens), or theirs.

    `method="resample"` takes the value of one source row, which should have nothing to do with the ablated one.
    """

    kind: ClassVar[str] = "ablation"
    method: Literal["zero", "mean", "resample"] = "zero"

    def check_sources(self, n_sources: int) -> None:
        """Raise UserError without source rows, where the method reads some."""
        if not n_sources and self.method != "zero":
            raise UserError(
                f"A {self.method} ablation needs source rows: Intervention(row, spec, source=...)."
            )


@dataclass(frozen=True, kw_only=True)
class SteerSpec(Spec):
    """Activation addition: `strength * direction` is added to every token of the site's output."""

    kind: ClassVar[str] = "steer"
    direction: tuple[float, ...]
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ClampSpec(Spec):
    """Every token of the site's output gets this projection onto the direction, and keeps the rest of itself.

    The projection is x·d / |d|, in the units of the site's output. 0 projects the direction out.
    """

    kind: ClassVar[str] = "clamp"
    direction: tuple[float, ...]
    projection: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.direction):
            raise UserError("A direction to clamp along must have a number that is not 0.")


@dataclass(frozen=True)
class Intervention:
    """A spec applied to one row of a batch; `source` is the row, or the rows, that it reads from."""

    row: int
    spec: Spec
    source: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.spec.check_sources(len(self.sources))

    @property
    def sources(self) -> tuple[int, ...]:
        """The rows it reads from."""
        if self.source is None:
            return ()
        return self.source if isinstance(self.source, tuple) else (self.source,)


_KINDS: dict[str, type[Spec]] = {spec.kind: spec for spec in (PatchSpec, AblationSpec, SteerSpec, ClampSpec)}


def spec_from_json(data: dict[str, Any]) -> Spec:
    """Rebuild a spec from `Spec.to_json` data; raises UserError for an unknown kind or field."""
    kind = data.get("kind")
    if kind not in _KINDS:
        raise UserError(f"'{kind}' is not a kind of intervention: use one of {', '.join(_KINDS)}.")
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in data.items()
        if key != "kind"
    }
    unknown = set(values) - {field.name for field in fields(_KINDS[kind])}
    if unknown:
        raise UserError(f"A {kind} has no field {', '.join(sorted(unknown))}.")
    return _KINDS[kind](**values)
