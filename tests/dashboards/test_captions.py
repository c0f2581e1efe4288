"""Captions say what was measured and how; tables are LaTeX that compiles."""

import re
from pathlib import Path

import pandas as pd
import pytest

from dashboards.captions import patching_table
from dashboards.export import export_figure
from dashboards.figures import FIGURES, make_spec
from dashboards.latex import LONG, escape, latex_table
from tests.dashboards.synthetic_study import STOPPED
from workbench.studies.study import Study


def caption(study: Study, figure: str, /, **options: object) -> str:
    spec = make_spec(study, figure, options)
    return FIGURES[figure].caption(study, spec, FIGURES[figure].frame(study, spec))


@pytest.mark.parametrize(
    "words",
    [
        "by block (rows) and concept (columns) (sufficiency, necessity)",
        "scorer embedded",
        "tempo: 12 pairs × 2 seeds (n = 24), denominator (clean − corrupt) 0.60 [0.50, 0.70]",
        "null band [−0.05, 0.07]",
        "stability 0.93 [0.81, 0.98]",
        "agreement with clap 0.87",
        "95 % BCa bootstraps over pairs",
        "p > 0.05 after Benjamini–Hochberg over 60 cells",
        "fraction of the concept that is restored",
        "share of the concept that is lost",
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
    assert "agreement with embedded 0.87" in told
    assert "over 96 cells" in told
    assert "truth card" in told
    assert "drums" not in told
    assert "necessity" not in told.lower()


def test_what_one_patch_moves_says_its_test(study: Study) -> None:
    told = caption(study, "patching-pairs", concept="drums", arm="tf3 necessity")
    for words in ("drums (block tf3, necessity)", "clean − patched and clean − corrupt", "0.78 [0.72, 0.83]"):
        assert words in told
    assert "p = 0.002, 0.003 after Benjamini–Hochberg over 60 cells" in told


def test_other_figures_say_what_they_show(study: Study) -> None:
    assert "selectivity" in caption(study, "probes", quantity="selectivity")
    assert "tempo at tf3.mlp, step 2" in caption(
        study, "probe-folds", concept="tempo", site="tf3.mlp", step=2
    )
    assert "explained variance 0.921" in caption(study, "sae-training")
    assert "Feature 7" in caption(study, "feature", feature=7)
    assert "clip 3" in caption(study, "feature-clip", feature=5, clip=3)


def test_the_table_of_a_map_has_each_number_with_its_interval(study: Study) -> None:
    table = patching_table(FIGURES["patching"].frame(study, make_spec(study, "patching", {}))).set_index("")
    assert table.loc["tf3", "tempo (sufficiency)"] == "0.93 [0.87, 0.98]"
    assert table.loc["tf3", "tempo (necessity)"] == "0.74 [0.68, 0.79]"
    assert table.loc["tf0", "tempo (sufficiency)"] == "0.00 [−0.06, 0.05]†"
    assert table.loc["tf3", "mood (sufficiency)"] == "undefined"
    assert list(table.index)[:2] == ["tf0", "tf1"]
    assert table.loc["null: random (largest of 8)", "tempo (necessity)"] == ""


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


def test_an_exported_table_is_balanced_ascii(study: Study, tmp_path: Path) -> None:
    """What is not ASCII would need an encoding that the paper may not have."""
    for options in ({}, {"name": "steps"}):
        text = export_figure(study, "patching", "svg", tmp_path, **options)[3].read_text()
        assert text.isascii()
        plain = re.sub(r"\\[{}]", "", text)
        assert plain.count("{") == plain.count("}")
        rows = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {5}
