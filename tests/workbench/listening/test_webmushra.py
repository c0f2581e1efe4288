"""webMUSHRA's configurations and result files, here and back."""

import csv
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import yaml

from analyses.listening.exclusions import exclusions
from analyses.listening.run import analysed
from analyses.listening.spec import ListeningSpec
from cache.errors import UserError
from tests.workbench.listening.small import make_small, simulate
from workbench.listening.answers import read_answers
from workbench.listening.exchange import export_study, import_study
from workbench.listening.folder import read_config
from workbench.listening.request import Design

CONFIGURATION = """
testname: Two codecs
testId: codecs
pages:
  - type: generic
    id: welcome
    content: Welcome
  - - random
    - type: mushra
      id: first
      name: First
      content: "How <b>good</b> is it?"
      reference: configs/resources/tone0.wav
      createAnchor35: true
      createAnchor70: false
      stimuli: {C1: configs/resources/much0.wav, C2: configs/resources/little0.wav}
    - - type: mushra
        id: second
        name: Second
        content:
        reference: configs/resources/tone1.wav
        createAnchor35: true
        stimuli: {C1: configs/resources/much1.wav, C2: configs/resources/little1.wav}
  - {type: finish, name: Thanks, writeResults: true}
"""
HEADER = (
    "session_test_id,email,age,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"
)
SCORES = {"C1": 30, "C2": 80, "reference": 100, "anchor35": 10}


export = partial(export_study, excluded=partial(exclusions, rules=ListeningSpec()), note=print)


def results(sessions: int = 1) -> str:
    """A result file with sessions of one address: as the original writes it, a row for each stimulus."""
    rows = [
        f"codecs,me@example.org,30,uuid-{session},{page},{name},{score},2500,"
        for session in range(sessions)
        for page in ("second", "first")
        for name, score in SCORES.items()
    ]
    return "\n".join([HEADER, *rows, ""])


