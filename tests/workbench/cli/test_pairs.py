"""`workbench pairs ...`: what is written and printed, and one sentence for each mistake."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from workbench import scorers
from workbench.cli.main import main
from workbench.cli.pairs import app
from workbench.prompts.pair_files import load_pairs

CAPTIONS = ["A fast violin", "Violins, a trumpet", "a piano", "no violin", "a quick violin"]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(CAPTIONS))
    return file


def run(*words: Any) -> Result:
    """Run a command of `workbench pairs` as typer does."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.exception
    return result


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The sentence with which the whole program refuses a command line with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["workbench", "pairs", *map(str, words)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def test_build_from_captions(captions: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out" / "pairs.csv", tmp_path / "out" / "report.csv"
    result = run(
        "build",
        "--captions",
        captions,
        "--out",
        out,
        "--report",
        report,
        "--attribute",
        "violin",
        "--attribute",
        "fast",
    )
    assert result.stdout.split()[-1] == str(out)
    assert "1 dropped: the caption also has a word of the counterfactual attribute" in result.stdout
    loaded = load_pairs(out)
    assert [pair.corrupt.text for pair in loaded["violin"]] == ["A fast trumpet", "a quick trumpet"]
    assert [pair.corrupt.text for pair in loaded["fast"]] == ["A slow violin", "a leisurely violin"]
    table = pd.read_csv(report)
    assert table["kept"].tolist() == [True, False, False, True, True, True]


def test_build_with_a_limit_and_by_tokens(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run("build", "--captions", captions, "--out", out, "--attribute", "fast", "--limit", 1)
    assert [pair.clean.text for pair in load_pairs(out)["fast"]] == ["A fast violin"]
    by_tokens = ("--alignment", "tokens", "--tokenizer", "organism-shared")
    run("build", "--captions", captions, "--out", out, "--attribute", "fast", *by_tokens)
    assert len(load_pairs(out)["fast"]) == 2


def test_build_from_a_csv_column_with_own_attributes(tmp_path: Path) -> None:
    table, attributes, out = (tmp_path / name for name in ("captions.csv", "own.yaml", "pairs.csv"))
    table.write_text("what\na kazoo\n")
    attributes.write_text("kazoo: {counterfactual: comb, text: buzz, swaps: {kazoo: comb}}")
    run("build", "--captions", table, "--column", "what", "--attribute-set", attributes, "--out", out)
    (pair,) = load_pairs(out)["kazoo"]
    assert (pair.corrupt.text, pair.corrupt_value, pair.text) == ("a comb", "comb", "buzz")


def test_build_without_a_file_takes_the_prompts_of_a_prompt_set(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run("build", "--out", out)
    loaded = load_pairs(out)
    assert {name: len(pairs) for name, pairs in loaded.items()} == {
        "female": 8, "male": 8, "fast": 28, "slow": 28, "happy": 28, "sad": 28, "violin": 8, "trumpet": 8,
        "drums": 28, "flute": 8,
    }  # fmt: skip
    run(
        "build",
        "--out",
        out,
        "--prompts",
        "organism",
        "--n-prompts",
        4,
        "--seed",
        1,
        "--attribute",
        "slow",
        "--attribute",
        "fast",
    )
    assert sum(len(pairs) for pairs in load_pairs(out).values()) == 4


class TextLength:
    """A scorer to which a text is the more similar to any other the shorter it is."""

    name = "length"
    identity = "length"
    min_seconds = 0.0

    def check_texts(self, texts: Sequence[str]) -> None:
        raise AssertionError("no text is refused")

    def score(self, audio: Any, sample_rate: int, texts: Sequence[str]) -> Any:
        raise AssertionError("no audio is scored")

    def compare_texts(self, captions: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        return np.array([[1 / len(caption)] * len(texts) for caption in captions])


def test_filter(captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, out, report = (tmp_path / name for name in ("built.csv", "pairs.csv", "report.csv"))
    run("build", "--captions", captions, "--out", built, "--attribute", "fast")
    asked = []
    monkeypatch.setattr(
        scorers, "load_scorer", lambda name, **options: asked.append((name, options)) or TextLength()
    )
    result = run("filter", built, "--out", out, "--report", report, "--margin", 0.001)
    assert asked == [("clap", {"device": "cpu"})]
    assert [pair.clean.text for pair in load_pairs(out)["fast"]] == ["a quick violin"]
    assert "1 dropped: the scorer's text does not distinguish the two texts" in result.stdout
    assert pd.read_csv(report)["corrupted_similarity"].tolist() == pytest.approx([1 / 13, 1 / 18])


def test_import(tmp_path: Path) -> None:
    source, out = tmp_path / "paper.csv", tmp_path / "pairs.csv"
    source.write_text(
        "original_feature,clean_prompt,corrupted_prompt\nsad,a sad song,a happy song\nslow,x,y\n"
    )
    result = run("import", source, "--out", out)
    assert [line.split() for line in result.stdout.splitlines()[:3]] == [
        ["sad", "1"],
        ["slow", "1"],
        ["all", "2"],
    ]
    assert load_pairs(out)["sad"][0].corrupt_value == "happy"
    assert load_pairs(out) == load_pairs(source)
    run("import", source, "--out", out, "--attribute", "slow")
    assert list(load_pairs(out)) == ["slow"]


def test_import_leaves_bad_rows_out_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "paper.csv", tmp_path / "pairs.csv"
    source.write_text("original_feature,clean_prompt,corrupted_prompt\nsad,a,a\nsad,a,b\nsad,a,b\nsad,c,c\n")
    sentence = refusal(monkeypatch, capsys, "import", source, "--out", out)
    assert "row 1: clean_prompt and corrupted_prompt are equal, and 2 more rows are invalid" in sentence
    assert not out.exists()
    result = run("import", source, "--out", out, "--skip-bad")
    assert "2 left out: clean_prompt and corrupted_prompt are equal" in result.stdout
    assert "1 left out: the row is a duplicate" in result.stdout
    assert [pair.corrupt.text for pair in load_pairs(out)["sad"]] == ["b"]


def test_attributes_are_listed() -> None:
    lines = run("attributes").stdout.splitlines()
    assert len(lines) == 21
    assert lines[10].startswith("violin → trumpet (text: violin): violin → trumpet, violins → trumpets")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("build", "--captions", "nowhere.txt", "--out", "x.csv"), "There is no file nowhere.txt"),
        (
            ("build", "--out", "x.csv", "--attribute", "kazoo"),
            "Unknown attribute 'kazoo'. Attributes: female",
        ),
        (
            ("build", "--out", "x.csv", "--attribute", "cello"),
            "None of the 56 captions has a word of these attributes",
        ),
        (
            ("build", "--out", "x.csv", "--alignment", "tokens"),
            "--alignment tokens and --tokenizer go together",
        ),
        (("build", "--out", "x.csv", "--tokenizer", "organism-shared"), "--tokenizer go together"),
        (("build", "--out", "x.csv", "--prompts", "nothing"), "Unknown prompt set 'nothing'"),
        (("build", "--out", "x.csv", "--attribute-set", "nothing"), "Unknown attribute set 'nothing'"),
        (("filter", "nowhere.csv", "--out", "x.csv"), "There is no file nowhere.csv"),
        (("import", "nowhere.csv", "--out", "x.csv"), "There is no file nowhere.csv"),
    ],
)
def test_mistakes(
    words: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(monkeypatch, capsys, *words)
    assert not Path("x.csv").exists()


def test_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out, report = (tmp_path / name for name in ("captions.txt", "pairs.csv", "report.csv"))
    captions.write_text("no violin")
    sentence = refusal(monkeypatch, capsys, "build", "--captions", captions, "--out", out, "--report", report)
    assert "No pair was kept, so" in sentence
    assert pd.read_csv(report)["reason"].tolist() == ["the caption negates the attribute"]
    assert not out.exists()
    source = tmp_path / "bad.csv"
    source.write_text("original_feature,clean_prompt,corrupted_prompt\nsad,a,a\n")
    for option in (("--skip-bad",), ("--attribute", "slow")):
        sentence = refusal(monkeypatch, capsys, "import", source, "--out", out, *option)
        assert "has no pairs to import" in sentence
