"""The table of methods against planted circuits: its metrics and where they are written."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import ground_truth
from benchmarks.ground_truth import contexts, judge, planted_maps, shape, write_table
from benchmarks.organisms.circuits import CIRCUITS
from benchmarks.organisms.circuits.planted import PRESENT


def test_judge_counts_planted_and_false_cells() -> None:
    values = pd.Series({"a": 0.9, "b": 0.05, "c": 0.2, "d": 0.0})
    significant = pd.Series({"a": True, "b": True, "c": True, "d": False})
    assert judge(values, {"a", "b"}, significant) == {
        "AUROC": pytest.approx(0.75),
        "found": "1 of 2",
        "false": 1,
        "false, any size": 1,
    }
    assert judge(values, {"a"}) == {"AUROC": pytest.approx(1.0)}


def test_shape_tells_or_from_and() -> None:
    one, none = pd.Series([1.0, 0.98]), pd.Series([0.02, 0.0])
    assert shape(one, one) == "sufficient and necessary"
    assert shape(one, none).startswith("redundant")
    assert shape(none, one).startswith("complementary")
    assert shape(none, none) == "neither alone"


def test_every_circuit_is_asked_what_it_plants() -> None:
    questions = {name: set(planted_maps(circuit)) for name, circuit in CIRCUITS.items()}
    assert questions["one-head"] == {"blocks", "heads"}
    assert questions["step-window"] == {"blocks", "steps"}
    assert questions["redundant"] == {"blocks"}
    for circuit in CIRCUITS.values():
        for cells, planted in planted_maps(circuit).values():
            assert planted
            assert planted < set(cells)


def test_pairs_run_from_presence_to_absence() -> None:
    found = contexts(28)
    assert len(found) == 28
    assert {context.pair.clean_value for context in found} == {PRESENT}


def test_the_table_goes_between_its_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    monkeypatch.setattr(ground_truth, "DOCS", page)
    row = {
        "circuit": "decoy",
        "map": "blocks",
        "method": "exact",
        "AUROC": 1.0,
        "found": "1 of 1",
        "false": 0,
    }
    row |= {"false, any size": 2, "coverage": 0.95, "rows": 296.0, "shape": "sufficient"}
    write_table(pd.DataFrame([row, {**row, "coverage": float("nan"), "rows": float("nan")}]))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert lines[4] == "| decoy | blocks | exact | 1.00 | 1 of 1 | 0 | 2 | 0.95 | 296 | sufficient |"
    assert lines[5] == "| decoy | blocks | exact | 1.00 | 1 of 1 | 0 | 2 |  |  | sufficient |"
