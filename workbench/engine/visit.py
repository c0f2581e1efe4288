"""Apply edits and capture activations inside one denoiser call, which is planned first and then run."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float

from cache.errors import UserError
from workbench.engine.batch import Batch, RowEdit
from workbench.engine.conditioning import ConditioningTable
from workbench.engine.edits import Edit
from workbench.engine.operators import OPERATORS, Operands, Region
from workbench.engine.rows import CallRows
from workbench.engine.runs import Capture, Sink
from workbench.engine.sites import PARTS, TARGETS, Site

ENTERED = PARTS.index("cross_attn.q")
"""The first part inside a cross-attention; the conditioning must be edited before it."""


@runtime_checkable
class CallAccess(Protocol):
    """Read and write one running call; sites must be visited in order of computation."""

    n_blocks: int

    def head_dim(self, block: int) -> int:
        """Return the channels per head in a block's attentions."""
        ...

    def reads(self, block: int) -> slice:
        """Return which conditioning tokens the block's cross-attention reads."""
        ...

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        """Return the site's output."""
        ...

    def read_input(self, site: Site) -> Float[torch.Tensor, "row token n_in"]:
        """Return the input of the linear module whose output is the site."""
        ...

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Replace the site's output."""
        ...

    def skip(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Use this output instead of computing the site."""
        ...

    def write_mask(self, block: int, mask: Bool[torch.Tensor, "row token"]) -> None:
        """Hide the conditioning tokens where `mask` is False from each row of the block's cross-attention."""
        ...

    def as_latents(self, output: torch.Tensor) -> Float[torch.Tensor, "row frame channel"]:
        """Return the network's output with latent time as its second axis."""
        ...

    def move_positions(self, block: int, moves: Sequence[tuple[int, int, tuple[int, ...] | None]]) -> None:
        """Give rows of the block's cross-attention the positions of other rows' conditioning tokens, if it has any.

        A move is (row, row it takes them from, conditioning tokens or None for all).
        """
        ...


@dataclass(frozen=True)
class CallEdit:
    """An edit resolved to computed rows of one call.

    `positions` are among the conditioning tokens that the site's block reads; None for all.
    """

    edit: Edit
    row: int
    sources: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None

    def read_by(self, reads: slice) -> "CallEdit":
        """Return the edit with positions relative to the conditioning tokens that a block reads."""
        return replace(self, positions=read_positions(self.positions, reads))

    def region(self, head_dim: int) -> Region:
        """Return the region of the row that it changes."""
        window = self.edit.window
        return Region(window.tokens, window.heads, self.positions, head_dim)


@dataclass(frozen=True)
class SiteVisit:
    """The plan for a site: reuse its value from the first call or read it, apply edits in order, and capture it.

    `weights` are the edits that change the weights it is computed with. `read_later` means that edits of later sites
    read its value.
    """

    site: Site
    weights: tuple[CallEdit, ...]
    edits: tuple[CallEdit, ...]
    constant: bool
    captured: bool
    read_later: bool


class ReadValue(NamedTuple):
    """A site's value before and after the edits of it, for edits of later sites."""

    before: Float[torch.Tensor, "row token channel"]
    after: Float[torch.Tensor, "row token channel"]


ReadValues = dict[Site, ReadValue]


@dataclass(frozen=True)
class BlockVisit:
    """The plan for a block: sites before its cross-attention, what this reads, and its sites and later ones.

    `conditioning` are the edits whose rows take padding mask or positions from other rows.
    """

    block: int
    before: tuple[SiteVisit, ...]
    conditioning: tuple[CallEdit, ...]
    after: tuple[SiteVisit, ...]


def visit_call(
    access: CallAccess,
    rows: CallRows,
    batch: Batch,
    capture: Capture | None,
    mask: Bool[torch.Tensor, "row token"] | None,
    sink: Sink,
    table: ConditioningTable | None = None,
) -> None:
    """Apply a batch's edits to one call, and pass captured values (clip, pass, token, channel) to `sink`.

    `mask` marks real (True) and padding (False) conditioning tokens of each readable row, or is None without padding.
    An edit reads its source rows before any edit of that site in this call; captured values are those after the edits.
    With a `table`, keys and values of the constant conditioning are computed in the first call and reused.
    """
    label = rows.label
    captured = capture.sites if capture is not None and label.step in capture.steps else ()

    def give(site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        assert capture is not None
        sink(site, label.step, _by_clip(value, rows, batch.requested, capture.passes))

    read: ReadValues = {}
    for block in plan_call(access.n_blocks, access.reads, rows, batch.edits, captured, table is not None):
        for visit in block.before:
            _visit(access, visit, label.step, give, table, read)
        _write_mask(access, block, mask, len(rows.run))
        _move_positions(access, block)
        for visit in block.after:
            _visit(access, visit, label.step, give, table, read)


def plan_call(
    n_blocks: int,
    reads: Callable[[int], slice],
    rows: CallRows,
    edits: Sequence[RowEdit],
    captured: Collection[Site],
    constant_conditioning: bool,
) -> list[BlockVisit]:
    """Plan a call: its blocks in order of computation, with the sites that must be visited.

    `reads` returns which conditioning tokens a block reads.
    """
    by_site: dict[Site, list[CallEdit]] = defaultdict(list)
    read_later = set()
    conditioning: dict[int, list[CallEdit]] = defaultdict(list)
    for edit in _call_edits(rows, edits):
        if (read := edit.edit.parameters.read_site) is not None:
            read_later.add(read)
        for site in edit.edit.value_sites:
            by_site[site].append(edit.read_by(reads(site.block)))
        for site in edit.edit.conditioning_sites:
            conditioning[site.block].append(edit.read_by(reads(site.block)))

    def planned(block: int, parts: Sequence[str]) -> tuple[SiteVisit, ...]:
        sites = [Site(block, part) for part in parts]
        return tuple(
            _site_visit(site, by_site[site], constant, site in captured, site in read_later)
            for site in sites
            if (constant := constant_conditioning and site.on_conditioning)
            or site in by_site
            or site in captured
            or site in read_later
        )

    return [
        BlockVisit(
            block,
            planned(block, PARTS[:ENTERED]),
            tuple(conditioning[block]),
            planned(block, PARTS[ENTERED:]),
        )
        for block in range(n_blocks)
    ]


def _site_visit(
    site: Site, edits: Sequence[CallEdit], constant: bool, captured: bool, read_later: bool
) -> SiteVisit:
    weights = tuple(edit for edit in edits if edit.edit.target == "weights")
    others = tuple(edit for edit in edits if edit.edit.target != "weights")
    return SiteVisit(site, weights, others, constant, captured, read_later)


def _call_edits(rows: CallRows, edits: Sequence[RowEdit]) -> list[CallEdit]:
    """Return the edits that act in this call, once for every pass of their row in the call, ordered by target."""
    label = rows.label
    acting = [
        CallEdit(
            edit.edit,
            rows.place(edit.row, pass_name),
            tuple(rows.place(source, pass_name) for source in edit.sources),
            edit.positions,
        )
        for edit in edits
        for pass_name in label.distinct_passes
        if edit.acts_at(label.step, label.sigma, pass_name) and (edit.row, pass_name) not in rows.idle
    ]
    return sorted(acting, key=lambda edit: TARGETS.index(edit.edit.target))


def read_positions(positions: tuple[int, ...] | None, reads: slice) -> tuple[int, ...] | None:
    """Convert positions to those among the conditioning tokens that a block reads; None for all."""
    if positions is None:
        return None
    first, end = reads.start or 0, reads.stop
    return tuple(position - first for position in positions if first <= position < (end or position + 1))


def _visit(
    access: CallAccess,
    visit: SiteVisit,
    step: int,
    give: Callable[[Site, Float[torch.Tensor, "row token channel"]], None],
    table: ConditioningTable | None,
    read: ReadValues,
) -> None:
    """Run the plan for one site of a running call; `read` are the values that edits of later sites read."""
    site = visit.site
    constant = table if visit.constant else None
    known = None if constant is None else constant.rows(site)
    inputs = access.read_input(site) if visit.weights else None
    value = access.read(site) if known is None else known
    if constant is not None and known is None:
        constant.keep(site, value)
    n_rows = len(value)
    if constant is not None:
        value = constant.with_stored(site, value)
    if inputs is not None:
        value = _with_weights(value, inputs, visit.weights)
    edited = _edited(value, visit, step, access.head_dim(site.block), read) if visit.edits else value
    if visit.read_later:
        read[site] = ReadValue(value, edited)
    if known is not None:
        access.skip(site, edited[:n_rows])
    elif visit.edits or visit.weights:
        access.write(site, edited[:n_rows])
    if visit.captured:
        give(site, edited)


def _write_mask(
    access: CallAccess, visit: BlockVisit, mask: Bool[torch.Tensor, "row token"] | None, n_rows: int
) -> None:
    """Hide each row's own padding or, if an edit replaces the mask, that of its first source."""
    if mask is None:
        return
    mask = mask[:, access.reads(visit.block)]
    seen = mask.clone()
    for edit in visit.conditioning:
        if "mask" in edit.edit.conditioning_parts:
            at = slice(None) if edit.positions is None else list(edit.positions)
            seen[edit.row, at] = mask[edit.sources[0], at]
    access.write_mask(visit.block, seen[:n_rows])


def _move_positions(access: CallAccess, visit: BlockVisit) -> None:
    """Give patched keys the positions they have in their source, which matter for rotary embeddings."""
    moves = [
        (edit.row, edit.sources[0], edit.positions)
        for edit in visit.conditioning
        if "keys" in edit.edit.conditioning_parts
    ]
    if moves:
        access.move_positions(visit.block, moves)


def _with_weights(
    value: Float[torch.Tensor, "row token n_out"],
    inputs: Float[torch.Tensor, "row token n_in"],
    edits: Sequence[CallEdit],
) -> Float[torch.Tensor, "row token n_out"]:
    """Return a linear module's output as if each row had been computed with its own weights."""
    changed = value.clone()
    for name in dict.fromkeys(edit.edit.operator for edit in edits):
        same = [edit for edit in edits if edit.edit.operator == name]
        rows = torch.tensor([edit.row for edit in same], device=value.device)
        parameters = [edit.edit.parameters for edit in same]
        changed.index_add_(0, rows, OPERATORS[name].function(inputs[rows], parameters))
    return changed


def _edited(
    value: Float[torch.Tensor, "row token channel"],
    visit: SiteVisit,
    step: int,
    head_dim: int,
    read: ReadValues,
) -> Float[torch.Tensor, "row token channel"]:
    """Apply edits in order to a copy of a site's output; sources are read before any of them."""
    edited = value.clone()
    for edit in visit.edits:
        region, site = edit.region(head_dim), edit.edit.parameters.read_site
        before, after = (value, None) if site is None else read[site]
        operands = Operands(
            region.read(edited[edit.row]),
            before[list(edit.sources)],
            region,
            visit.site,
            step,
            None if after is None else region.read(after[edit.row]),
        )
        function = OPERATORS[edit.edit.operator].function
        region.write(edited[edit.row], function(operands, edit.edit.parameters))
    return edited


def _by_clip(
    value: Float[torch.Tensor, "row token channel"],
    rows: CallRows,
    clips: Sequence[int],
    passes: Sequence[str],
) -> Float[torch.Tensor, "clip pass token channel"]:
    """Return the rows of the selected clips and passes as (clip, pass, token, channel)."""
    label = rows.label
    missing = [pass_name for pass_name in passes if pass_name not in label.passes]
    if missing:
        raise UserError(
            f"The {missing[0]} pass is not run at step {label.step}, where guidance is off. "
            "Capture other steps or passes."
        )
    places = [[rows.place(clip, pass_name) for pass_name in passes] for clip in clips]
    return value[torch.tensor(places, device=value.device)]
