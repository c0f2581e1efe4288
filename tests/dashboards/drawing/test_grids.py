"""Where the cells of a map lie."""

import numpy as np
import pandas as pd

from dashboards.drawing.grids import lay_out


def test_rows_that_one_panel_lacks_leave_its_other_cells_in_place() -> None:
    frame = pd.DataFrame(
        {
            "panel": ["left", "left", "right", "right"],
            "across": "c",
            "label": ["tf0", "all", "tf0", "tf10"],
            "block": [0, -1, 0, 10],
            "group": "cell",
            "column": "",
            "direction": "",
            "largest_of": 1,
            "impact": [0.1, 0.2, 0.3, 0.4],
        }
    )
    grid = lay_out(frame)
    assert list(grid.tops) == ["tf0", "tf10", "all"]
    left, right = grid.sections
    np.testing.assert_array_equal(left.numbers("impact"), [[0.1], [np.nan], [0.2]])
    np.testing.assert_array_equal(right.numbers("impact"), [[0.3], [0.4], [np.nan]])
    assert left.tops == right.tops == [0, 1, 2]
