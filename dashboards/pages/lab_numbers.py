"""Numbers in the lab's fields, which are fields of text: those for numbers drop letters, so that 1e30 became 130."""

import re
from decimal import Decimal
from typing import Any

import dash_mantine_components as dmc
from dash.development.base_component import Component

from cache.errors import UserError

LONGEST = 40
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 20  # those of the largest seed


def number_field(id: Any, label: str, value: int | float | None, placeholder: str = "") -> Component:
    """A field for a number; empty for None."""
    return dmc.TextInput(
        id=id,
        label=label,
        value=written(value),
        placeholder=placeholder,
        size="xs",
        attributes={"input": {"inputMode": "decimal"}},  # the keyboard of phones
    )


def written(value: int | float | None) -> str:
    """A number as a field has it; "" for None."""
    return "" if value is None else str(value).removesuffix(".0")


def read_number(name: str, given: Any) -> float:
    """The number in the field `name`, such as 2.5 or 1e3; raise UserError if it is none."""
    return float(_decimal(name, given))


def read_whole_number(name: str, given: Any) -> int:
    """The whole number in the field `name`, such as 7 or 1e3; raise UserError if it is none."""
    value = _decimal(name, given)
    if abs(value.adjusted()) >= _MOST_DIGITS or value != value.to_integral_value():
        raise UserError(f"The {name} must be a whole number of at most {_MOST_DIGITS} digits, not '{given}'.")
    return int(value)


def _decimal(name: str, given: Any) -> Decimal:
    text = str(given).strip().replace("−", "-")
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        raise UserError(f"The {name} must be a number, not '{str(given)[:LONGEST]}'.")
    return Decimal(text)