@pytest.fixture
def server(table: Path, tmp_path: Path) -> Path:
    """A folder like webMUSHRA's."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "resources").symlink_to(table.parent)
    (tmp_path / "configs" / "codecs.yaml").write_text(CONFIGURATION)
    return tmp_path


def test_a_configuration_and_its_results_are_imported(server: Path) -> None:
    (server / "mushra.csv").write_text(results(sessions=2))
    out = server / "study"
    count = import_study(server / "configs" / "codecs.yaml", out, None, server / "mushra.csv", print)
    answers = read_answers(out)
    assert count == 2
    assert (answers.config.title, answers.config.questions) == ("Two codecs", ("How good is it?",))
    assert answers.config.items == ("first", "second")
    ratings = answers.ratings.pivot_table("rating", "item", "condition")
    assert ratings.loc["first"].to_dict() == {
        "C1": 30,
        "C2": 80,
        "anchor 3.5 kHz": 10,
        "hidden reference": 100,
    }
    listener, _ = answers.listeners.to_dict("records")
    assert listener["finished"] and listener["trials"] == 2 and listener["fast"] == 0
    stored = b"".join(file.read_bytes() for file in out.glob("answers*"))
    assert b"example.org" not in stored and b"uuid-0" not in stored


@pytest.mark.parametrize("design", ["pairs", "ratings", "mushra"])
def test_a_study_and_its_answers_survive_the_way_there_and_back(
    table: Path, tmp_path: Path, design: Design
) -> None:
    make_small(table, tmp_path / "study", design=design, items=2, any_device=True, checks=0)
    simulate(tmp_path / "study", 2)
    configuration, answers = export(tmp_path / "study", tmp_path / "web")
    assert import_study(configuration, tmp_path / "back", None, answers, print) == 2
    before, after = read_answers(tmp_path / "study"), read_answers(tmp_path / "back")
    assert after.config.conditions == before.config.conditions
    for name in ("preferences", "ratings"):
        rows = [getattr(each, name).to_dict("records") for each in (before, after)]
        assert rows[0] == rows[1], name
    assert (len(before.preferences) or len(before.ratings)) > 0


def test_result_files_have_the_columns_of_the_original(table: Path, tmp_path: Path) -> None:
    columns = {
        "mushra": [
            "session_uuid",
            "trial_id",
            "rating_stimulus",
            "rating_score",
            "rating_time",
            "rating_comment",
        ],
        "pairs": [
            *("trial_id", "choice_reference", "choice_non_reference", "choice_answer", "choice_time"),
            "choice_comment",
        ],
        "ratings": ["trial_id", "stimuli_rating1", "stimuli_rating2", "stimuli", "rating_time"],
    }
    for design, names in columns.items():
        make_small(table, tmp_path / design, design=design, items=1, any_device=True)
        simulate(tmp_path / design, 1)
        file = export(tmp_path / design, tmp_path / "web")[1]
        with file.open(newline="") as stream:
            assert next(csv.reader(stream)) == ["session_test_id", "listener", "excluded", *names]


def test_exclusions_and_all_numbers_survive_the_way_there_and_back(table: Path, tmp_path: Path) -> None:
    """One listener has not finished, another was wrong in a check, which webMUSHRA does not have."""
    make_small(table, tmp_path / "study", design="ratings", items=2, any_device=True, checks=1)
    store = simulate(tmp_path / "study", 4)
    steps = [listener.steps for listener in store.listeners()]
    checked = next(place for place, step in enumerate(steps[2]) if step.kind == "check")
    with closing(sqlite3.connect(store.file)) as database, database:
        database.execute("DELETE FROM answers WHERE listener = 0 AND step = ?", (len(steps[0]) - 2,))
        database.execute(
            "UPDATE answers SET answers = CASE answers WHEN '[0]' THEN '[1]' ELSE '[0]' END "
            "WHERE listener = 2 AND step = ?",
            (checked,),
        )
    configuration, answers = export(tmp_path / "study", tmp_path / "web")
    import_study(configuration, tmp_path / "back", None, answers, print)
    before, after = (analysed(read_answers(tmp_path / name), ListeningSpec()) for name in ("study", "back"))
    assert after["excluded"].values.tolist() == ["not finished", "", "1 attention check of 1 wrong", ""]
    assert after.identical(before)
    again = export(tmp_path / "back", tmp_path / "again")[1]
    assert again.read_text().replace("back", "study") == answers.read_text()


def _rewritten(answers: Path, change: str) -> None:
    """Sort the rows of a result file by page, repeat its first row at its end, or drop the listeners' column."""
    header, *rows = answers.read_text().splitlines()
    if "sorted" in change:
        rows.sort(key=lambda row: row.split(",")[header.split(",").index("trial_id")])
    if "repeated" in change:
        rows.append(rows[0])
    lines = [header, *rows]
    if "unnamed" in change:
        lines = [",".join([cells[0], *cells[3:]]) for cells in (line.split(",") for line in lines)]
    answers.write_text("\n".join([*lines, ""]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("", ""),
        ("sorted", ""),
        ("unnamed", ""),
        (
            "repeated",
            "row 19: the listener '0' answers 'some noise' of the page 'tune-0-0-0' again, after row 1. ",
        ),
        ("sorted unnamed", "does not tell which rows are of the same listener"),
        ("repeated unnamed", "does not tell which rows are of the same listener"),
    ],
)
def test_listeners_are_told_apart_whatever_the_order_of_the_rows(
    table: Path, tmp_path: Path, change: str, sentence: str
) -> None:
    make_small(table, tmp_path / "study", items=2, any_device=True, checks=0)
    simulate(tmp_path / "study", 3)
    configuration, answers = export(tmp_path / "study", tmp_path / "web")
    _rewritten(answers, change)
    if sentence:
        with pytest.raises(UserError, match=sentence):
            import_study(configuration, tmp_path / "back", None, answers, print)
        return
    assert import_study(configuration, tmp_path / "back", None, answers, print) == 3
    before, after = (
        read_answers(tmp_path / name).preferences.sort_values(["listener", "item", "first", "second"])
        for name in ("study", "back")
    )
    assert before.to_dict("records") == after.to_dict("records")


