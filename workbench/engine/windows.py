"""Check before a run that its edits fit its steps, passes and tokens; afterwards a misfit would go unnoticed."""

import math
from collections.abc import Callable, Iterable, Sequence

from cache.errors import UserError
from workbench.engine.batch import RowEdit
from workbench.engine.edits import Edit, Window
from workbench.engine.sites import Site

SAME_SIGMA = 1e-3
"""Relative difference of two sigmas up to which they count as the same: models round their schedules."""

MOST_SHOWN = 12


def check_steps(edit: Edit, sigmas: Sequence[float]) -> None:
    """Raise UserError if an edit's parameters belong to other steps than those of a run with these sigmas."""
    for step, sigma in enumerate(sigmas):
        if edit.window.includes(step, sigma):
            edit.parameters.check_step(step)
    made_at = edit.made_at
    if made_at is None:
        return
    same = len(made_at) == len(sigmas) and all(
        math.isclose(one, other, rel_tol=SAME_SIGMA) for one, other in zip(made_at, sigmas, strict=True)
    )
    if not same:
        raise UserError(
            f"{edit.described} was made for {_steps(made_at)}, but this run has {_steps(sigmas)}. Make it again with "
            "the settings of this run, or resample the vector by sigma."
        )


def check_windows(
    edits: Iterable[Edit], sigmas: Sequence[float], passes: Sequence[str], n_tokens: Callable[[Site], int]
) -> None:
    """Raise UserError for an edit that acts nowhere in a run with these sigmas and passes.

    `n_tokens` returns the number of tokens of a site. An edit whose window is only partly in the run is accepted.
    """
    for edit in edits:
        window = edit.window
        if not any(window.acts_at(step, sigma, name) for step, sigma in enumerate(sigmas) for name in passes):
            raise UserError(
                f"{edit.described} acts in no call of this run: its window is {_calls(window)}, and the run has "
                f"{_steps(sigmas)}, numbered from 0, and the passes {', '.join(passes)}."
            )
        most = max(map(n_tokens, edit.value_sites)) if window.tokens is not None else 0
        if window.tokens is not None and window.tokens[0] >= most:
            first, last = window.tokens
            raise UserError(
                f"{edit.described} acts on no token of this run: its window is tokens {first} to {last}, and the site "
                f"has tokens 0 to {most - 1}."
            )


def check_segments(edits: Iterable[RowEdit]) -> None:
    """Raise UserError for segments that have no token in any edited row."""
    has_tokens: dict[tuple[str, ...], bool] = {}
    for row in edits:
        if (names := row.edit.window.segments) is not None:
            has_tokens[names] = has_tokens.get(names, False) or not row.acts_on_nothing
    for names, found in has_tokens.items():
        if not found:
            raise UserError(
                f"An edit acts on no token: no clip has conditioning tokens of the segment {', '.join(names)}. The "
                "segments of words (swapped, before, after) depend on where the two prompts differ."
            )


def _calls(window: Window) -> str:
    given = {"steps": window.steps, "sigmas": window.sigmas}
    spans = [f"{name} {span[0]:g} to {span[1]:g}" for name, span in given.items() if span is not None]
    passes = [] if window.passes is None else [f"passes {', '.join(window.passes)}"]
    return ", ".join(spans + passes)


def _steps(sigmas: Sequence[float]) -> str:
    if len(sigmas) == 1:
        return f"1 step (sigma {sigmas[0]:.4g})"
    shown = [f"{sigma:.4g}" for sigma in sigmas]
    middle = shown[1:-1] if len(sigmas) <= MOST_SHOWN else ["…"]
    return f"{len(sigmas)} steps (sigmas {', '.join([shown[0], *middle, shown[-1]])})"
