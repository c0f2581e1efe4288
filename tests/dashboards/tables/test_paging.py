"""Filters, search and order of paged tables."""

import math

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from dashboards.tables.paging import LONGEST, RowsRequest, filtered, number_range, ordered, records

FRAME = pd.DataFrame(
    {
        "feature": [0, 1, 2, 3],
        "name": pd.Series(["Violin (solo)", "drums", "", "violin*"], dtype="str"),
        "share": [0.02, np.nan, 0.5, 0.1],
        "text": pd.Series(["0 violin (solo)", "1 drums", "2 ", "3 violin*"], dtype="str"),
    }
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5", (4.5, 5.5, True)),
        ("=0.995", (0.9945, 0.9955, True)),
        ("5%", (0.045, 0.055, True)),
        ("2e-3", (0.0015, 0.0025, True)),
        ("1.20e2", (119.5, 120.5, True)),
        (" > 0.9", (0.9, math.inf, False)),
        ("≤5%", (-math.inf, 0.05, True)),
        ("0.2..0.4", (0.2, 0.4, True)),
        ("0.4..0.2", (0.2, 0.4, True)),
        ("1 to 2 %", (0.01, 0.02, True)),
        ("-1e-3 .. 2", (-0.001, 2, True)),
        ("about 5", None),
        (">", None),
    ],
)
def test_a_number_filter_is_a_number_a_bound_or_a_range(text: str, numbers: tuple[float, ...] | None) -> None:
    assert number_range(text) == (pytest.approx(numbers) if numbers else None)


@pytest.mark.parametrize(
    ("filters", "words", "found"),
    [
        ((), "", [0, 1, 2, 3]),
        ((("name", "VIOLIN"),), "", [0, 3]),
        ((("name", "violin*"),), "", [3]),  # no regular expression
        ((("share", ">=10%"),), "", [2, 3]),
        ((("share", "<1"), ("name", "v")), "", [0, 3]),
        ((("feature", "1"),), "", [1]),
        ((), "solo VIOLIN", [0]),
        ((), "nothing", []),
        ((("nonsense", "x"),), "", [0, 1, 2, 3]),
    ],
)
def test_rows_pass_all_filters_and_have_all_words(
    filters: tuple[tuple[str, str], ...], words: str, found: list[int]
) -> None:
    passes, sentences = filtered(FRAME, filters, words)
    assert np.flatnonzero(passes).tolist() == found
    assert sentences == []


def test_a_filter_that_cannot_be_read_says_so() -> None:
    passes, (sentence,) = filtered(FRAME, (("share", "big"),), "")
    assert passes.all()
    assert "“big”" in sentence


@pytest.mark.parametrize("ascending", [True, False])
def test_rows_without_a_value_come_last(ascending: bool) -> None:
    shares = [0, 3, 2] if ascending else [2, 3, 0]
    assert ordered(FRAME, (("share", ascending),)).tolist() == [*shares, 1]
    assert ordered(FRAME, (("name", ascending),)).tolist()[-1] == 2


def test_equal_rows_are_sorted_by_the_next_column() -> None:
    frame = pd.DataFrame({"kind": ["b", "a", "b", "a"], "number": [1, 2, 3, 4]})
    assert ordered(frame, (("kind", True), ("number", False))).tolist() == [3, 1, 2, 0]


def test_missing_numbers_are_sent_as_none() -> None:
    assert records(FRAME[["share"]].iloc[:2]) == [{"share": 0.02}, {"share": None}]


@pytest.mark.parametrize(
    "changed",
    [
        {"startRow": -1},
        {"endRow": "100"},
        {"sortModel": [{"colId": "share", "sort": "up"}]},
        {"filterModel": {"share": {"filterType": "number", "type": "equals", "filter": 1}}},
        {"filterModel": {"name": {"filterType": "text", "type": "contains", "filter": "x" * (LONGEST + 1)}}},
    ],
)
def test_other_requests_are_refused(changed: dict[str, object]) -> None:
    whole = {"startRow": 0, "endRow": 100, "sortModel": [], "filterModel": {}, "context": None}
    RowsRequest.model_validate(whole)
    with pytest.raises(ValidationError):
        RowsRequest.model_validate({**whole, **changed})
