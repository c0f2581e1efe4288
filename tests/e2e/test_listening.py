"""`workbench listen`: from a table of files to a table of scores."""

from pathlib import Path

import pytest

from tests.e2e.cli import Workbench, workbench
from tests.workbench.listening.small import simulate, write_table

__all__ = ["workbench"]


def test_a_table_of_files_becomes_a_table_of_scores(workbench: Workbench, tmp_path: Path) -> None:
    table, study = write_table(tmp_path, items=3), tmp_path / "study"
    outcome = workbench("listen", "make", "--table", table, "--out", study, "--items", 2, "--any-device")
    assert outcome.code == 0, outcome
    assert "6 trials of 2 items and 3 conditions" in " ".join(outcome.out.split())
    simulate(study, 5)
    outcome = workbench("listen", "analyse", study)
    assert outcome.code == 0, outcome
    assert "5 listeners of 5" in outcome.out and "little noise" in outcome.out
    assert {"analysis.nc", "analysis.csv", "analysis.tex"} <= {file.name for file in study.iterdir()}
    outcome = workbench("listen", "export", study, "--out", tmp_path / "web")
    assert outcome.code == 0, outcome
    assert "not which is better" in " ".join(outcome.err.split())  # what webMUSHRA asks about pairs
    configuration, answers = outcome.out.split()
    outcome = workbench("listen", "import", configuration, "--answers", answers, "--out", tmp_path / "back")
    assert outcome.code == 0 and "answers of 5 listeners" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("make", "--out", "new"), "Give either a study folder or a table"),
        (("make", "none", "--table", "clips.csv", "--out", "new"), "Give either a study folder or a table"),
        (("make", "none", "--out", "new"), "is not a study"),
        (("make", "--table", "clips.csv", "--out", "clips.csv"), "exists already"),
        (("make", "--table", "clips.csv", "--out", "new", "--way", "vector"), "--way and --strength are for a study"),
        (("make", "--table", "clips.csv", "--out", "new", "--question", "a", "--question", "b"), "has one question"),
        (("make", "--table", "clips.csv", "--out", "new", "--strength", "x"), "must be a number"),
        (("serve", "none"), "is not a listening study"),
        (("serve", "none", "--host", "0.0.0.0"), "--listeners"),
        (("analyse", "none"), "is not a listening study"),
        (("export", "none", "--out", "new"), "is not a listening study"),
        (("import", "none.yaml", "--out", "new"), "There is no file none.yaml"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence_and_write_nothing(
    workbench: Workbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    write_table(tmp_path, items=1)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = workbench("listen", *arguments)
    assert outcome.code == 2
    assert words in " ".join(outcome.err.split()) and "Traceback" not in outcome.err
    assert sorted(tmp_path.iterdir()) == before
