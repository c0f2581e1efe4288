"""Pages of a long table: filters, search and order are applied on the server, and only the rows in view are sent."""

import math
import re
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

MOST_ROWS = 500
"""Rows of one page."""
LONGEST = 200
"""Characters of a filter or a search."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COMPARED = re.compile(rf"(<=|>=|<|>|=|≤|≥)?\s*({_NUMBER})(\s*%)?")
_RANGE = re.compile(rf"({_NUMBER})(\s*%)?\s*(?:\.\.|to|–)\s*({_NUMBER})(\s*%)?")
RANGE_HELP = "a number (or what rounds to it), a bound such as >0.9 or <=5%, or a range such as 0.2..0.4"

ColumnName = Annotated[str, Field(max_length=100)]


class _Filter(BaseModel):
    """The filter of a column: what its cells must contain, or where its numbers must lie."""

    model_config = ConfigDict(extra="forbid")

    filterType: Literal["text"] = "text"
    type: Literal["contains"] = "contains"
    filter: Annotated[str, Field(max_length=LONGEST)]


class _Sort(BaseModel):
    colId: ColumnName
    sort: Literal["asc", "desc"]


class RowsRequest(BaseModel):
    """What a grid asks for: the rows from `startRow` to before `endRow`, in its order, through its filters."""

    startRow: Annotated[int, Field(strict=True, ge=0)]
    endRow: Annotated[int, Field(strict=True, ge=0)]
    sortModel: Annotated[list[_Sort], Field(max_length=20)] = []
    filterModel: Annotated[dict[ColumnName, _Filter], Field(max_length=50)] = {}

    @property
    def order(self) -> tuple[tuple[str, bool], ...]:
        """The columns to sort by, and whether ascending."""
        return tuple((one.colId, one.sort == "asc") for one in self.sortModel)

    @property
    def filters(self) -> tuple[tuple[str, str], ...]:
        """The columns to filter by, and what with."""
        return tuple((name, one.filter) for name, one in self.filterModel.items())


def filtered(
    frame: pd.DataFrame, filters: tuple[tuple[str, str], ...], words: str
) -> tuple[np.ndarray, list[str]]:
    """Whether each row passes the filters of its columns and has all words in the text column `text`.

    A text column must contain the filter's text, in any case. The filter of a numeric column is `RANGE_HELP`; one that
    cannot be read has no effect, and a sentence about it is returned. So has the filter of a column that there is not.
    """
    passes, sentences = np.ones(len(frame), dtype=bool), []
    for name, text in filters:
        if name not in frame or not text.strip():
            continue
        if pd.api.types.is_numeric_dtype(frame[name]):
            limits = number_range(text)
            if limits is None:
                sentences.append(f"“{text}” filters nothing: write {RANGE_HELP}.")
            else:
                passes &= _lies_in(frame[name].to_numpy(), *limits)
        else:
            passes &= _contains(frame[name].str.casefold(), text.strip())
    for word in words.split()[:20]:
        passes &= _contains(frame["text"], word)
    return passes, sentences


def _contains(column: pd.Series, text: str) -> np.ndarray:
    return column.str.contains(text.casefold(), regex=False).to_numpy(dtype=bool)


def number_range(text: str) -> tuple[float, float, bool] | None:
    """The numbers that a text stands for (see `RANGE_HELP`): from, to, and whether both count; None if none."""
    if found := _RANGE.fullmatch(text.strip()):
        low, low_percent, high, high_percent = found.groups()
        ends = sorted((_number(low, low_percent or high_percent), _number(high, high_percent)))
        return ends[0], ends[1], True
    if not (found := _COMPARED.fullmatch(text.strip())):
        return None
    sign, digits, is_percent = found.groups()
    number = _number(digits, is_percent)
    if sign in ("<", "<=", "≤"):
        return -math.inf, number, sign != "<"
    if sign in (">", ">=", "≥"):
        return number, math.inf, sign != ">"
    half = _number(_half_of_last_digit(digits), is_percent)
    return number - half, number + half, True


def _half_of_last_digit(digits: str) -> str:
    """Half of what the last digit of a written number counts: numbers in a table are rounded."""
    mantissa, _, exponent = digits.lower().partition("e")
    return f"5e{int(exponent or 0) - len(mantissa.partition('.')[2]) - 1}"


def _number(digits: str, is_percent: str | None) -> float:
    return float(digits) / (100 if is_percent else 1)


def _lies_in(values: np.ndarray, low: float, high: float, is_closed: bool) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        within = (values >= low) & (values <= high) if is_closed else (values > low) & (values < high)
    return np.asarray(within)


def ordered(frame: pd.DataFrame, order: tuple[tuple[str, bool], ...]) -> np.ndarray:
    """Positions of the rows, sorted by columns (and whether ascending); rows without a value come last."""
    known = [(name, ascending) for name, ascending in order if name in frame]
    places = np.arange(len(frame))
    for name, ascending in reversed(known):  # stable: the last sort is by the first column
        column = frame[name].reset_index(drop=True).iloc[places]
        if not pd.api.types.is_numeric_dtype(column):
            column = column.where(column != "")
        places = column.sort_values(ascending=ascending, kind="stable", na_position="last").index.to_numpy()
    return places


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for a grid; None for what has no value."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
