"""The checks of types that run with the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import beartype
import jaxtyping
import numpy as np
import pytest

from tests.type_checks import CHECKED_CALLS, checked, next_test

if TYPE_CHECKING:
    from decimal import Decimal


def checks(function: Any) -> Any:
    return checked(function, typechecker=beartype.beartype)


@checks
def in_quotes(value: "Later", name: Literal["a", "b"] = "a") -> "list[Later]":
    return [value] if name == "a" else ["not one"]


@checks
def of_sizes(one: "jaxtyping.Float[np.ndarray, ' n']", other: jaxtyping.Float[np.ndarray, " n"]) -> None: ...


@checks
def resized(one: jaxtyping.Float[np.ndarray, " n"], size: int) -> jaxtyping.Float[np.ndarray, " n"]:
    of_sizes(np.zeros(size + 1), np.zeros(size + 1))  # whose n is another
    return np.zeros(size)


@checks
def unknown(value: "Decimal", number: int) -> None: ...


@checks
@dataclass
class Later:
    number: int
    other: "Later | None" = None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (lambda: in_quotes(Later(1)), lambda: in_quotes("later")),
        (lambda: in_quotes(Later(1)), lambda: in_quotes(Later(1), "c")),
        (lambda: in_quotes(Later(1)), lambda: in_quotes(Later(1), "b")),
        (lambda: Later(1, Later(2)), lambda: Later(1, 2)),
        (lambda: of_sizes(np.zeros(2), np.zeros(2)), lambda: of_sizes(np.zeros(2), np.zeros(3))),
        (lambda: resized(np.zeros(2), 2), lambda: resized(np.zeros(2), 3)),
        (lambda: unknown("anything", 1), lambda: unknown("anything", "1")),
    ],
    ids=[
        "argument",
        "literal",
        "result",
        "dataclass",
        "sizes",
        "size of a result",
        "imported for type checkers",
    ],
)
def test_types_in_quotes_are_checked(right: Callable[[], Any], wrong: Callable[[], Any]) -> None:
    for _ in range(2):  # they are resolved in the first call
        right()
        with pytest.raises(TypeError):
            wrong()


def test_arrays_are_checked_in_the_first_calls_of_each_test() -> None:
    for _ in range(CHECKED_CALLS):
        of_sizes(np.zeros(2), np.zeros(2))
    of_sizes(np.zeros(2), np.zeros(3))
    next_test()
    with pytest.raises(TypeError):
        of_sizes(np.zeros(2), np.zeros(3))
