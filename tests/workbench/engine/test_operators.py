"""Operators alone: closed forms on plain values."""

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.engine.edits import Edit, add, add_difference, blend, clamp, low_rank, random_patch, steer_back
from workbench.engine.operators import OPERATORS, Operands, Region
from workbench.engine.sites import Site

SITE = Site.parse("tf1.mlp")
VALUE = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
SOURCES = torch.stack([VALUE**2, VALUE.flip(0)])
VECTOR = (3.0, 0.0, 4.0, 0.0)


def applied(edit: Edit, value: torch.Tensor = VALUE) -> torch.Tensor:
    """A row's whole value under one edit."""
    region = Region(edit.window.tokens, edit.window.heads, None, head_dim=2)
    edited = value.clone()
    operands = Operands(region.read(value), SOURCES[: len(edit.sources)], region, SITE, 0)
    region.write(edited, OPERATORS[edit.operator].function(operands, edit.parameters))
    return edited


def test_an_added_vector_is_multiplied_by_its_strength() -> None:
    assert_close(applied(add(VECTOR, str(SITE), -2.0)), VALUE - 2 * torch.tensor(VECTOR, dtype=torch.float64))


def test_an_added_vector_keeps_norms_if_asked() -> None:
    vector = torch.tensor(VECTOR, dtype=torch.float64)
    kept = applied(add(VECTOR, str(SITE), 1.5, keep_norm=True))
    moved = VALUE + 1.5 * vector
    expected = [token * before.norm() / token.norm() for token, before in zip(moved, VALUE, strict=True)]
    assert_close(kept, torch.stack(expected))
    assert_close(kept.norm(dim=-1), VALUE.norm(dim=-1))


def test_a_token_that_is_zero_stays_zero_if_norms_are_kept() -> None:
    value = VALUE.clone()
    value[1] = 0
    assert not applied(add(VECTOR, str(SITE), keep_norm=True), value)[1].any()


def test_a_vector_by_token_is_added_token_by_token() -> None:
    rows = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    assert_close(applied(add(rows, str(SITE), 2.0)), VALUE + 2 * rows)
    two = applied(add(rows[1:], str(SITE), tokens=(1, 2)))
    assert_close(two, torch.cat([VALUE[:1], VALUE[1:] + rows[1:]]))


def test_a_cycle_counts_from_the_start_of_the_clip() -> None:
    rows = torch.tensor([VECTOR, (0.0, 1.0, 0.0, 1.0)], dtype=torch.float64)
    whole = VALUE + rows[[0, 1, 0]]
    assert_close(applied(add(rows, str(SITE), cycle=True)), whole)
    late = applied(add(rows, str(SITE), cycle=True, tokens=(1, 2)))
    assert_close(late, torch.cat([VALUE[:1], whole[1:]]))


def test_a_difference_of_sources_is_added_by_token_or_as_its_mean() -> None:
    difference = SOURCES[0] - SOURCES[1]
    assert_close(applied(add_difference(str(SITE), "one", "two", 2.0)), VALUE + 2 * difference)
    constant = applied(add_difference(str(SITE), "one", "two", 2.0, constant=True))
    assert_close(constant, VALUE + 2 * difference.mean(dim=0))
    late = applied(add_difference(str(SITE), "one", "two", constant=True, tokens=(1, 2)))
    assert_close(late, torch.cat([VALUE[:1], VALUE[1:] + difference[1:].mean(dim=0)]))


@pytest.mark.parametrize("amount", [1.0, 0.25])
def test_steering_back_moves_only_the_tokens_on_the_side_of_the_vector(amount: float) -> None:
    value = torch.cat([VALUE, -VALUE])
    unit = torch.tensor(VECTOR, dtype=torch.float64) / 5
    before, after = value @ unit, applied(steer_back(VECTOR, str(SITE), amount), value) @ unit
    assert (before > 0).any() and (before < 0).any()
    assert_close(after, torch.where(before > 0, (1 - amount) * before, before))


@pytest.mark.parametrize("projection", [0.0, 2.5, -1.0])
def test_clamped_values_have_the_projection_and_keep_the_rest(projection: float) -> None:
    clamped = applied(clamp(VECTOR, str(SITE), projection))
    unit = torch.tensor(VECTOR, dtype=torch.float64) / 5
    assert_close(clamped @ unit, torch.full((3,), projection, dtype=torch.float64))
    across = torch.eye(4, dtype=torch.float64) - torch.outer(unit, unit)
    assert_close(clamped @ across, VALUE @ across)


