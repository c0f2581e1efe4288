"""Interventions are data: what to change, where, and when, as frozen dataclasses with canonical JSON."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from cache.errors import UserError
from workbench.provenance import content_hash
from workbench.sites import Site

Pass = Literal["cond", "null"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every intervention states: sites, a window of step indices (first, last; None = all), and passes."""

    kind: ClassVar[str]
    sites: tuple[str, ...]
    steps: tuple[int, int] | None = None
    passes: tuple[Pass, ...] = ("cond", "null")

    def __post_init__(self) -> None:
        if not self.sites:
            raise UserError(f"A {self.kind} needs at least one site, such as tf3.cross_attn.")
        for site in self.sites:
            Site.parse(site)

    def acts_at(self, step: int, pass_name: str) -> bool:
        """Whether the intervention applies to this pass of this step."""
        in_window = self.steps is None or self.steps[0] <= step <= self.steps[1]
        return in_window and pass_name in self.passes

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

    `mode="conditioning"` lets the block's cross-attention read the source row's conditioning (states and padding
    mask together), the paper's definition (TADA, arXiv 2602.11910); sites must be `cross_attn`.
    `mode="output"` replaces the site's output.
    """

    kind: ClassVar[str] = "patch"
    mode: Literal["conditioning", "output"] = "conditioning"

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [site for site in self.sites if Site.parse(site).part != "cross_attn"]
        if self.mode == "conditioning" and wrong:
            raise UserError(f"A conditioning patch acts on cross_attn sites only, not on {', '.join(wrong)}.")


@dataclass(frozen=True, kw_only=True)
class AblationSpec(Spec):
    """Zero ablation: the site's output becomes zero."""

    kind: ClassVar[str] = "ablation"


@dataclass(frozen=True, kw_only=True)
class SteerSpec(Spec):
    """Activation addition: `strength * direction` is added to every token of the site's output."""

    kind: ClassVar[str] = "steer"
    direction: tuple[float, ...]
    strength: float = 1.0


@dataclass(frozen=True)
class Intervention:
    """A spec applied to one row of a batch; `source` is the row that a patch reads from."""

    row: int
    spec: Spec
    source: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.spec, PatchSpec) and self.source is None:
            raise UserError("A patch needs a source row: Intervention(row, spec, source=...).")


_KINDS: dict[str, type[Spec]] = {spec.kind: spec for spec in (PatchSpec, AblationSpec, SteerSpec)}


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
