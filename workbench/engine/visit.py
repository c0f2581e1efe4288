"""The engine: inside one denoiser call, apply interventions and keep activations, site by site."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float

from cache.errors import UserError
from workbench.engine.conditioning import ConditioningTable
from workbench.engine.edits import Intervention, Spec
from workbench.engine.operators import Operands, Region, new_value
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Capture, Sink
from workbench.engine.sites import PARTS, Site


@runtime_checkable
class CallAccess(Protocol):
    """Read and write one running call; sites must be visited in order of computation."""

    n_blocks: int

    def head_dim(self, block: int) -> int:
        """Channels of a head in a block's attentions."""
        ...

    def reads(self, block: int) -> slice:
        """Which of the conditioning's tokens the block's cross-attention reads."""
        ...

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        """The site's output."""
        ...

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Replace the site's output."""
        ...

    def skip(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Use this output instead of computing the site."""
        ...

    def write_mask(self, block: int, mask: Bool[torch.Tensor, "row token"]) -> None:
        """A row of the block's cross-attention does not see the conditioning tokens where its mask is False."""
        ...

    def as_latents(self, output: torch.Tensor) -> Float[torch.Tensor, "row frame channel"]:
        """The network's output with latent time as its second axis."""
        ...

    def move_positions(self, block: int, moves: Sequence[tuple[int, int, tuple[int, ...] | None]]) -> None:
        """Let rows of the block's cross-attention take the positions of others' conditioning tokens, if it has any.

        A move is (row, row that it takes them of, conditioning tokens; None for all).
        """
        ...


@dataclass(frozen=True)
class Edit:
    """An intervention resolved to computed rows of one call.

    `positions` are those among the conditioning tokens that the site's block reads, None for all.
    """

    spec: Spec
    row: int
    sources: tuple[int, ...]
    positions: tuple[int, ...] | None = None

    @property
    def on_conditioning(self) -> bool:
        """Whether it exchanges what the cross-attention reads, and does not change the site's output itself."""
        return bool(self.spec.exchanges)


def visit_call(
    access: CallAccess,
    rows: CallRows,
    interventions: Sequence[Intervention],
    positions: Sequence[tuple[int, ...] | None],
    capture: Capture | None,
    mask: Bool[torch.Tensor, "row token"] | None,
    sink: Sink,
    table: ConditioningTable | None = None,
) -> None:
    """Apply the interventions to one call and give the captured values, each (clip, pass, token, channel), to `sink`.

    `positions` are the conditioning tokens of each intervention (None for all). `mask` marks the real (True) and
    padding (False) conditioning tokens of each computed row, or is None when nothing is padded. A patch reads its
    source row as it was before any edit of that site in this call; captured values are those after the edits. With a
    `table`, keys and values of the constant conditioning are computed in the first call and used again in the others.
    """
    edits = resolve(rows, interventions, positions, access.reads)
    label = rows.label
    captured = capture.sites if capture is not None and label.step in capture.steps else ()
    for block in range(access.n_blocks):
        for part in PARTS:
            site = Site(block, part)
            if part == "cross_attn.q":
                exchanged = [e for e in edits[Site(block, "cross_attn")] if e.on_conditioning]
                _write_mask(access, block, exchanged, mask)
                _move_positions(access, block, exchanged)
            constant = table if site.on_conditioning else None
            known = None if constant is None else constant.rows(site)
            outputs = [edit for edit in edits[site] if not edit.on_conditioning]
            if site.on_conditioning:
                whole = edits[Site(block, "cross_attn")]
                outputs = [e for e in whole if e.on_conditioning and _carries(e, site)] + outputs
            if constant is None and not outputs and site not in captured:
                continue
            value = access.read(site) if known is None else known
            if constant is not None and known is None:
                constant.keep(site, value)
            edited = _edited(value, outputs, site, access.head_dim(block)) if outputs else value
            if known is not None:
                access.skip(site, edited)
            elif outputs:
                access.write(site, edited)
            if capture is not None and site in captured:
                sink(site, label.step, _by_clip(edited, rows, capture.passes))


def resolve(
    rows: CallRows,
    interventions: Sequence[Intervention],
    positions: Sequence[tuple[int, ...] | None],
    reads: Callable[[int], slice],
) -> dict[Site, list[Edit]]:
    """Edits of this call by site: each intervention once for every pass of its row that the call runs.

    `reads` tells which of the conditioning's tokens a block reads: an intervention that is limited to others does
    nothing there.
    """
    edits: dict[Site, list[Edit]] = defaultdict(list)
    label = rows.label
    for intervention, where in zip(interventions, positions, strict=True):
        for pass_name in dict.fromkeys(label.passes):
            acts = intervention.spec.acts_at(label.step, label.sigma, pass_name)
            if not acts or (intervention.row, pass_name) in rows.idle:
                continue
            row = rows.place(intervention.row, pass_name)
            sources = tuple(rows.place(source, pass_name) for source in intervention.sources)
            for site in map(Site.parse, intervention.spec.sites):
                here = read_positions(where, reads(site.block))
                edits[site].append(Edit(intervention.spec, row, sources, here))
    return edits


def read_positions(positions: tuple[int, ...] | None, reads: slice) -> tuple[int, ...] | None:
    """Those of the conditioning tokens that a block reads, counted from the first that it reads; None for all."""
    if positions is None:
        return None
    first, end = reads.start or 0, reads.stop
    return tuple(position - first for position in positions if first <= position < (end or position + 1))


def _carries(edit: Edit, site: Site) -> bool:
    return ("keys" if site.part.endswith(".k") else "values") in edit.spec.exchanges


def _write_mask(
    access: CallAccess, block: int, edits: list[Edit], mask: Bool[torch.Tensor, "row token"] | None
) -> None:
    """Hide the padding, each row's own or, where an edit carries it, its source's."""
    if mask is None:
        return
    mask = mask[:, access.reads(block)]
    seen = mask.clone()
    for edit in edits:
        if "mask" in edit.spec.exchanges:
            at = slice(None) if edit.positions is None else list(edit.positions)
            seen[edit.row, at] = mask[edit.sources[0], at]
    access.write_mask(block, seen)


def _move_positions(access: CallAccess, block: int, edits: list[Edit]) -> None:
    """Keys that are carried lie where they lie in their source: a rotary embedding tells."""
    moves = [(edit.row, edit.sources[0], edit.positions) for edit in edits if "keys" in edit.spec.exchanges]
    if moves:
        access.move_positions(block, moves)


def _edited(
    value: Float[torch.Tensor, "row token channel"], edits: list[Edit], site: Site, head_dim: int
) -> Float[torch.Tensor, "row token channel"]:
    """A copy of a site's output with its edits applied in order; sources are read as they were before all of them."""
    edited = value.clone()
    for edit in edits:
        region = Region(edit.spec, edit.positions, head_dim)
        own = region.read(edited[edit.row])
        sources = value[list(edit.sources)]
        region.write(edited[edit.row], new_value(edit.spec, Operands(own, sources, region, site)))
    return edited


def _by_clip(
    value: Float[torch.Tensor, "row token channel"], rows: CallRows, passes: Sequence[str]
) -> Float[torch.Tensor, "clip pass token channel"]:
    """The rows of the wanted passes as (clip, pass, token, channel)."""
    label: CallLabel = rows.label
    missing = [pass_name for pass_name in passes if pass_name not in label.passes]
    if missing:
        raise UserError(
            f"The {missing[0]} pass is not run at step {label.step} (guidance is off there): "
            "capture other steps or passes."
        )
    places = [[rows.place(clip, pass_name) for pass_name in passes] for clip in sorted(set(label.clips))]
    return value[torch.tensor(places, device=value.device)]
