"""Ways of steering at equal distance: curves by hand."""

from dataclasses import replace

import numpy as np
import pytest

from analyses.evaluation.dose_curves import DoseCurve
from analyses.evaluation.equal_distance import REAL_PROMPT, common_distances, place_at, strength_at, value_at
from tests.tolerances import assert_close

STRENGTH = np.array([0.0, 1.0, 2.0, 4.0])


def curve(distance: list[float]) -> DoseCurve:
    """A curve of one replicate with twice its strengths as changes."""
    change = 2 * STRENGTH[None, :, None]
    far = np.array(distance, dtype=float)[None, :, None]
    return DoseCurve(STRENGTH, change, far, np.array([8]), np.array([8]), np.ones((1, 1)))


@pytest.mark.parametrize(
    ("distance", "wanted", "strength"),
    [
        ([0, 1, 2, 4], 1.0, 1.0),
        ([0, 1, 2, 4], 3.0, 3.0),
        ([0, 1, 2, 4], 4.0, 4.0),
        ([0, 1, 2, 4], 4.1, np.nan),  # never reached
        ([0, 3, 1, 4], 2.0, 2 / 3),  # first on the way up
        ([0, 0, 0, 4], 2.0, 3.0),
        ([0, 2, 2, 2], 2.0, 1.0),
        ([0, 1, np.nan, 4], 1.0, np.nan),
    ],
)
def test_the_strength_at_a_distance_and_the_change_there(
    distance: list[float], wanted: float, strength: float
) -> None:
    one = curve(distance)
    place = place_at(one.distance, np.array([[wanted]]))
    found = strength_at(STRENGTH, place), value_at(one.change, place)[:, :, 0]
    if np.isnan(strength):
        assert np.isnan(found).all()
    else:
        assert_close(found[0][0, 0], strength)
        assert_close(found[1][0, 0], 2 * strength)


def test_the_common_distance_is_the_largest_that_all_reach_and_not_beyond_the_real_prompts() -> None:
    curves = {
        ("near", "positive"): curve([0, 1, 2, 3]),
        ("far", "positive"): curve([0, 4, 6, 5]),
        ("far", "negative"): curve([0, 4, 6, 5]),
    }
    common = common_distances(curves, np.array([[4.0]]))
    found = {sign: (float(each.values[0, 0]), each.limited_by) for sign, each in common.items()}
    assert found == {"positive": (3, ["near"]), "negative": (4, [REAL_PROMPT])}
    # The first hardly moves the clips, beside real prompts' that are 20 away, and the others do not beside 100.
    assert common_distances(curves, np.array([[20.0]]))["positive"].values[0, 0] == 6
    none = common_distances(curves, np.array([[100.0]]))["positive"]
    assert np.isnan(none.values).all() and none.limited_by == [""]


def test_a_control_does_not_limit_the_common_distance() -> None:
    curves = {
        ("far (all)", "positive"): curve([0, 4, 6, 8]),
        ("near (others)", "positive"): curve([0, 1, 2, 3]),
    }
    common = common_distances(curves, np.array([[10.0]]))["positive"]
    assert common.values[0, 0] == 8 and common.limited_by == ["far (all)"]


def test_the_real_prompts_distance_is_that_of_each_resample() -> None:
    far = curve([0, 4, 6, 8])
    change, distance, control = (
        np.concatenate([each] * 2) for each in (far.change, far.distance, far.control)
    )
    twice = replace(far, change=change, distance=distance, control=control)
    common = common_distances({("far", "positive"): twice}, np.array([[4.0], [3.0]]))["positive"]
    assert common.values[:, 0].tolist() == [4, 3]
