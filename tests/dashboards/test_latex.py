"""Tables are LaTeX that compiles."""

import re
from pathlib import Path

import pandas as pd
import pytest

from dashboards.export import export_figure
from dashboards.latex import LONG, escape, latex_table
from tests.dashboards.test_latex_layout import check_fits
from workbench.studies.study import Study


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50 % of #1 {x} $", r"a\_b \& 50 \% of \#1 \{x\} \$"),
        ("C:\\x^2~y", r"C:\textbackslash{}x\textasciicircum{}2\textasciitilde{}y"),
        ("2 × 3 − 1 ≥ σ – “yes”…", r"2 $\times$ 3 $-$ 1 $\ge$ $\sigma$ -- ``yes''\ldots{}"),
        ("two\nlines", "two lines"),
    ],
)
def test_what_latex_would_misread_is_escaped(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_a_table_has_booktabs_rules_and_one_line_a_row() -> None:
    table = pd.DataFrame({"name_of": ["a&b", "c"], "value": [-0.5, float("nan")], "n": [1, 2]})
    text = latex_table(table, "50 % of it", "tab:a_b")
    assert r"\begin{tabular}{lrr}" in text
    assert r"\caption{50 \% of it}" in text
    assert r"\label{tab:a-b}" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    assert body == [
        r"\toprule",
        r"name\_of & value & n \\",
        r"\midrule",
        r"a\&b & $-$0.5 & 1 \\",
        r"c & -- & 2 \\",
    ]


def test_a_long_table_goes_over_pages() -> None:
    text = latex_table(pd.DataFrame({"x": range(LONG + 1)}), "Long", "tab:long")
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    assert "tabular" not in text
    assert r"\begin{longtable}" not in latex_table(pd.DataFrame({"x": range(LONG)}), "Short", "tab:short")


def test_a_notebooks_settings_of_pandas_cut_nothing_off() -> None:
    table = pd.DataFrame({f"c{column}": range(3) for column in range(4)})
    expected = latex_table(table, "All", "tab:all")
    with pd.option_context(
        "styler.render.max_rows", 1, "styler.render.max_columns", 1, "styler.render.max_elements", 1,
        "styler.latex.environment", "longtable", "styler.format.escape", "latex", "styler.latex.hrules", False,
    ):  # fmt: skip
        assert latex_table(table, "All", "tab:all") == expected


@pytest.mark.parametrize("rows", [1, LONG + 1])
def test_hostile_names_compile(tmp_path: Path, rows: int) -> None:
    """Captions, heads and cells alike; of these signs pandas' own escaping lets all but the first through."""
    hostile = [
        "a_b & 50 % of #1 {x} $y^2~", "[1] first", "*starred", '"quoted"', "a--b <c>|d`e", "2 × 3 − 1 ≥ σ…",
        "\u202egnp\u2069.exe", "\u200bbell\x07", "two\nlines\r\n\ttab", "$\\input{/etc/passwd}$ \\end{tabular} \\\\",
    ]  # fmt: skip
    for number, name in enumerate(hostile):
        table = pd.DataFrame({name: [name, *hostile[:-1]] * rows, "n": range(10 * rows)})
        text = latex_table(table, name, name)
        assert not set(text) & set("\u202e\u2069\u200b\x07\r\t")
        assert not re.search(r"(\\\\|rule|head|foot)\s*[\[*]", text)
        folder = tmp_path / str(number)
        folder.mkdir()
        check_fits(text, folder)


def test_columns_of_one_name_are_all_there() -> None:
    text = latex_table(pd.DataFrame([[1, 2.5]], columns=["x", "x"]), "Twice", "tab:twice")
    assert "x & x \\\\" in text and "1 & 2.5 \\\\" in text


def test_an_exported_table_is_balanced_ascii(study: Study, tmp_path: Path) -> None:
    """What is not ASCII would need an encoding that the paper may not have."""
    for options in ({}, {"name": "steps"}):
        text = export_figure(study, "patching", "svg", tmp_path, **options)[3].read_text()
        assert text.isascii()
        plain = re.sub(r"\\[{}]", "", text)
        assert plain.count("{") == plain.count("}")
        rows = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {5}
