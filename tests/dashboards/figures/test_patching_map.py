"""The patching map: which cells it has, how they are drawn and clicked, and what its caption and table say."""

from typing import Any

import numpy as np
import pytest

from cache.errors import UserError
from dashboards.drawing import palette
from dashboards.drawing.grids import cell_at, lay_out
from dashboards.figures import patching_map
from dashboards.numbers import fixed
from dashboards.tables.patching import UNTESTED
from tests.dashboards.figures.helpers import HOSTILE, caption, expect_text, table_of
from tests.dashboards.synthetic_study import (
    BLOCKS_MAP,
    PLANTED,
    RUNS,
    STOPPED,
    UNDEFINED,
    WINDOWS,
    arm,
    null_arm,
    part_arms,
    patching_result,
)
from workbench.studies.study import Study


def test_a_map_of_blocks_has_a_panel_for_each_direction(study: Study) -> None:
    frame = patching_map.map_frame(study.result(BLOCKS_MAP))
    assert list(dict.fromkeys(frame["panel"])) == ["sufficiency", "necessity"]
    assert set(frame["across"]) == set(frame["concept"]) == set(PLANTED)
    one = patching_map.map_frame(study.result(BLOCKS_MAP), concept="tempo")
    assert list(dict.fromkeys(one["across"])) == ["sufficiency", "necessity"]
    assert set(one["concept"]) == set(one["panel"]) == {"tempo"}


def test_a_map_of_steps_shows_one_concept_or_one_window(study: Study) -> None:
    result = study.result("patching-steps")
    windows = patching_map.map_frame(result)
    assert set(windows["concept"]) == {"instrument"}
    assert list(dict.fromkeys(windows["across"])) == list(WINDOWS)
    of_all = patching_map.map_frame(result, concept="all", column="steps 2–3")
    assert set(of_all["panel"]) == {"steps 2–3"} == set(of_all.loc[of_all["group"] == "cell", "column"])
    assert set(patching_map.map_frame(result, concept="all")["panel"]) == {"steps 0–1"}


def test_both_directions_of_a_part_have_panels_of_their_own(study: Study) -> None:
    result = patching_result(study, "parts", part_arms())
    one = patching_map.map_frame(result, concept="tempo")
    assert list(dict.fromkeys(zip(one["panel"], one["across"], strict=True))) == [
        ("sufficiency", "keys"), ("sufficiency", "values"), ("necessity", "keys"), ("necessity", "values"),
    ]  # fmt: skip
    assert not one.duplicated(["panel", "across", "label"]).any()
    every = patching_map.map_frame(result, concept="all", column="keys")
    assert list(dict.fromkeys(every["panel"])) == ["keys, sufficiency", "keys, necessity"]


def test_the_largest_null_arm_stands_for_its_kind(study: Study) -> None:
    result = study.result(BLOCKS_MAP).copy(deep=True)
    result.impact.loc["tempo", "tf5 null random"] = -0.4
    frame = patching_map.map_frame(result)
    nulls = frame[(frame["group"] == "null") & (frame["concept"] == "tempo")].set_index("label")
    assert set(nulls.index) == {f"null: {kind}" for kind in ("unrelated", "random", "control")}
    assert set(nulls["largest_of"]) == {8}
    assert nulls.loc["null: random", ["arm", "impact"]].tolist() == ["tf5 null random", -0.4]
    assert set(nulls["panel"]) == {"sufficiency"}


def test_null_arms_of_other_names_keep_their_row(study: Study) -> None:
    arms = [
        *RUNS,
        arm("tf0", "a", "sufficiency"),
        arm("noise", "a", role="null"),
        arm("tf0", "b", role="null"),
    ]
    frame = patching_map.map_frame(patching_result(study, "parts", arms), concept="tempo")
    places = dict(zip(frame["arm"], zip(frame["label"], frame["across"], strict=True), strict=True))
    assert places == {"tf0 a": ("tf0", "a"), "noise a": ("noise", "a"), "tf0 b": ("null at tf0", "b")}