@pytest.mark.parametrize("factor", [1e20, 1e-22])
def test_a_clamp_is_along_the_vector_however_long_it_is(factor: float) -> None:
    """Squares of its numbers would overflow or vanish in float32."""
    value, vector = torch.linspace(-1, 2, 192).reshape(3, 64), torch.linspace(1, 2, 64)
    scaled, plain = (applied(clamp(each, str(SITE), 2.5), value) for each in (vector * factor, vector))
    assert_close(scaled, plain)


def test_a_clamp_keeps_to_its_tokens() -> None:
    clamped = applied(clamp(VECTOR, str(SITE), tokens=(1, 1)))
    assert torch.equal(clamped[[0, 2]], VALUE[[0, 2]])
    assert float((clamped[1] - VALUE[1]).abs().max()) > 0.1


def test_clamping_twice_is_clamping_once() -> None:
    edit = clamp(VECTOR, str(SITE), 0.7)
    once = applied(edit)
    assert_close(applied(edit, once), once)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (2.0, -0.5)])
def test_a_blend_is_the_weighted_sum_of_its_sources(weights: tuple[float, float]) -> None:
    blended = applied(blend("tf1.cross_attn", ["one", "two"], weights))
    assert_close(blended, weights[0] * SOURCES[0] + weights[1] * SOURCES[1])


def test_a_random_patch_is_as_far_as_the_source() -> None:
    edit = random_patch(str(SITE), "one", 3, target="output")
    assert_close((applied(edit) - VALUE).norm(dim=-1), (SOURCES[0] - VALUE).norm(dim=-1))
    assert torch.equal(applied(edit), applied(edit))


def test_rows_with_the_same_factors_and_others_get_their_own_changes() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = (
        [torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((rank, 4), (5, rank))]
        for rank in (2, 3)
    )
    edits = [
        low_rank(*factors, "tf1.cross_attn.q", strength)
        for factors, strength in ((one, 2.0), (other, 1.0), (one, -0.5))
    ]
    inputs = torch.stack([VALUE, VALUE**2, VALUE - 1])
    changes = OPERATORS["low_rank"].function(inputs, [edit.parameters for edit in edits])
    expected = [
        strength * row @ (up @ down).T
        for row, (down, up), strength in zip(inputs, (one, other, one), (2.0, 1.0, -0.5), strict=True)
    ]
    assert_close(changes, torch.stack(expected))


@pytest.mark.parametrize("make", [add, clamp, steer_back])
def test_a_vector_of_another_width_is_refused(make) -> None:
    with pytest.raises(UserError, match=r"must have 4 numbers, the channels of tf1\.mlp; it has 2"):
        make((1.0, 0.0), str(SITE)).parameters.check_size(SITE, 3, 4)


@pytest.mark.parametrize(
    ("site", "shape", "options", "message"),
    [
        ("tf1.mlp", (3, 2), {}, "4 numbers for each token"),
        ("tf1.mlp", (2, 4), {}, "2 tokens, but 3 tokens"),
        ("tf1.cross_attn.k", (3, 4), {}, "no latent time"),
        ("tf1.cross_attn.k", (3, 4), {"cycle": True}, "no latent time"),
        ("tf1.mlp", (3, 1, 4), {}, "it has 12"),
    ],
)
def test_a_vector_by_token_that_does_not_fit_is_refused(
    site: str, shape: tuple[int, ...], options: dict[str, bool], message: str
) -> None:
    at = Site.parse(site)
    edit = add(torch.ones(shape), site, **options)
    with pytest.raises(UserError, match=message):
        edit.parameters.check_size(at, None if at.on_conditioning else 3, 4)


def test_a_cycle_of_another_length_is_accepted() -> None:
    add(torch.ones(2, 4), str(SITE), cycle=True).parameters.check_size(SITE, 3, 4)


@pytest.mark.parametrize("make", [clamp, steer_back])
def test_a_vector_of_zeros_has_no_direction(make) -> None:
    with pytest.raises(UserError, match="must not be zero"):
        make((0.0, 0.0), str(SITE))
