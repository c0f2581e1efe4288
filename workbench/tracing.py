"""The engine: inside one denoiser call, apply interventions and keep activations, site by site."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float

from cache.errors import UserError
from workbench.interventions import AblationSpec, Intervention, PatchSpec, Spec, SteerSpec
from workbench.models.protocol import CallLabel, Capture, Sink
from workbench.sites import PARTS, Site


@runtime_checkable
class CallAccess(Protocol):
    """Read and write one running call; sites must be visited in order of computation."""

    n_blocks: int

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        """The site's output."""
        ...

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Replace the site's output."""
        ...

    def read_conditioning(self, block: int) -> Float[torch.Tensor, "row token channel"]:
        """The states that the block's cross-attention takes its keys and values from."""
        ...

    def write_conditioning(
        self,
        block: int,
        states: Float[torch.Tensor, "row token channel"],
        mask: Bool[torch.Tensor, "row token"] | None,
    ) -> None:
        """Replace those states; a row does not see the tokens where its mask is False."""
        ...


@dataclass(frozen=True)
class _Edit:
    """An intervention resolved to batch rows of one call."""

    spec: Spec
    row: int
    source: int | None

    @property
    def on_conditioning(self) -> bool:
        return isinstance(self.spec, PatchSpec) and self.spec.mode == "conditioning"


def visit_call(
    access: CallAccess,
    label: CallLabel,
    interventions: Sequence[Intervention],
    capture: Capture | None,
    mask: Bool[torch.Tensor, "row token"] | None,
    sink: Sink,
) -> None:
    """Apply the interventions to one call and give the captured values, each (clip, pass, token, channel), to `sink`.

    `mask` marks the real (True) and padding (False) conditioning tokens of each row of the call, or is None when
    nothing is padded. A patch reads its source row as it was before any edit of that site in this call; captured
    values are those after the edits.
    """
    edits = _resolve(label, interventions)
    captured = capture.sites if capture is not None and label.step in capture.steps else ()
    for block in range(access.n_blocks):
        for part in PARTS:
            site = Site(block, part)
            if part == "cross_attn.q":
                _edit_conditioning(
                    access, block, [e for e in edits[Site(block, "cross_attn")] if e.on_conditioning], mask
                )
            outputs = [edit for edit in edits[site] if not edit.on_conditioning]
            if not outputs and site not in captured:
                continue
            value = access.read(site)
            if outputs:
                value = _edited(value, outputs)
                access.write(site, value)
            if capture is not None and site in captured:
                sink(site, label.step, _by_clip(value, label, capture.passes))


def _resolve(label: CallLabel, interventions: Sequence[Intervention]) -> dict[Site, list[_Edit]]:
    """Edits of this call by site: each intervention once for every pass of its row that the call runs."""
    edits: dict[Site, list[_Edit]] = defaultdict(list)
    for intervention in interventions:
        for pass_name in set(label.passes):
            if not intervention.spec.acts_at(label.step, pass_name):
                continue
            row = label.row(intervention.row, pass_name)
            source = None if intervention.source is None else label.row(intervention.source, pass_name)
            for site in intervention.spec.sites:
                edits[Site.parse(site)].append(_Edit(intervention.spec, row, source))
    return edits


def _edit_conditioning(
    access: CallAccess, block: int, edits: list[_Edit], mask: Bool[torch.Tensor, "row token"] | None
) -> None:
    """Exchange conditioning rows, states and padding mask together, and hide padding where there is any."""
    if not edits and mask is None:
        return
    states = access.read_conditioning(block)
    rows = torch.arange(len(states), device=states.device)
    for edit in edits:
        assert edit.source is not None
        rows[edit.row] = edit.source
    access.write_conditioning(block, states[rows], None if mask is None else mask[rows])


def _edited(value: Float[torch.Tensor, "row *axes"], edits: list[_Edit]) -> Float[torch.Tensor, "row *axes"]:
    """A copy of a site's output with its edits applied in order."""
    edited = value.clone()
    for edit in edits:
        if isinstance(edit.spec, PatchSpec):
            assert edit.source is not None
            edited[edit.row] = value[edit.source]
        elif isinstance(edit.spec, AblationSpec):
            edited[edit.row] = 0
        elif isinstance(edit.spec, SteerSpec):
            direction = torch.tensor(edit.spec.direction, dtype=value.dtype, device=value.device)
            if direction.shape != value.shape[-1:]:
                raise UserError(
                    f"A steering direction has {len(direction)} numbers "
                    f"but {edit.spec.sites[0]} has {value.shape[-1]} channels."
                )
            edited[edit.row] += edit.spec.strength * direction
    return edited


def _by_clip(
    value: Float[torch.Tensor, "row token channel"], label: CallLabel, passes: Sequence[str]
) -> Float[torch.Tensor, "clip pass token channel"]:
    """The rows of the wanted passes as (clip, pass, token, channel)."""
    clips = sorted(set(label.clips))
    missing = [pass_name for pass_name in passes if pass_name not in label.passes]
    if missing:
        raise UserError(
            f"The {missing[0]} pass is not run at step {label.step} (guidance is off there): "
            "capture other steps or passes."
        )
    rows = [[label.row(clip, pass_name) for pass_name in passes] for clip in clips]
    return value[torch.tensor(rows, device=value.device)]