def test_what_an_arm_is_is_not_read_off_its_name(study: Study) -> None:
    arms = [
        *RUNS,
        {**arm("early", "a", "sufficiency"), "block": 3},
        {**arm("tf3 null random", "a", "sufficiency"), "block": -1},
        {**null_arm("early", "random", of="early a"), "arm": "chance"},
        {**arm("tf5", "a", "sufficiency", role="null"), "arm": "early a null control"},
    ]
    result = patching_result(study, "parts", arms)
    frame = patching_map.map_frame(result, concept="tempo", planted={"tempo": [3]})
    places = dict(zip(frame["arm"], zip(frame["label"], frame["across"], strict=True), strict=True))
    assert places == {
        "early a": ("early", "a"),
        "tf3 null random a": ("tf3 null random", "a"),
        "chance": ("null: random", "a"),
        "early a null control": ("tf5", "a"),
    }
    assert frame.set_index("arm")["planted"].to_dict() == {name: name == "early a" for name in places}


def test_planted_cells_are_marked(study: Study) -> None:
    assert "planted" not in patching_map.map_frame(study.result(BLOCKS_MAP))
    frame = patching_map.map_frame(study.result(BLOCKS_MAP), planted=PLANTED)
    marked = {(row.concept, row.arm) for row in frame[frame["planted"]].itertuples()}
    assert marked == {
        (concept, f"tf{block}{direction}")
        for concept, blocks in PLANTED.items()
        for block in blocks
        for direction in ("", " necessity")
    }


