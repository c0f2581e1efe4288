"""webMUSHRA's configurations and result files, here and back."""

import csv
from pathlib import Path

import pytest

from cache.errors import UserError
from tests.workbench.listening.small import make_small, simulate
from workbench.listening.answers import read_answers
from workbench.listening.exchange import export_study, import_study
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
    configuration, answers = export_study(tmp_path / "study", tmp_path / "web")
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
        file = export_study(tmp_path / design, tmp_path / "web")[1]
        with file.open(newline="") as stream:
            assert next(csv.reader(stream)) == ["session_test_id", "listener", *names]


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
