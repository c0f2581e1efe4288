"""Choose column layouts and font sizes so that LaTeX tables fit the page; lengths are in TeX points."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font, LoadFlags

TEXT_WIDTH = 345.0  # of the class article at 10 pt, the narrowest of LaTeX's own
_EM = 10.0  # width of a character that Computer Modern lacks, such as a Chinese one
_STEPS = 30  # of bisection; a table's widths are then exact to a millionth


@dataclass(frozen=True)
class Size:
    """A font size: LaTeX's command, the width of its letters relative to 10 pt, and the space beside each column."""

    command: str
    scale: float
    separation: float


# Smaller Computer Modern letters are wider for their height.
NORMAL = Size("", 1.0, 6.0)
SMALL = Size("\\small", 0.93, 4.0)
FOOTNOTE = Size("\\footnotesize", 0.86, 3.0)
SCRIPT = Size("\\scriptsize", 0.8, 2.0)
Columns = Sequence[tuple[Sequence[str], bool]]
"""Cells of each column, header first, and whether they are numbers, which are not broken across lines."""


@dataclass(frozen=True)
class Layout:
    """A font size in which the columns fit, and each column's LaTeX type: l, r, or p with a width for wrapped text."""

    size: Size
    columns: tuple[str, ...]


def fitting(columns: Columns) -> Layout | None:
    """Return the layout with the largest font that fits the text width, wrapping text if necessary, or None."""
    whole = [max(map(width, cells)) for cells, _ in columns]
    words = [
        natural if is_number else max(width(word) for cell in cells for word in (cell.split(" ") or [""]))
        for natural, (cells, is_number) in zip(whole, columns, strict=True)
    ]
    plain = tuple("r" if is_number else "l" for _, is_number in columns)
    for size in (NORMAL, SMALL, FOOTNOTE):
        if size.scale * sum(whole) <= _room(size, len(plain)):
            return Layout(size, plain)
    for size in (FOOTNOTE, SCRIPT):
        room = _room(size, len(plain)) / size.scale
        if sum(words) <= room:
            return Layout(size, tuple(_wrapped(plain, whole, words, room, size)))
    return None


def groups(key: Columns, others: Columns) -> list[list[int]]:
    """Split the other columns into groups that fit beside the key column, as many columns per group as possible.

    A group has at least one column, even if it does not fit.
    """
    most = 1
    while most < len(others) and all(
        fitting([*key, *others[first : first + most + 1]]) for first in range(0, len(others), most + 1)
    ):
        most += 1
    count = -(-len(others) // most)
    even = -(-len(others) // count)
    return [list(range(first, min(first + even, len(others)))) for first in range(0, len(others), even)]


def width(text: str) -> float:
    """Return the width of one line of text in Computer Modern at 10 pt."""
    return sum(map(_advance, text), 0.0)


@lru_cache(maxsize=4096)
def _advance(letter: str) -> float:
    font = _font()
    if not font.get_char_index(ord(letter)):
        return _EM
    return float(font.load_char(ord(letter), LoadFlags.NO_HINTING).linearHoriAdvance) / 65536


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    font = FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "cmr10.ttf")))
    font.set_size(10, 72)
    return font


def _room(size: Size, columns: int) -> float:
    return TEXT_WIDTH - 2 * size.separation * columns


def _wrapped(
    plain: Sequence[str], whole: Sequence[float], words: Sequence[float], room: float, size: Size
) -> list[str]:
    """Give columns the width they need, up to a common limit with which they fill the available width."""
    low, high = 0.0, room
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = (
            sum(_between(word, middle, natural) for word, natural in zip(words, whole, strict=True)) <= room
        )
        low, high = (middle, high) if fits else (low, middle)
    widths = [_between(word, low, natural) for word, natural in zip(words, whole, strict=True)]
    return [
        name if natural <= taken else f">{{\\raggedright\\arraybackslash}}p{{{taken * size.scale:.1f}pt}}"
        for name, natural, taken in zip(plain, whole, widths, strict=True)
    ]


def _between(least: float, wanted: float, most: float) -> float:
    return max(least, min(wanted, most))
