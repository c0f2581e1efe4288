"""Operators alone: closed forms on plain values."""

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.engine.edits import ClampSpec, Spec, SteerSpec, spec_from_json
from workbench.engine.operators import OPERATORS, Operands, Region, new_value
from workbench.engine.sites import Site

SITE = Site.parse("tf1.mlp")
VALUE = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
DIRECTION = (3.0, 0.0, 4.0, 0.0)


def applied(spec: Spec) -> torch.Tensor:
    """A row's whole value under one edit without sources."""
    region = Region(spec, None, head_dim=2)
    edited = VALUE.clone()
    region.write(edited, new_value(spec, Operands(region.read(VALUE), VALUE[None][:0], region, SITE)))
    return edited


@pytest.mark.parametrize("projection", [0.0, 2.5, -1.0])
def test_clamped_values_have_the_projection_and_keep_the_rest(projection: float) -> None:
    clamped = applied(ClampSpec(sites=(str(SITE),), direction=DIRECTION, projection=projection))
    unit = torch.tensor(DIRECTION, dtype=torch.float64) / 5
    assert_close(clamped @ unit, torch.full((3,), projection, dtype=torch.float64))
    across = torch.eye(4, dtype=torch.float64) - torch.outer(unit, unit)
    assert_close(clamped @ across, VALUE @ across)


def test_a_clamp_keeps_to_its_tokens() -> None:
    clamped = applied(ClampSpec(sites=(str(SITE),), direction=DIRECTION, tokens=(1, 1)))
    assert torch.equal(clamped[[0, 2]], VALUE[[0, 2]])
    assert float((clamped[1] - VALUE[1]).abs().max()) > 0.1


def test_clamping_twice_is_clamping_once() -> None:
    spec = ClampSpec(sites=(str(SITE),), direction=DIRECTION, projection=0.7)
    region = Region(spec, None, head_dim=2)
    once = applied(spec)
    assert_close(new_value(spec, Operands(once, VALUE[None][:0], region, SITE)), once)


@pytest.mark.parametrize("kind", [SteerSpec, ClampSpec])
def test_a_direction_of_another_width_is_refused(kind: type[SteerSpec] | type[ClampSpec]) -> None:
    with pytest.raises(UserError, match=r"has 2 numbers but tf1\.mlp has 4 channels"):
        applied(kind(sites=(str(SITE),), direction=(1.0, 0.0)))


def test_a_direction_of_zeros_cannot_be_clamped_along() -> None:
    with pytest.raises(UserError, match="not 0"):
        ClampSpec(sites=(str(SITE),), direction=(0.0, 0.0))


def test_clamps_come_back_from_json() -> None:
    spec = ClampSpec(sites=(str(SITE),), direction=DIRECTION, projection=0.5, steps=(1, 2))
    assert spec_from_json(spec.to_json()) == spec


def test_every_kind_of_edit_has_an_operator() -> None:
    assert set(OPERATORS) == set(Spec.__subclasses__())
