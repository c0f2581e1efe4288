"""Edits of velocities: read in a call, applied after guidance, before the sampler's step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float

from workbench.engine.batch import RowEdit
from workbench.engine.operators import OPERATORS, Operands, Region
from workbench.engine.rows import CallRows

_WHOLE = Region(None, None, None, 0)


class VelocityEdits:
    """The edits of a batch whose target is the velocity."""

    def __init__(self, edits: Sequence[RowEdit]) -> None:
        self._edits = [edit for edit in edits if edit.edit.target == "velocity"]
        self._acting: list[tuple[RowEdit, Float[torch.Tensor, "source ..."]]] = []
        self._step = 0

    def __bool__(self) -> bool:
        return bool(self._edits)

    def read(self, rows: CallRows, velocities: Float[torch.Tensor, "row ..."]) -> None:
        """Keep the sources of the edits that act in this call; `velocities` are those of its computed rows."""
        label = rows.label
        self._step = label.step
        self._acting = [
            (edit, velocities[[rows.place(source, name) for source in edit.sources]])
            for edit in self._edits
            for name in label.distinct_passes
            if edit.acts_at(label.step, label.sigma, name)
        ]

    def apply(self, guided: Float[torch.Tensor, "clip ..."]) -> Float[torch.Tensor, "clip ..."]:
        """Return the velocities that the sampler follows after the last call that was read."""
        followed = guided.clone()
        for edit, sources in self._acting:
            own = followed[edit.row]
            operands = Operands(own.reshape(1, -1), sources.flatten(1)[:, None], _WHOLE, None, self._step)
            changed = OPERATORS[edit.edit.operator].function(operands, edit.edit.parameters)
            followed[edit.row] = changed.reshape(own.shape)
        return followed
