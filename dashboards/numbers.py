"""Number formatting: missing values become words, and rounding never hides which side of a threshold a value is on.

Halves are rounded up, as in the browser: 0.125 is 0.13, where Python's own formatting gives the even 0.12.
"""

import math
from decimal import ROUND_HALF_UP, Context, Decimal

import numpy as np

from analyses.statistics import ALPHA, MIN_P

UNDEFINED = "undefined"
MAX_DIGITS = 6
EXACT = 2.0**53  # below it, floats are as exact as whole numbers


def fixed(value: float | int | np.number, digits: int = 2, apart_from: float | None = None) -> str:
    """Format a number with `digits` decimals, or more if needed to show which side of `apart_from` it is on."""
    if math.isnan(value):
        return UNDEFINED
    texts = (f"{_rounded(value, -decimals):z.{decimals}f}" for decimals in range(digits, MAX_DIGITS + 1))
    if apart_from is None:
        return _minus(next(texts))
    telling = (text for text in texts if _side(float(text), apart_from) == _side(value, apart_from))
    return _minus(next(telling, _shortened(value, 2)))


def significant(value: float | int | np.number, digits: int = 3) -> str:
    """Format a number with `digits` significant digits."""
    return UNDEFINED if math.isnan(value) else _minus(_shortened(value, digits))


def percent(fraction: float | np.number, decimals: int = 1) -> str:
    """Format a fraction as a percentage."""
    if not math.isfinite(fraction):
        return UNDEFINED
    return _minus(f"{100 * _rounded(fraction, -decimals - 2):z.{decimals}f}%")


def span(
    low: float | np.number, high: float | np.number, digits: int = 2, apart_from: float | None = None
) -> str:
    """Format an interval; "(no interval)" if an end is missing."""
    if math.isnan(low) or math.isnan(high):
        return "(no interval)"
    return f"[{fixed(low, digits, apart_from)}, {fixed(high, digits, apart_from)}]"


def p_value(p: float | np.number) -> str:
    """Format a p-value with enough digits to show whether it is significant; a dash if nothing was tested."""
    if math.isnan(p):
        return "–"
    if p < MIN_P:
        return f"<{MIN_P:g}"
    texts = (_shortened(p, digits) for digits in range(2, MAX_DIGITS + 1))
    return next((text for text in texts if (float(text) <= ALPHA) == (p <= ALPHA)), repr(p))


def compared_p(p: float | np.number) -> str:
    """Format a p-value to follow the letter p: "= 0.03" or "< 0.0001"."""
    text = p_value(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def in_table(value: object) -> str:
    """Format a value of any kind for the table of an exported figure: whole numbers with all digits, others with 4."""
    if value is None:
        return "–"
    if not isinstance(value, float | np.floating):
        return str(value)
    if math.isnan(value):
        return "–"
    is_whole = float(value).is_integer() and abs(float(value)) < EXACT
    return _minus(f"{value:.0f}") if is_whole else significant(value, 4)


_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)  # digits enough for any float


def _rounded(value: float | int | np.number, place: int) -> float:
    """Round a number, as it is written in decimals, to a multiple of 10 to the power `place`; halves away from zero."""
    if not math.isfinite(value):
        return float(value)
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(place), context=_EXACT))


def _shortened(value: float | int | np.number, digits: int) -> str:
    """Format a number with at most `digits` significant digits."""
    first = Decimal(repr(float(value))).adjusted() if math.isfinite(value) else 0
    return f"{_rounded(value, first - digits + 1):.{digits}g}"


def _side(value: float | int | np.number, threshold: float) -> int:
    return int(value > threshold) - int(value < threshold)


def _minus(text: str) -> str:
    return text.replace("-", "−")
