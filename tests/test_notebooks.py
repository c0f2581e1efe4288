"""The notebooks of the documentation: every cell runs, and none is committed with outputs, which go stale."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DESIGNED = """
model = wb.load("organism-shared")
clean, corrupt = wb.clips(["a slow sad piano song", "a fast sad piano song"], seed=0)
run = model.generate([clean, corrupt], capture=["tf4.cross_attn"])
patched = model.generate(corrupt, edits=[wb.patch("tf3.cross_attn", source=clean)])
steered = model.generate(corrupt, edits=[vector.at(2.0)])
"""


def cells(notebook: Path) -> list[dict[str, Any]]:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert document["nbformat"] == 4
    return document["cells"]


def sources(notebook: Path) -> list[str]:
    """The code of each code cell."""
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any], where: str) -> Any:
    """Run a cell as a notebook does; gives the value of its last expression, which a notebook would show."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), where, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), names)


@pytest.mark.filterwarnings("ignore:Audio plays only in a notebook")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, source in enumerate(sources(notebook)):
        shown = run(source, names, f"{notebook.name}, code cell {number}")
        if hasattr(shown, "_repr_html_"):
            assert shown._repr_html_()
    if "patching" in names:
        assert np.isfinite(names["patching"].data["score"]).all(), "the scorer hears the clips"
        assert np.isfinite(names["patching"].data["impact"]).any()
    made = [path.name for path in tmp_path.iterdir()]
    assert made == (["studies"] if notebook.stem == "a-study" else []), "the first look writes nothing"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs(notebook: Path) -> None:
    for cell in cells(notebook):
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_the_page_names_every_notebook() -> None:
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert all(f"]({notebook.name})" in page for notebook in NOTEBOOKS)


def test_the_first_look_has_the_front_door_s_lines() -> None:
    code = "\n".join(sources(FOLDER / "first-look.ipynb"))
    for line in DESIGNED.strip().splitlines():
        assert line in code
