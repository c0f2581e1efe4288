"""Which steps and tokens "8 stratified" and "mean 4" are."""

import numpy as np
import pytest

from cache.errors import UserError
from cache.plan import TokenReduction
from workbench.studies.selection import (
    parse_options,
    parse_passes,
    parse_steps,
    parse_tokens,
    stratified_steps,
)

# 60 steps bent towards noise by a shift of 3, as ACE-Step has them.
EVEN = np.linspace(1, 0, 60, endpoint=False)
SIGMAS = (3 * EVEN / (1 + 2 * EVEN)).tolist()


@pytest.mark.parametrize(
    ("text", "steps"),
    [("all", (0, 1, 2, 3)), ("0,3", (0, 3)), ("3, 0", (0, 3)), ("4 stratified", (0, 1, 2, 3))],
)
def test_steps(text: str, steps: tuple[int, ...]) -> None:
    assert parse_steps(text, (1.0, 0.9, 0.5, 0.1)) == steps


def test_stratified_steps_lie_in_the_middle_of_equal_strata_of_sigma() -> None:
    steps = stratified_steps(SIGMAS, 8)
    edges = np.linspace(max(SIGMAS), min(SIGMAS), 9)
    for step, high, low in zip(steps, edges[:-1], edges[1:], strict=True):
        nearest = min(SIGMAS, key=lambda sigma, middle=(high + low) / 2: abs(sigma - middle))
        assert SIGMAS[step] == nearest
    assert steps == tuple(sorted(steps))


def test_strata_without_a_step_take_the_nearest_that_is_free() -> None:
    assert stratified_steps([1.0, 0.99, 0.98, 0.0], 3) == (1, 2, 3)


@pytest.mark.parametrize("n", range(1, 61))
def test_any_number_of_steps_is_given_each_once(n: int) -> None:
    assert len(set(stratified_steps(SIGMAS, n))) == n


@pytest.mark.parametrize("text", ["some", "stratified", "0 stratified", "61 stratified", "1;2", "", "3,0,3"])
def test_what_are_no_steps(text: str) -> None:
    with pytest.raises(UserError, match=r"(?i)steps"):
        parse_steps(text, SIGMAS)


@pytest.mark.parametrize(
    ("text", "reduction", "stored"),
    [
        ("all", TokenReduction(), 10),
        ("every 4", TokenReduction(kind="stride", size=4), 3),
        ("mean 4", TokenReduction(kind="mean", size=4), 3),
        ("mean", TokenReduction(kind="mean", size=10), 1),
    ],
)
def test_tokens(text: str, reduction: TokenReduction, stored: int) -> None:
    assert parse_tokens(text, 10) == reduction
    assert reduction.stored_tokens(10) == stored


@pytest.mark.parametrize("text", ["", "every", "4", "median 3", "mean x"])
def test_what_are_no_tokens(text: str) -> None:
    with pytest.raises(UserError, match="Tokens must be"):
        parse_tokens(text, 10)


@pytest.mark.parametrize("text", ["every 0", "every 11", "mean 11", "every 999999999999999999999999"])
def test_more_tokens_than_a_clip_has(text: str) -> None:
    with pytest.raises(UserError, match=f"The number in '{text}' must be from 1 to 10"):
        parse_tokens(text, 10)


def test_passes() -> None:
    assert parse_passes("cond") == ("cond",)
    assert parse_passes("cond, text,null") == ("cond", "text", "null")


@pytest.mark.parametrize("text", ["", "both", "cond,cond", "cond,uncond"])
def test_bad_passes(text: str) -> None:
    with pytest.raises(UserError, match="Passes must be"):
        parse_passes(text)


def test_options_have_the_types_that_they_look_like() -> None:
    texts = ["erg_tag=false", "omega=7", "guidance_interval=0.5", "cfg_type=apg"]
    options = parse_options(texts)
    assert options == {"erg_tag": False, "omega": 7, "guidance_interval": 0.5, "cfg_type": "apg"}
    assert [type(value) for value in options.values()] == [bool, int, float, str]


@pytest.mark.parametrize("texts", [["omega"], ["=7"], ["omega="], ["a b=1"], ["omega=7", "omega=8"]])
def test_bad_options(texts: list[str]) -> None:
    with pytest.raises(UserError, match="name=value"):
        parse_options(texts)
