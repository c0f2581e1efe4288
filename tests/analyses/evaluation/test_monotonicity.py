"""Steps of strength that go the wrong way: by hand."""

import numpy as np
import xarray as xr

from analyses.evaluation.monotonicity import violations
from analyses.evaluation.replicates import Replicates
from tests.tolerances import assert_close


def test_steps_the_wrong_way_are_counted_over_pairs() -> None:
    curves = np.array([[0.0, 1.0, 2.0, 1.0], [0.0, 1.0, 0.999, 3.0], [0.0, -1.0, -2.0, np.nan]])
    rises = np.cumsum(np.ones((3, 4)), axis=1) - 1
    arms = {
        "corrupt": ("", 0.0, "run"),
        "b": ("way", 2.0, "cell"),
        "a": ("way", 1.0, "cell"),
        "c": ("way", 3.0, "cell"),
    }
    rows, strength, role = (list(column) for column in zip(*arms.values(), strict=True))
    change = xr.DataArray(
        np.stack([curves, rises, -rises, 0 * rises], axis=-1)[:, None, [0, 2, 1, 3]],
        {
            "arm": list(arms),
            "row": ("arm", rows),
            "strength": ("arm", strength),
            "role": ("arm", role),
        },
        ("pair", "seed", "arm", "scorer"),
    )
    found = violations(change, "way", "positive", np.full(4, 0.01), Replicates(3))
    # 2 → 1 in the first pair; -.001 is a tie; two steps down in the third, whose last is unknown.
    assert_close(found.value[:3], [3 / 8, 0.0, 1.0])
    assert np.isnan([end[3] for end in found]).all()  # of ties alone
    assert found.low[0] < 3 / 8 < found.high[0]
    exact = 0.025 ** (1 / 3)  # the exact interval of 3 pairs without a violation
    assert_close([found.low[1], found.high[1], found.low[2], found.high[2]], [0, 1 - exact, exact, 1])
