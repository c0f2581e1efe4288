"""What one patch moves in each pair."""

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


def test_what_one_patch_moves_says_its_test(study: Study) -> None:
    told = caption(study, "patching-pairs", concept="drums", arm="tf3 necessity")
    for words in ("drums (block tf3, necessity)", "clean − patched and clean − corrupt", "0.78 [0.72, 0.83]"):
        assert words in told
    assert "p = 0.002, 0.003 after Benjamini–Hochberg over 60 cells" in told
