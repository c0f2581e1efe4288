"""Numbers are never "nan", and rounding never hides on which side of a threshold they lie."""

import math

import numpy as np
import pandas as pd
import pytest

from dashboards.numbers import compared_p, fixed, in_table, p_value, percent, significant, span
from dashboards.wording import interval

NAN = float("nan")


@pytest.mark.parametrize(
    "text",
    [fixed(NAN), fixed(np.float32(NAN), 3), significant(NAN), percent(NAN), p_value(NAN), span(NAN, 1.0)],
)
def test_what_is_not_known_is_said_in_a_word(text: str) -> None:
    assert "nan" not in text.lower()
    assert text in ("undefined", "–", "(no interval)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50"),
        (0.0, "0.00"),
        (-0.004, "−0.004"),
        (0.00032, "0.0003"),
        (-3e-9, "−3e−09"),
        (-0.0, "0.00"),
    ],
)
def test_a_number_shows_on_which_side_of_zero_it_lies(value: float, text: str) -> None:
    assert fixed(value, 2, apart_from=0.0) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (fixed(0.125), "0.13"),
        (fixed(-0.125), "−0.13"),
        (fixed(0.375), "0.38"),
        (fixed(0.285), "0.29"),
        (fixed(2.5, 0), "3"),
        (fixed(np.float32(0.0625), 3), "0.063"),
        (fixed(0.1249), "0.12"),
        (fixed(0.995), "1.00"),
        (fixed(1e300, 0)[:2], "10"),
        (fixed(math.inf), "inf"),
        (significant(0.00125, 2), "0.0013"),
        (significant(12.25), "12.3"),
        (significant(1225.0), "1.23e+03"),
        (significant(0.0), "0"),
        (significant(math.inf), "inf"),
        (percent(0.00125, 2), "0.13%"),
        (percent(0.5), "50.0%"),
        (percent(-0.0123), "−1.2%"),
        (percent(-0.0001), "0.0%"),
        (percent(math.inf), "undefined"),
        (p_value(0.125), "0.13"),
        (p_value(0.0625), "0.063"),
        (p_value(0.0485), "0.049"),
        (p_value(0.0505), "0.051"),
        (compared_p(0.125), "= 0.13"),
        (span(0.125, 0.375), "[0.13, 0.38]"),
    ],
)
def test_halves_are_rounded_up(text: str, shown: str) -> None:
    """As readers expect, and as browsers round the numbers of tables."""
    assert text == shown


def test_other_numbers_keep_their_digits() -> None:
    assert fixed(-0.004) == "0.00"
    assert fixed(0.98765, 3) == "0.988"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.05, "0.05"), (0.0504, "0.0504"), (0.04996, "0.05"), (0.0500001, "0.0500001"), (1e-4, "0.0001")],
)
def test_a_p_value_shows_whether_it_is_significant(p: float, text: str) -> None:
    assert (p_value(p), compared_p(p)) == (text, f"= {text}")


def test_a_p_value_far_out_is_a_bound() -> None:
    assert (p_value(6e-39), compared_p(6e-39)) == ("<0.0001", "< 0.0001")


def row(value: float, low: float, high: float) -> pd.Series:
    names = ("denominator", "denominator_lo", "denominator_hi")
    return pd.Series(dict(zip(names, (value, low, high), strict=True)))


@pytest.mark.parametrize(
    ("low", "text"),
    [
        (-0.0031, "0.50 [−0.003, 1.00]"),  # undefined: its interval reaches below zero
        (0.0031, "0.50 [0.003, 1.00]"),  # defined
        (0.0, "0.50 [0.00, 1.00]"),
        (NAN, "0.50 (no interval)"),  # of one pair
    ],
)
def test_a_denominator_shows_why_it_is_undefined(low: float, text: str) -> None:
    assert interval(row(0.5, low, 1.0), "denominator") == text


def test_small_scores_are_no_zeros() -> None:
    assert interval(row(0.0002, 0.0001, 0.0003), "denominator") == "0.0002 [0.0001, 0.0003]"


def test_a_share_of_nothing_is_undefined() -> None:
    assert percent(0.391) == "39.1%"
    assert percent(math.nan) == "undefined"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2176.0, "2176"),
        (np.float32(123456), "123456"),
        (-3.0, "−3"),
        (0.123456, "0.1235"),
        (1234.56, "1235"),
        (1e300, "1e+300"),
        (math.nan, "–"),
        (None, "–"),
        (7, "7"),
        ("1.50 [1.00, 2.00]", "1.50 [1.00, 2.00]"),
    ],
)
def test_cells_of_tables_have_whole_counts(value: object, text: str) -> None:
    assert in_table(value) == text
