"""Names that musicians give stand on paper, in LaTeX, in CSV and in files' names as they are."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure as Picture

from dashboards import export
from dashboards.drawing.fonts import FAMILY, families, missing_sentence
from dashboards.export import export_figure
from dashboards.figures import make_spec
from dashboards.latex import latex_table
from dashboards.names import printable, shortened
from dashboards.spreadsheet import csv_text
from tests.dashboards.synthetic_study import SAE_SITES
from workbench.studies.study import Study

NAMES: dict[str, str] = {
    "instrument": "Ba$$in $x^2$ \\frac{",
    "tempo": "<b>AC/DC</b> \"90%\" #1, 'a|b' &amp; %{x}",
    "mood": "שלום e\u0301 \u202egnorts\t\n=1+1",
    "drums": "-12 dB & more_than {ever} ~ 🎸 C♯",
}


@pytest.fixture(scope="module")
def named(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose concepts and values have other names."""
    folder = tmp_path_factory.mktemp("named") / "study"
    shutil.copytree(study.path, folder)
    renamed = Study.open(folder)
    for name in ("patching-blocks", "probes", "steering-tempo", *(f"sae-{site}" for site in SAE_SITES)):
        result = renamed.result(name)
        for coordinate in {"concept", "value"} & set(result.coords):
            values = [_renamed(str(value)) for value in result[coordinate].values]
            result = result.assign_coords({coordinate: values})
        if "label" in result:
            result["label"] = (
                "feature",
                [_renamed(label) if label else "" for label in result["label"].values],
            )
        if "concept" in result.attrs:
            result.attrs["concept"] = NAMES[result.attrs["concept"]]
        (folder / "results" / f"{name}.nc").unlink()
        result.to_netcdf(folder / "results" / f"{name}.nc", engine="h5netcdf")
    return renamed


def _renamed(value: str) -> str:
    concept, equals, rest = value.partition("=")
    return f"{NAMES[concept]}{equals}{rest}"


SELECTIONS: dict[str, dict[str, Any]] = {
    "patching": {},
    "patching-pairs": {"concept": NAMES["drums"], "arm": "tf3"},
    "probes": {"part": "mlp"},
    "probe-descriptors": {"part": "mlp"},
    "probe-folds": {"concept": NAMES["tempo"], "site": "tf4.mlp", "step": 4},
    "feature": {"feature": 7},
    "dose-response": {"concept": NAMES["drums"]},
    "steering-effects": {},
}


@pytest.mark.parametrize("figure", SELECTIONS)
@pytest.mark.parametrize("format", ["pdf", "svg", "png"])
def test_every_figure_takes_any_name(named: Study, tmp_path: Path, figure: str, format: str) -> None:
    told: list[str] = []
    files = export_figure(named, figure, format, tmp_path, warn=told.append, **SELECTIONS[figure])
    assert len(files) == 5
    assert all(file.parent == tmp_path for file in files)
    assert len(told) <= 1
    if format == "svg":
        assert "\u202e" not in files[0].read_text()


def test_no_dollar_begins_a_formula_on_paper(named: Study, tmp_path: Path) -> None:
    svg = export_figure(named, "patching", "svg", tmp_path, concept=NAMES["instrument"])[0].read_text()
    assert ">Ba$$in $x^2$ \\frac{</text>" in svg


def test_a_users_own_settings_of_matplotlib_change_nothing(study: Study, tmp_path: Path) -> None:
    first = export_figure(study, "patching", "svg", tmp_path / "a")[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "axes.grid": True}):
        second = export_figure(study, "patching", "svg", tmp_path / "b")[0].read_bytes()
    assert first == second


