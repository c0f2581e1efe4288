"""Runs under edits that read from `OTHER`."""

from collections.abc import Sequence

from workbench.engine.edits import Edit, Run, Source, as_run
from workbench.engine.runs import Clip

OTHER = "other"


def edited(clip: Clip, edits: Sequence[Edit], *others: Source) -> Run:
    """The clip under edits; `others` are the runs that the source `OTHER` refers to."""
    return Run(clip, tuple(edits)).bound({OTHER: [as_run(other) for other in others]})
