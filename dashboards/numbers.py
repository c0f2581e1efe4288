"""Numbers as people read them: what is not known is said in a word, and rounding never hides a verdict."""

import math

import numpy as np

from analyses.statistics import ALPHA

UNDEFINED = "undefined"
MOST_DIGITS = 6
LEAST_P = 1e-4
"""A p-value below it is given as a bound: so far out, the tail of its null distribution is an extrapolation."""


def fixed(value: float | int | np.number, digits: int = 2, apart_from: float | None = None) -> str:
    """A number with so many decimals, or more where fewer would not show on which side of `apart_from` it lies."""
    if math.isnan(value):
        return UNDEFINED
    texts = [f"{value:z.{decimals}f}" for decimals in range(digits, MOST_DIGITS + 1)]
    if apart_from is None:
        return _minus(texts[0])
    telling = (text for text in texts if _side(float(text), apart_from) == _side(value, apart_from))
    return _minus(next(telling, f"{value:.2g}"))


def significant(value: float | int | np.number, digits: int = 3) -> str:
    """A number with so many significant digits."""
    return UNDEFINED if math.isnan(value) else _minus(f"{value:.{digits}g}")


def percent(fraction: float | np.number, decimals: int = 1) -> str:
    """Return a fraction in percent."""
    return UNDEFINED if math.isnan(fraction) else f"{fraction:.{decimals}%}"


def span(
    low: float | np.number, high: float | np.number, digits: int = 2, apart_from: float | None = None
) -> str:
    """An interval; "no interval" where an end is missing."""
    if math.isnan(low) or math.isnan(high):
        return "(no interval)"
    return f"[{fixed(low, digits, apart_from)}, {fixed(high, digits, apart_from)}]"


def p_value(p: float | np.number) -> str:
    """A p-value, with as many digits as show whether it is significant; a dash where nothing was tested."""
    if math.isnan(p):
        return "–"
    if p < LEAST_P:
        return f"<{LEAST_P:g}"
    texts = [f"{p:.{digits}g}" for digits in range(2, MOST_DIGITS + 1)]
    return next((text for text in texts if (float(text) <= ALPHA) == (p <= ALPHA)), repr(p))


def compared_p(p: float | np.number) -> str:
    """A p-value as it follows the letter in a sentence: "= 0.03" or "< 0.0001"."""
    text = p_value(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _side(value: float | int | np.number, threshold: float) -> int:
    return int(value > threshold) - int(value < threshold)


def _minus(text: str) -> str:
    return text.replace("-", "−")
