"""Exported tables are no wider than the text of an article; where LaTeX is installed, it says so itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from dashboards.export import export_figure
from dashboards.latex import LONG, latex_table
from dashboards.latex_layout import NORMAL, fitting, groups, width
from tests.dashboards.test_export import OPTIONS
from workbench.studies.study import Study

CELL = "0.00 [−0.06, 0.05]†"
DOCUMENT = (
    "\\documentclass{{article}}\\usepackage{{{packages}}}\\begin{{document}}\n{text}\\end{{document}}\n"
)


def check_fits(text: str, folder: Path) -> None:
    """The table has no box that is wider than the text by more than rounding, as LaTeX itself says."""
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no LaTeX on this machine")
    needed = re.search(r"usepackage\{(.*?)\}", text.splitlines()[0])
    assert needed is not None
    (folder / "table.tex").write_text(DOCUMENT.format(packages=needed[1], text=text))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", ran.stdout)]
    assert max(too_wide, default=0.0) < 1.0, too_wide


def pivot(columns: int, rows: int = 3) -> pd.DataFrame:
    """A map as a paper prints it: a row a block, a column a concept."""
    names = [f"instrument{number} (sufficiency)" for number in range(columns)]
    return pd.DataFrame({"": [f"tf{row}" for row in range(rows)], **dict.fromkeys(names, CELL)})


@pytest.mark.parametrize("columns", [1, 2, 4, 8, 30])
@pytest.mark.parametrize("rows", [3, LONG + 2])
def test_a_map_fits_however_many_columns_it_has(tmp_path: Path, columns: int, rows: int) -> None:
    table = pivot(columns, rows)
    text = latex_table(table, "A map", "tab:map")
    heads = 2 if rows > LONG else 1  # of the first page, and of those that follow
    for name in table.columns[1:]:
        assert text.count(name) == heads, "each column stands once"
    assert text.count(r"\caption{A map}") == text.count(r"\label{tab:map}") == 1
    parts = text.count(r"\end{longtable}" if rows > LONG else r"\end{tabular}")
    assert text.count("tf0 &") == parts, "each part says which row is which"
    assert text.count(r"\toprule") == heads * parts
    check_fits(text, tmp_path)


@pytest.mark.parametrize("figure", [name for name in OPTIONS if name != "patching-compare"])
def test_every_exported_table_fits(study: Study, tmp_path: Path, figure: str) -> None:
    files = export_figure(study, figure, "svg", tmp_path / "figures", **OPTIONS[figure])
    (table,) = (file for file in files if file.suffix == ".tex")
    check_fits(table.read_text(), tmp_path)


def test_long_texts_are_wrapped_and_numbers_are_not(tmp_path: Path) -> None:
    prompts = ["a fast happy violin song with drums and a singer who never stops, " * 3]
    table = pd.DataFrame({"clean": prompts, "value": [0.123456789], "corrupt": prompts, "step": [7]})
    text = latex_table(table, "Prompts", "tab:prompts")
    assert text.count("arraybackslash}p{") == 2
    assert "0.1235" in text and "% needs \\usepackage{booktabs,array}" in text
    check_fits(text, tmp_path)


def test_a_narrow_table_stays_as_it_is() -> None:
    layout = fitting([(["concept", "mood"], False), (["n", "12"], True)])
    assert layout is not None and layout.size is NORMAL and layout.columns == ("l", "r")


def test_widths_are_those_of_computer_modern() -> None:
    assert width("0000000000") == pytest.approx(50.0, abs=0.2)  # a digit is half an em
    assert width("二") == pytest.approx(10.0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_groups_are_even_and_in_order(count: int) -> None:
    key, others = [(["", "tf0"], False)], [(["x" * 20, CELL], False)] * count
    found = groups(key, others)
    assert [number for group in found for number in group] == list(range(count))
    assert all(fitting([*key, *(others[number] for number in group)]) for group in found)


def test_what_cannot_fit_is_as_narrow_as_it_gets() -> None:
    assert fitting([(["x" * 100], False)]) is None
    text = latex_table(pd.DataFrame({"x" * 100: ["a"]}), "Wide", "tab:wide")
    assert text.count("x" * 100) == 1
    assert r"\scriptsize" in text