@pytest.mark.parametrize(
    ("options", "words"), [({"concept": "key"}, "tempo"), ({"column": "up"}, "necessity")]
)
def test_what_a_map_does_not_have_is_told(study: Study, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        patching_map.map_frame(study.result(BLOCKS_MAP), **options)


MAPS: list[dict[str, Any]] = [{}, {"name": "steps"}, {"name": "blocks", "concept": "tempo"}]


@pytest.mark.parametrize("options", MAPS)
def test_every_patching_cell_shows_its_number_or_says_undefined(
    study: Study, options: dict[str, Any]
) -> None:
    frame = table_of(study, "patching", **options)
    shown: dict[tuple[str, str] | None, str] = {}
    for trace in patching_map.draw_screen(frame).data:
        if trace.type == "scatter" and trace.mode == "text":
            of_trace = {
                cell_at(frame, x, y): text for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
            }
        elif trace.type == "heatmap" and trace.text is not None:
            rows = zip(np.ravel(trace.text), trace.customdata.reshape(-1, 3), strict=True)
            of_trace = {(data[0], data[1]): text for text, data in rows if text}
        else:
            continue
        assert not of_trace.keys() & shown.keys()
        shown |= of_trace
    assert len(shown) == len(frame)
    for row in frame.itertuples():
        expected = "undefined" if row.concept == UNDEFINED else fixed(row.impact)
        assert shown[row.concept, row.arm] == expected


@pytest.mark.parametrize("options", MAPS)
def test_only_unclear_cells_are_hatched(study: Study, options: dict[str, Any]) -> None:
    frame = table_of(study, "patching", **options)
    lines = [
        trace
        for trace in patching_map.draw_screen(frame).data
        if trace.type == "scatter" and trace.mode == "lines"
    ]
    ends = [(x, y) for trace in lines for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
    middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    unclear = frame[frame["status"].isin(["not significant", "inside null band"])]
    assert {cell_at(frame, x, y) for x, y in middles} == set(
        zip(unclear["concept"], unclear["arm"], strict=True)
    )
    if options.get("name") != "steps":
        assert ("tempo", "tf6") in {cell_at(frame, x, y) for x, y in middles}


@pytest.mark.parametrize("options", MAPS)
def test_a_click_finds_each_patching_cell(study: Study, options: dict[str, Any]) -> None:
    frame = table_of(study, "patching", **options)
    found = set()
    for trace in patching_map.draw_screen(frame).data:
        if trace.type == "heatmap":
            for row, column in np.ndindex(trace.customdata.shape[:2]):
                x = (trace.x[column] + trace.x[column + 1]) / 2
                y = (trace.y[row] + trace.y[row + 1]) / 2
                cell = cell_at(frame, x, y)
                assert cell == (tuple(trace.customdata[row, column][:2]) if cell else None)
                found.add(cell)
    assert found - {None} == set(zip(frame["concept"], frame["arm"], strict=True))


def test_beside_the_cells_there_is_nothing_to_click(study: Study) -> None:
    frame = table_of(study, "patching")
    assert cell_at(frame, 0.5, 10.2) is None  # the gap above the null arms
    assert cell_at(frame, 4.2, 0.5) is None  # the gap between the panels
    assert cell_at(frame, 4.6, 0.5) == ("instrument", "tf0 necessity")
    assert cell_at(frame, 19.0, 0.5) is None


def test_planted_and_selected_cells_are_outlined(study: Study) -> None:
    planted = patching_map.draw_screen(table_of(study, "patching", truth=True)).layout.shapes
    assert len(planted) == 2 * 5
    assert {shape.line.color for shape in planted} == {palette.PLANTED}
    assert not patching_map.draw_screen(table_of(study, "patching")).layout.shapes
    chosen = patching_map.draw_screen(table_of(study, "patching"), ("tempo", "tf3 necessity")).layout.shapes
    assert {(shape.x0, shape.y0) for shape in chosen} == {(5.5, 3)}


@pytest.mark.parametrize("column", ["concept", "arm", "label", "across", "panel"])
def test_names_on_a_patching_map_are_text(study: Study, column: str) -> None:
    frame = table_of(study, "patching")
    frame[column] = HOSTILE + frame[column].astype(str)
    expect_text(patching_map.draw_screen(frame))


@pytest.mark.parametrize(
    "words",
    [
        "by block (rows) and concept (columns) (sufficiency, necessity)",
        "scorer embedded",
        "tempo: 12 pairs × 2 seeds (n = 24), denominator (clean − corrupt) 0.60 [0.50, 0.70]",
        "null band [−0.05, 0.07]",
        "stability 0.93 [0.81, 0.98]",
        "agreement with clap 0.87 [0.71, 0.95] (n = 18 cells)",
        "95 % BCa bootstrap intervals over pairs",
        "p > 0.05 after Benjamini–Hochberg over 60 cells",
        "fraction of the concept that is restored",
        "fraction of the concept that is lost",
        "mood: 12 pairs × 2 seeds (n = 24), denominator (clean − corrupt) 0.02 [−0.05, 0.09], not clearly above zero",
        STOPPED,
    ],
)
def test_a_map_says_what_it_rests_on(study: Study, words: str) -> None:
    assert words in caption(study, "patching")


def test_a_map_of_one_concept_speaks_of_that_one(study: Study) -> None:
    told = caption(study, "patching", name="steps", concept="tempo", scorer="clap", truth=True)
    assert "Impact of patching on tempo, by block (rows) and step window (columns)" in told
    assert "scorer clap" in told
    assert "agreement with embedded 0.87 [0.71, 0.95]" in told
    assert "over 96 cells" in told
    assert "truth card" in told
    assert "drums" not in told
    assert "necessity" not in told.lower()


def test_the_table_of_a_map_has_each_number_with_its_interval(study: Study) -> None:
    table = patching_map.print_table(table_of(study, "patching")).set_index("")
    assert table.loc["tf3", "tempo (sufficiency)"] == "0.93 [0.87, 0.98]"
    assert table.loc["tf3", "tempo (necessity)"] == "0.74 [0.68, 0.79]"
    assert table.loc["tf0", "tempo (sufficiency)"] == "0.00 [−0.06, 0.05]†"
    assert table.loc["tf3", "mood (sufficiency)"] == "undefined"
    assert list(table.index)[:2] == ["tf0", "tf1"]
    assert table.loc["null: random (largest of 8)", "tempo (necessity)"] == ""


def test_brackets_and_commas_in_names_are_not_taken_apart(study: Study) -> None:
    arms = [
        *RUNS,
        arm("tf0", "a", "sufficiency"),
        arm("noise (largest of 3)", "a", role="null"),
        arm("tf0", "a, necessity", "sufficiency"),
    ]
    result = patching_result(study, "parts", arms)
    frame = patching_map.map_frame(result, concept="all", column="a, necessity")
    assert lay_out(frame).meanings == {"a, necessity": ""}
    table = patching_map.map_frame(result, concept="tempo")
    ticks = patching_map.draw_screen(table).layout.yaxis.ticktext
    assert ticks[-1] == "<i>noise (largest of 3)</i>"
    assert "each the" not in patching_map.write_caption(result, table)


def test_only_a_dotted_map_says_that_it_is_dotted(study: Study) -> None:
    result = study.result(BLOCKS_MAP)
    frame = table_of(study, "patching")
    frame["n_pairs"], frame["p"] = 6, 2 / 2**6
    for status, is_dotted in (("not significant", False), (UNTESTED, True)):
        told = patching_map.write_caption(result, frame.assign(status=status))
        assert ("Dotted" in told) == is_dotted
        assert ("the smallest possible p, 0.0312" in told) == (not is_dotted)
