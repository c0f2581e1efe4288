"""Resolve the conditioning tokens that a batch's edits name by segment or word."""

from dataclasses import replace

from workbench.engine.batch import Batch, RowEdit
from workbench.engine.segments import batch_tokens, segment_positions
from workbench.engine.settings import GenerationSettings
from workbench.models.architecture import Architecture


def placed_edits(model: Architecture, batch: Batch, settings: GenerationSettings) -> tuple[RowEdit, ...]:
    """Return the batch's edits with the conditioning tokens that they act on."""
    if all(edit.edit.window.segments is None for edit in batch.edits):
        return batch.edits
    places = model.conditionings(batch.rows, settings)
    n_tokens = batch_tokens(places)

    def placed(edit: RowEdit) -> RowEdit:
        names = edit.edit.window.segments
        if names is None:
            return edit
        counterpart = places[edit.sources[0] if edit.sources else edit.row]
        positions = segment_positions(names, places[edit.row], counterpart, n_tokens)
        return replace(edit, positions=tuple(positions))

    return tuple(map(placed, batch.edits))
