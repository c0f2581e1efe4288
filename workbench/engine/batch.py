"""Plan the rows of a batch: the requested runs, and the runs that their edits read from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.edits import SELF, Edit, Run, as_run
from workbench.engine.runs import Clip


@dataclass(frozen=True)
class Row(Clip):
    """A row of a batch: a clip and, for a shadow, the row whose latents it sees instead of its own."""

    shadow_of: int | None = None


@dataclass(frozen=True)
class RowEdit:
    """An edit of a row of a batch, and the rows it reads from.

    `positions` restricts it to some conditioning tokens; None for all.
    """

    edit: Edit
    row: int
    sources: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None

    def acts_at(self, step: int, sigma: float, pass_name: str) -> bool:
        """Whether it applies to this pass of this call."""
        return not self.acts_on_nothing and self.edit.window.acts_at(step, sigma, pass_name)

    @property
    def changes_call(self) -> bool:
        """Whether it changes values in a call, not only the velocity after it."""
        return self.edit.target != "velocity"

    @property
    def acts_on_nothing(self) -> bool:
        """Whether the row has no conditioning token of the edit's segments."""
        return self.positions == ()


@dataclass(frozen=True)
class Batch:
    """Rows, their edits, and the row of each requested run."""

    rows: tuple[Row, ...]
    edits: tuple[RowEdit, ...] = ()
    requested: tuple[int, ...] = ()

    @cached_property
    def only_read(self) -> frozenset[int]:
        """The rows of which nothing but the conditioning is used, so that they need no latents."""
        used = {*self.requested, *(row.shadow_of for row in self.rows), *(edit.row for edit in self.edits)}
        for edit in self.edits:
            if edit.edit.target != "conditioning":
                used |= set(edit.sources)
        return frozenset(
            place for place, row in enumerate(self.rows) if place not in used and row.shadow_of is None
        )

    @property
    def embeds_conditioning(self) -> bool:
        """Whether every call must embed the conditioning, because rows have other weights where it is read."""
        return any(
            site.on_conditioning
            for edit in self.edits
            if edit.edit.target == "weights"
            for site in edit.edit.value_sites
        )


def plan_batch(runs: Sequence[Clip | Run]) -> Batch:
    """Plan the batch of these runs: equal runs share a row, and the runs that they read from get rows as well.

    Edits that change nothing are dropped: a run with strength 0 is the row of the unedited run. Runs without edits come
    first, then the sources, then the edited runs, each with those that follow it.

    Raises:
        UserError: if a run follows one that itself follows another, or has no velocity that an edit could change.
    """
    requested = [as_run(run).without_idle_edits() for run in runs]
    plan = _Plan()
    for run in requested:
        if not run.edits and run.follows is None:
            plan.row(run)
    for source in (source for run in requested for source in run.reads):
        if not source.depends_on_reader:
            plan.row(source)
    places = tuple(plan.row(run) for run in requested)
    return Batch(tuple(plan.rows), tuple(plan.edits), places)


@dataclass
class _Plan:
    """A batch under construction."""

    rows: list[Row] = field(default_factory=list)
    edits: list[RowEdit] = field(default_factory=list)
    places: dict[tuple[Run, int | None], int] = field(default_factory=dict)

    def row(self, run: Run, reader: int | None = None) -> int:
        """Return the row of a run that is read by the run in the row `reader`."""
        if run.is_self and not run.edits:
            if reader is None:
                raise UserError(f"'{SELF}' stands for the run that reads it, so it can only be a source.")
            return reader
        key = (run, reader if run.depends_on_reader else None)
        if key not in self.places:
            self.places[key] = self._new_row(run, reader)
        return self.places[key]

    def _new_row(self, run: Run, reader: int | None) -> int:
        if isinstance(run.clip, str):
            raise UserError(
                f"{quoted(run.clip)} is the name of a run, which must be bound to a clip first, as in a map's arms. "
                "Give a clip, such as one of wb.clips(['a fast song'])."
            )
        for edit in run.edits:
            for source in edit.sources:
                if not source.depends_on_reader:
                    self.row(source)
        followed = None if run.follows is None else self.row(run.follows, reader)
        if followed is not None and self.rows[followed].shadow_of is not None:
            raise UserError(
                "A run can only follow a run that has latents, not one that itself follows another."
            )
        if followed is not None and any(edit.target == "velocity" for edit in run.edits):
            raise UserError(
                "A run that follows another has no sampler, so an edit of its velocity would change nothing. Edit the "
                "velocity of the run that it follows."
            )
        row = len(self.rows)
        self.rows.append(Row(run.clip.prompt, run.clip.seed, run.clip.lyrics, followed))
        # In its edits "self" is the run itself, or the run it follows.
        owner = reader if run.depends_on_reader else row
        self.edits += [
            RowEdit(edit, row, tuple(self.row(source, owner) for source in edit.sources))
            for edit in run.edits
        ]
        return row