def test_ratings_are_exported_with_the_original_and_each_item_s_text(table: Path, tmp_path: Path) -> None:
    texts = tmp_path / "clips"
    texts.mkdir()
    for file in table.parent.glob("*.wav"):
        (texts / file.name).symlink_to(file)
    other = texts / "clips.csv"
    other.write_text(table.read_text().replace("tune 1,a clean tone", "tune 1,<another> tone"))
    config = make_small(other, tmp_path / "study", design="ratings", items=2, any_device=True, checks=0)
    (file,) = export(tmp_path / "study", tmp_path / "web")
    pages = {page["item"]: page for page in yaml.safe_load(file.read_text())["pages"][1][1:]}
    for trial in config.trials[1:]:
        source = f"configs/resources/study/{trial.reference}.wav"
        assert f'<audio controls preload="auto" src="{source}">' in pages[trial.item]["content"]
        assert (tmp_path / "web" / source).is_file()
    # In webMUSHRA's reader, a list cannot begin in the line of the one around it.
    assert not [line for line in file.read_text().splitlines() if line.lstrip().startswith("- -")]
    assert "“&lt;another&gt; tone”" in pages["tune 1"]["content"]
    import_study(file, tmp_path / "back", None, None, print)
    back = read_config(tmp_path / "back")
    assert back.questions == config.questions
    assert [trial.text for trial in back.trials[1:]] == [trial.text for trial in config.trials[1:]]
    assert all(trial.reference for trial in back.trials)


def test_names_that_webmushra_gives_itself_are_not_exported(table: Path, tmp_path: Path) -> None:
    other = table.with_name("named.csv")
    other.write_text(table.read_text().replace("little noise", "anchor35"))
    make_small(other, tmp_path / "mushra", design="mushra", items=1)
    with pytest.raises(UserError, match="gives the name 'anchor35' itself"):
        export(tmp_path / "mushra", tmp_path / "web")
    assert not (tmp_path / "web").exists()
    pairs = make_small(other, tmp_path / "pairs", items=1, any_device=True, checks=0)
    (file,) = export(tmp_path / "pairs", tmp_path / "web")
    import_study(file, tmp_path / "back", None, None, print)
    assert read_config(tmp_path / "back").conditions == pairs.conditions


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("createAnchor35: true", "createAnchor35: false"), "must have the low anchor"),
        (("createAnchor70: false", "createAnchor70: true"), "createAnchor70 is not supported"),
        (("type: mushra", "type: bs1116"), "must have pages of one of the types"),
        (("pages:", "sides:"), "no list of pages"),
        (("resources/much0.wav", "resources/none.wav"), "There is no file"),
        (("      id: first\n", ""), "the id of a page must not be empty"),
    ],
)
def test_what_does_not_fit_is_refused(server: Path, change: tuple[str, str], sentence: str) -> None:
    file = server / "configs" / "codecs.yaml"
    file.write_text(CONFIGURATION.replace(*change))
    with pytest.raises(UserError, match=sentence):
        import_study(file, server / "study", None, None, print)
    assert not (server / "study").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("first", "third"), "the page 'third'"),
        (("C2,80", "C2,180"), "scores are from 0 to 100"),
        (("C2,80", "C3,80"), "exactly the stimuli"),
        (("rating_score", "score"), "must have the column 'rating_score'"),
    ],
)
def test_results_that_do_not_fit_leave_nothing(server: Path, change: tuple[str, str], sentence: str) -> None:
    (server / "mushra.csv").write_text(results().replace(*change))
    with pytest.raises(UserError, match=sentence):
        import_study(server / "configs" / "codecs.yaml", server / "study", None, server / "mushra.csv", print)
    assert not (server / "study").exists()
