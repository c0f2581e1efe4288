"""What guidance must do whatever the numbers: closed forms, and rows that do not see each other."""

import math
from collections.abc import Callable

import pytest
import torch

from tests.tolerances import FLOAT64, assert_close
from workbench.models.ace_step_v1.guidance import Momentum, apg, cfg, cfg_star, double_guidance

SHAPE = 3, 2, 4, 5


def draw(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


COND, TEXT, NULL = draw(0), draw(1), draw(2)


def test_apg_without_its_additions_is_cfg() -> None:
    found = apg(COND, NULL, 4.0, Momentum(0.0), eta=1.0, norm_threshold=math.inf)
    assert_close(found, cfg(COND, NULL, 4.0))


def test_apg_adds_nothing_along_the_conditional_velocity() -> None:
    added = apg(COND, NULL, 4.0, Momentum()) - COND
    assert (added * COND).sum((-2, -1)).abs().max() < FLOAT64
    assert added.abs().max() > 0.1


def test_apg_projects_more_finely_than_float32() -> None:
    """All of the difference lies along the conditional velocity: to float32, nothing is left of it."""
    cond = draw(0, torch.float32)
    assert_close(apg(cond, cond / 2, 15.0, Momentum(), norm_threshold=math.inf), cond)


def test_apg_shortens_each_channel_to_the_threshold() -> None:
    added = apg(COND, NULL, 3.0, Momentum(), eta=1.0, norm_threshold=0.5) - COND
    norms = torch.linalg.vector_norm(added, dim=(-2, -1))
    assert (norms - 2 * 0.5).abs().max() < FLOAT64


def test_momentum_takes_back_part_of_the_steps_before() -> None:
    momentum = Momentum()
    for difference in (COND, TEXT):
        momentum.update(difference)
    expected = NULL - 0.75 * TEXT + 0.75**2 * COND
    assert_close(momentum.update(NULL), expected)


def test_apg_of_equal_passes_is_that_velocity() -> None:
    for velocity in (COND, torch.zeros_like(COND)):
        assert torch.equal(apg(velocity, velocity, 15.0, Momentum()), velocity)


def test_cfg_star_stands_still_at_first_then_fits_the_null_velocity() -> None:
    assert not cfg_star(COND, NULL, 3.0, 1).any()
    assert not cfg_star(COND, NULL, 3.0, 4, zero_steps=4).any()
    fits = [(COND[row] * NULL[row]).sum() / NULL[row].square().sum() for row in range(len(COND))]
    expected = torch.stack(
        [fit * null + 3 * (cond - fit * null) for fit, cond, null in zip(fits, COND, NULL, strict=True)]
    )
    # The divisor has 1e-8 added, of some 40.
    assert (cfg_star(COND, NULL, 3.0, 2) - expected).abs().max() < 1e-8


def test_cfg_star_bears_a_null_velocity_of_zero() -> None:
    assert torch.equal(cfg_star(COND, torch.zeros_like(COND), 3.0, 2), 3 * COND)


def test_double_guidance_with_equal_scales_is_cfg() -> None:
    found = double_guidance(COND, TEXT, NULL, 4.0, 4.0)
    assert_close(found, cfg(COND, NULL, 4.0))


def test_double_guidance_goes_its_two_ways() -> None:
    found = double_guidance(COND, TEXT, NULL, 5.0, 1.5)
    expected = NULL + 5 * (TEXT - NULL) + 1.5 * (COND - TEXT)
    assert_close(found, expected)


WAYS: dict[str, Callable[..., torch.Tensor]] = {
    "apg": lambda cond, text, null, momentum: apg(cond, null, 15.0, momentum),
    "cfg": lambda cond, text, null, momentum: cfg(cond, null, 7.0),
    "cfg_star": lambda cond, text, null, momentum: cfg_star(cond, null, 7.0, 2),
    "double": lambda cond, text, null, momentum: double_guidance(cond, text, null, 5.0, 1.5),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_batch_is_the_row_alone(way: str, dtype: torch.dtype) -> None:
    together, alone = Momentum(), [Momentum() for _ in range(SHAPE[0])]
    for step in range(3):
        given = [draw(10 * step + number).to(dtype) for number in range(3)]
        found = WAYS[way](*given, together)
        assert found.dtype == dtype
        for row, momentum in enumerate(alone):
            single = WAYS[way](*(values[row : row + 1] for values in given), momentum)
            assert_close(found[row : row + 1], single)