def test_letters_that_no_font_has_are_named_once() -> None:
    rare = "\U000f0000\U000f0001"  # of private use: no font has them
    with export._drawing("") as lacking:
        picture = Picture()
        picture.text(0, 0, f"{rare} and {rare}")
        export._render(picture, "png")
    assert lacking == list(rare)
    assert missing_sentence(lacking).count(rare[0]) == 1
    assert "and 92 more" in missing_sentence([chr(0xF0000 + number) for number in range(100)])


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[str]:
    """The name of a font that has 二 and 胡, known to matplotlib during one test."""
    family = "Tiny Hanzi"
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 700), (700, 700), (700, 0)):
        (pen.moveTo if point == (0, 0) else pen.lineTo)(point)
    pen.closePath()
    glyph = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "er", "hu"])
    font.setupCharacterMap({ord("二"): "er", ord("胡"): "hu"})
    font.setupGlyf({".notdef": glyph, "er": glyph, "hu": glyph})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "er", "hu"), (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable(
        {"familyName": family, "styleName": "Regular", "fullName": family, "psName": "TinyHanzi"}
    )
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "tiny.ttf")
    known = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "tiny.ttf")
    yield family
    font_manager.fontManager.ttflist = known


def test_installed_fonts_stand_in_for_letters_that_the_own_one_lacks(installed: str) -> None:
    assert families("tempo é ♭") == [FAMILY]
    assert installed in families("二胡 é")
    with export._drawing("二胡") as lacking:
        picture = Picture()
        picture.text(0, 0, "二胡")
        export._render(picture, "pdf")
    assert not lacking


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\there", "two lines here"),
        ("e\u0301", "é"),
        ("\u202eabc\u0000\x1b[0m", "abc[0m"),
        ("\U0001f3b8\ufe0f\u200d", "\U0001f3b8"),
        ("\ud800x", "x"),
    ],
)
def test_what_has_no_shape_is_left_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_names_keep_both_ends() -> None:
    assert shortened("a" * 50 + "b" * 50, 10) == "aaaaaa…bbb"
    assert shortened("short", 10) == "short"


def test_tables_of_any_names_have_balanced_braces_and_as_many_cells(named: Study, tmp_path: Path) -> None:
    text = export_figure(named, "patching", "svg", tmp_path)[3].read_text()
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    rows = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {5}, "four of the eight columns"
    body = re.sub(r"\\label\{.*\}|\$\^\\dagger\$|(?<=,)~", "", text[text.index(r"\begin{table}") :])
    assert not re.search(r"(?<!\\)[#%_~^]", body)
    assert "XeLaTeX" in text.splitlines()[0]


@pytest.mark.parametrize("name", ["[live]", "*", "[3pt]"])
def test_no_row_begins_with_an_option_of_the_row_before(name: str) -> None:
    text = latex_table(pd.DataFrame({"name": ["a", name], "n": [1, 2]}), "c", "l")
    assert not re.search(r"\\\\\s*[\[*]", text)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-12 dB", "@x", "\t=1", "\r=1", "a\rb", 'a,"b"\nc', "二胡"])
def test_csv_keeps_names_and_runs_none(name: str) -> None:
    text = csv_text(pd.DataFrame({"concept": [name, "x"], "impact": [-0.5, 1.0]}))
    read = pd.read_csv(io.StringIO(text))
    assert read["impact"].tolist() == [-0.5, 1.0]
    shown = read["concept"][0]
    assert shown.lstrip("'").strip("\t\n") == name.replace("\r", "\n").strip("\t\n")
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_names_that_look_alike_have_files_of_their_own(named: Study) -> None:
    spec = make_spec(named, "patching", {"concept": NAMES["instrument"]})
    names = ("a b", "a_b", "a/b", "A b")
    stems = {export._stem("patching", spec.model_copy(update={"concept": name})) for name in names}
    assert len(stems) == len(names)
    assert all(re.fullmatch(r"[\w.+=-]+", stem) and len(stem) <= 200 for stem in stems)
    long = spec.model_copy(update=dict.fromkeys(("concept", "column", "scorer"), "x" * 500))
    assert len(export._stem("patching", long)) < 200


def test_widths_have_files_of_their_own(study: Study, tmp_path: Path) -> None:
    names = [
        export_figure(study, "patching", "svg", tmp_path, width=width)[0].name
        for width in ("single", "double")
    ]
    assert names == ["patching-blocks-single-column.svg", "patching-blocks.svg"]
