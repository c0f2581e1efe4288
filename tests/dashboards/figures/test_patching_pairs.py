"""What one patch moves in each pair."""

import numpy as np
import pandas as pd
import pytest

from dashboards.drawing import palette
from dashboards.figures import patching_pairs
from dashboards.tables.patching import pairs_frame
from tests.dashboards.figures.helpers import caption, table_of
from tests.dashboards.synthetic_study import BLOCKS_MAP
from workbench.studies.study import Study


def test_changes_stand_beside_what_there_was_to_move(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    frame = patching_pairs.changes_frame(result, "drums", "tf3 necessity", "clap")
    assert list(dict.fromkeys(frame["quantity"])) == ["clean − patched", "clean − corrupt"]
    pairs = pairs_frame(result, "drums", "tf3 necessity", "clap")
    assert frame.loc[frame["quantity"] == "clean − patched", "value"].tolist() == pairs["change"].tolist()
    assert patching_pairs.changes_frame(result, "drums", "tf3")["quantity"].iloc[0] == "patched − corrupt"


def test_changes_are_drawn_with_one_dot_a_run_and_its_prompts(study: Study) -> None:
    frame = table_of(study, "patching-pairs", concept="drums", arm="tf3")
    dots = [trace for trace in patching_pairs.draw_screen(frame, (1, 1)).data if trace.type == "scatter"]
    assert [list(trace.x) for trace in dots] == [
        frame.loc[frame["quantity"] == quantity, "value"].tolist()
        for quantity in ("patched − corrupt", "clean − corrupt")
    ]
    first = frame.iloc[0]
    assert list(dots[0].customdata[0]) == [0, 0, first["clean_prompt"], first["corrupt_prompt"], "100"]
    assert [colour == palette.PLANTED for colour in dots[0].marker.line.color] == [False, False, False, True]


def test_boxes_are_the_same_on_screen_and_paper() -> None:
    """Of values on which the rules for quartiles differ."""
    values = [0.0] * 8 + [0.158, 0.763, 0.991, 0.994]
    frame = pd.DataFrame({"quantity": "patched − corrupt", "value": values, "pair": range(12), "seed": 0})
    frame[["clean_prompt", "corrupt_prompt", "noise_seed", "concept", "arm"]] = "a", "b", 1, "mood", "tf4"
    (box,) = [trace for trace in patching_pairs.draw_screen(frame).data if trace.type == "box"]
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    assert [box.q1[0], box.median[0], box.q3[0]] == pytest.approx(quartiles)
    assert (box.lowerfence[0], box.upperfence[0]) == (0.0, 0.763)
    lines = patching_pairs.draw_paper(frame, "single").axes[0].lines
    assert {0.763, quartiles[2]} <= {float(np.max(line.get_xdata())) for line in lines}


def test_what_one_patch_moves_says_its_test(study: Study) -> None:
    told = caption(study, "patching-pairs", concept="drums", arm="tf3 necessity")
    for words in ("drums (block tf3, necessity)", "clean − patched and clean − corrupt", "0.78 [0.72, 0.83]"):
        assert words in told
    assert "p = 0.002, 0.003 after Benjamini–Hochberg over 60 cells" in told
