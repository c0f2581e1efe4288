"""Measure text on paper and fit it into the available space; lengths and sizes in points."""

from functools import lru_cache

import matplotlib
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from dashboards.names import shortened

LINE = 1.2  # height of a line of text, relative to its size
MIN_SIZE = 4.8  # smaller text is unreadable
LONGEST = 40  # characters in a name


def width_of(text: str, size: float) -> float:
    """Width of one line of text."""
    return _width(text, tuple(matplotlib.rcParams["font.family"])) * size


def fitting_size(text: str, room: float, most: float) -> float:
    """The largest size up to `most` at which text is no wider than `room`; 0 if it would be unreadable."""
    size = min(most, room / max(width_of(text, 1.0), 1e-9))
    return size if size >= MIN_SIZE else 0.0


def fitting_names(names: list[str], room: float, size: float) -> list[str]:
    """The names, all shortened to the same number of characters if one is wider than `room`."""
    for most in range(LONGEST, 2, -1):
        short = [shortened(name, most) for name in names]
        if all(width_of(name, size) <= room for name in short):
            return short
    return short


def every(size: float, pitch: float) -> int:
    """The n for which every n-th of names `pitch` apart can be shown."""
    return max(1, -int(-size * LINE // pitch))


def wrapped(text: str, room: float, size: float) -> list[str]:
    """Wrap text between words into lines no wider than `room`."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=8192)
def _width(text: str, family: tuple[str, ...]) -> float:
    """Width of text of size 1, measured at size 100."""
    font = FontProperties(family=list(family), size=100)
    return float(TextToPath().get_text_width_height_descent(text, font, False)[0]) / 100
