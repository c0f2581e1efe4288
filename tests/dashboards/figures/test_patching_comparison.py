"""Two maps beside each other: what is compared, how much they agree, and what cannot be compared."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cache.errors import UserError
from dashboards.context import Context
from dashboards.drawing.grids import as_map
from dashboards.figures.patching_comparison import (
    PatchingComparisonSpec,
    compare,
    describe_agreement,
    draw_scatter,
    draw_screen,
    print_table,
    write_caption,
)
from dashboards.tables.comparison import VALUES, Map, compare_maps
from tests.dashboards.synthetic_study import (
    UNDEFINED,
    save_changed,
)
from workbench.studies.study import Study


def make_map(name: str, impacts: dict[str, dict[str, float]], n_blocks: int | None) -> Map:
    cells = [
        {
            "concept": concept,
            "row": row,
            "block": int(row[2:]) if row.startswith("tf") else -1,
            "impact": impact,
            "impact_lo": impact,
            "impact_hi": impact,
            "status": "clear",
        }
        for concept, of_row in impacts.items()
        for row, impact in of_row.items()
    ]
    return Map(name, pd.DataFrame(cells)[["concept", "row", "block", *VALUES]], n_blocks)


LEFT = {"fast": {"tf0": 0.1, "tf1": 0.9, "tf2": 0.4, "all": 1.0}, "sad": {"tf0": 0.3, "tf1": 0.5, "tf2": 0.6}}


RIGHT = {
    "fast": {"tf0": 0.2, "tf1": 0.4, "tf2": 0.7, "all": 0.9},
    "jazz": {"tf0": 0.9, "tf1": 0.0, "tf2": 0.0},
}


def test_rankings_are_compared_over_common_concepts_and_single_blocks() -> None:
    compared = compare_maps(make_map("a", LEFT, 3), make_map("b", RIGHT, 3), 1, [])
    assert set(compared.frame["concept"]) == {"fast"}
    assert sorted(compared.means.index) == ["tf0", "tf1", "tf2"]
    assert compared.spearman == pytest.approx(0.5)  # ranks 1 3 2 against 1 2 3
    assert (compared.tops, compared.overlap) == ((["tf1"], ["tf2"]), [])
    assert compare_maps(make_map("a", LEFT, 3), make_map("b", RIGHT, 3), 2, []).overlap == ["tf1", "tf2"]
    assert compared.notes == ["Compared on fast. Only a has sad. Only b has jazz."]


def test_means_run_over_all_common_concepts() -> None:
    right = {concept: dict(rows) for concept, rows in LEFT.items()}
    compared = compare_maps(make_map("a", LEFT, 3), make_map("b", right, 3), 3, [])
    assert compared.means.loc["tf1"].tolist() == pytest.approx([0.7, 0.7])
    assert compared.spearman == pytest.approx(1)
    assert compared.notes == []


def test_networks_of_different_depth_stand_beside_each_other_only() -> None:
    compared = compare_maps(make_map("a", LEFT, 3), make_map("b", RIGHT, 12), 2, [])
    assert compared.matched.empty
    assert math.isnan(compared.spearman)
    assert "a has 3 blocks and b has 12" in compared.notes[1]
    assert len(compared.frame) == 8
    assert "Spearman" not in write_caption(compared)


def test_without_a_common_concept_nothing_is_compared() -> None:
    compared = compare_maps(
        make_map("a", {"fast": LEFT["fast"]}, 3), make_map("b", {"jazz": RIGHT["jazz"]}, 3), 2, []
    )
    assert compared.frame.empty
    assert compared.notes[0] == (
        "Nothing can be compared: a has the concepts fast, b has jazz, with none in common."
    )


def test_equal_impacts_everywhere_have_no_ranking() -> None:
    flat = {"fast": {"tf0": 0.0, "tf1": 0.0}}
    compared = compare_maps(make_map("a", flat, 2), make_map("b", RIGHT, 2), 1, [])
    assert math.isnan(compared.spearman)
    assert "undefined" in write_caption(compared)


def test_rows_that_one_map_lacks_are_named() -> None:
    compared = compare_maps(
        make_map("a", LEFT, 3), make_map("b", {"fast": {"tf1": 0.4, "tf2": 0.7}}, 3), 2, []
    )
    assert "Compared on 2 rows that both have. Only a has tf0, all." in compared.notes
    assert compared.matched["row"].tolist() == ["tf1", "tf2"]


def test_rows_are_counted_with_the_sets_of_blocks_that_agreement_leaves_out() -> None:
    right = {concept: {row: 0.5 * impact for row, impact in rows.items()} for concept, rows in LEFT.items()}
    right["fast"]["pair"] = 0.9
    compared = compare_maps(make_map("a", LEFT, 3), make_map("b", right, 3), 2, [])
    assert compared.notes == [
        "Compared on 4 rows that both have, 3 single blocks among them. Only b has pair."
    ]
    said = [
        "Spearman rank correlation of the mean impacts of 3 single blocks (sets of blocks are left out) over the "
        "common concepts: 1.00.",
        "Of the 2 single blocks with the largest mean impacts, significant or not, 2 are the same: tf1, tf2.",
    ]
    assert describe_agreement(compared) == said
    assert write_caption(compared).endswith(" ".join(said))
    one = {"fast": {"tf0": 0.1}}
    alone = compare_maps(make_map("a", one, 1), make_map("b", one, 1), 1, [])
    assert describe_agreement(alone) == [
        "Spearman rank correlation of the mean impacts of 1 row over the common concepts: undefined.",
        "Of the 1 row with the largest mean impacts, significant or not, 1 is the same: tf0.",
    ]


def test_two_studies_are_compared(study: Study, other_study: Study) -> None:
    spec = PatchingComparisonSpec(name="blocks", compare=str(other_study.path))
    compared = compare(study, spec)
    assert compared.names == ("study", "other")
    assert compared.spearman == pytest.approx(1)
    assert compared.tops[0][0] == "tf3"
    pair = compared.matched.set_index(["concept", "row"]).loc[("tempo", "tf3")]
    assert (pair["impact_left"], pair["impact_right"]) == (0.93, 0.465)
    assert UNDEFINED not in set(compared.matched["concept"])
    necessity = compare(study, spec.model_copy(update={"column": "necessity"}))
    lost = necessity.matched.set_index(["concept", "row"]).loc[("tempo", "tf3"), "impact_left"]
    assert lost == pytest.approx(0.93 * 0.8)


def test_a_study_is_compared_with_a_published_table(study: Study, published: Path) -> None:
    tiny = compare(study, PatchingComparisonSpec(name="blocks", published=str(published), model="tiny"))
    assert list(dict.fromkeys(tiny.frame["concept"])) == ["tempo", "drums"]
    assert tiny.overlap[0] == "tf3"
    assert len(tiny.matched) == 2 * 8
    assert tiny.matched["impact_lo_right"].isna().all()
    assert tiny.notes[-1] == "The published table has no intervals."
    deep = compare(study, PatchingComparisonSpec(name="blocks", published=str(published), model="deep"))
    assert any("study has 8 blocks and paper, deep has 12" in note for note in deep.notes)
    assert deep.matched.empty


def test_what_asks_something_else_is_not_compared(
    study: Study, other_study: Study, published: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="'blocks', not 'steps'"):
        compare(study, PatchingComparisonSpec(name="steps", published=str(published), model="tiny"))
    other = Study.open(shutil.copytree(other_study.path, tmp_path / "asked"))
    save_changed(other, "patching-blocks", question="sets")
    with pytest.raises(UserError, match=r"'blocks' in .* but for 'sets'"):
        compare(study, PatchingComparisonSpec(name="blocks", compare=str(other.path)))
    save_changed(other, "patching-blocks", schema_version=1)
    with pytest.raises(UserError, match=r"schema version 1.*workbench patch"):
        compare(study, PatchingComparisonSpec(name="blocks", compare=str(other.path)))


def test_both_maps_and_their_cells_are_drawn(study: Study, other_study: Study) -> None:
    compared = compare(study, PatchingComparisonSpec(name="blocks", compare=str(other_study.path)))
    drawn = [trace for trace in draw_screen(compared.frame).data if trace.type == "heatmap"]
    assert set(as_map(compared.frame)["panel"]) == {"study", "other"}
    assert [trace.z[3][1] for trace in drawn[::2]] == [0.93, 0.465]  # tf3, tempo
    scatter = draw_scatter(compared.matched, compared.names)
    dots = {trace.name: trace for trace in scatter.data if trace.name}
    assert set(dots) == {"instrument", "tempo", "drums"}
    place = list(dots["tempo"].customdata).index(["tempo", "tf3"])
    assert (dots["tempo"].x[place], dots["tempo"].y[place]) == (0.93, 0.465)
    assert dots["tempo"].error_x.array[place] == pytest.approx(0.05)


def test_the_table_has_both_impacts_in_one_row(study: Study, published: Path) -> None:
    compared = compare(study, PatchingComparisonSpec(name="blocks", published=str(published), model="tiny"))
    table = print_table(compared.frame).set_index(["concept", "row"])
    assert table.loc[("tempo", "tf3")].tolist() == ["0.93 [0.87, 0.98]", "0.90"]
    assert table.loc[("tempo", "tf0")].tolist() == ["0.00 [−0.06, 0.05]†", "0.00"]
    assert table.loc[("tempo", "all"), "paper, tiny"] == ""


def test_the_choices_are_the_other_study_and_every_published_model(
    study: Study, other_study: Study, published: Path
) -> None:
    context = Context(study, other_study.path, published)
    assert list(context.comparisons) == ["other", "paper, tiny", "paper, deep"]
    assert context.comparison_spec("paper, deep", name="blocks").model == "deep"
    assert Context(study).comparisons == {}


def test_what_cannot_be_compared_with_is_told_at_once(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study"):
        Context(study, compare=tmp_path).check()
    with pytest.raises(UserError, match="There is no file"):
        Context(study, published=tmp_path / "none.csv").check()
