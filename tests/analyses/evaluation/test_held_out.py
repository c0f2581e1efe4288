"""Pairs of an evaluation: disjoint, at both ends, and of the right size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.evaluation.held_out import HeldOut, held_out
from analyses.steering.pairs import pairs_towards
from cache.errors import UserError
from workbench.prompts.prompt_sets import PromptSet, load_prompt_set

ORGANISM = load_prompt_set("organism")
INSTRUMENTS = [name for name in ORGANISM.concepts["instrument"] if name != "violin"]


def contexts(found: HeldOut, stage: str) -> set[str]:
    return {pair.clean.text for pair in getattr(found, stage).towards + getattr(found, stage).away}


def test_as_many_as_asked_if_there_are_enough() -> None:
    found = held_out(ORGANISM, "tempo", "fast", ["slow"], pairs=8, selection=4, fit=16, seed=0)
    for ends, n in ((found.report, 8), (found.selection, 4)):
        assert len(ends.towards) == len(ends.away) == n
        assert len({pair.corrupt.text for pair in ends.towards}) == n
        assert len({pair.clean.text for pair in ends.away}) == n
        assert all(pair.clean_value == "fast" for pair in (*ends.towards, *ends.away))
    left = pairs_towards(ORGANISM, "tempo", "fast", ["slow"], 16, 0, held_out=found.prompts)
    assert not {side.text for pair in left for side in (pair.clean, pair.corrupt)} & found.prompts


def test_prompts_with_other_values_of_the_concept_are_kept_together() -> None:
    found = held_out(ORGANISM, "instrument", "violin", INSTRUMENTS, pairs=8, selection=4, fit=12, seed=0)
    assert (len(contexts(found, "report")), len(contexts(found, "selection"))) == (4, 2), "of 8 prompts"
    assert len(found.report.towards) == 8 and len(found.report.away) == 4
    assert len({pair.corrupt.text for pair in found.report.towards}) == 8
    with pytest.raises(UserError, match="from 1 to 12"):
        pairs_towards(ORGANISM, "instrument", "violin", INSTRUMENTS, 13, 0, held_out=found.prompts)


@given(st.integers(2, 30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_report_selection_and_the_rest_have_no_prompt_in_common(
    pairs: int, selection: int, fit: int, seed: int
) -> None:
    found = held_out(ORGANISM, "mood", "happy", ["sad"], pairs, selection, fit, seed)
    assert not found.report.prompts & found.selection.prompts
    assert found.report.prompts | found.selection.prompts == found.prompts
    assert 1 <= len(found.report.towards) <= pairs and 1 <= len(found.selection.towards) <= selection


def test_too_few_prompts_are_refused() -> None:
    small = PromptSet.model_validate(
        {"templates": ["a {tempo} song"], "concepts": {"tempo": {"slow": "slow", "fast": "fast"}}}
    )
    with pytest.raises(UserError, match="needs at least 3 prompts with fast"):
        held_out(small, "tempo", "fast", ["slow"], 2, 1, 1, 0)
