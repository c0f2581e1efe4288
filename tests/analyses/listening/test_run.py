"""The whole analysis: the true order is found, and listeners are excluded by the rules."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyses.listening.exclusions import exclusions
from analyses.listening.run import RESULT, analyse, analysed
from analyses.listening.spec import ListeningSpec
from cache.errors import UserError
from dashboards.listening.report import excluded_table, main_table, sentences, write_tables
from tests.workbench.listening.small import NOISES, TRUE, make_small, simulate, write_table
from workbench.listening.answers import Answers, read_answers
from workbench.studies.result_files import load_result_file

LISTENERS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("listening")
    table = write_table(folder, items=3)
    for design in ("pairs", "mushra"):
        make_small(table, folder / design, design=design, items=3, any_device=True, checks=1)
        simulate(folder / design, LISTENERS)
    return {design: folder / design for design in ("pairs", "mushra")}


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path]) -> dict[str, Answers]:
    return {design: read_answers(folder) for design, folder in folders.items()}


def test_the_true_ranking_is_found(folders: dict[str, Path]) -> None:
    analyse(folders["pairs"], ListeningSpec())
    result = load_result_file(folders["pairs"], RESULT)
    true = np.array([TRUE[name] for name in result["condition"].values])
    assert ((result["score_lo"] <= true) & (true <= result["score_hi"])).all()
    assert result["rank"].values.tolist() == [3, 2, 1]
    assert ((result["rank_lo"] <= result["rank"]) & (result["rank"] <= result["rank_hi"])).all()
    assert result["n"].values.tolist() == [LISTENERS * 3 * 2] * 3
    share = result["preferred"].transpose("condition", "other").values
    assert share + share.T == pytest.approx(np.where(np.eye(3), np.nan, 1), nan_ok=True)
    assert result.attrs["n_listeners"] == LISTENERS and 0 < float(result["alpha"]) < 1


def test_a_mushra_study_has_means_of_all_and_a_model_of_the_conditions(answers: dict[str, Answers]) -> None:
    result = analysed(answers["mushra"], ListeningSpec()).isel(question=0)
    mean = result["mean"].to_series()
    assert mean["hidden reference"] == 100 and mean["anchor 3.5 kHz"] == 20
    assert [mean[name] for name in NOISES] == pytest.approx([60 + 15 * TRUE[name] for name in NOISES], abs=3)
    known = result["modelled"].notnull().to_series()
    assert known.to_dict() == {name: name in NOISES for name in known.index}


@pytest.mark.parametrize(
    ("column", "value", "spec", "reason"),
    [
        ("checks", 0, {}, "1 attention check of 1 wrong"),
        ("checks", 0, {"wrong_checks": 1}, ""),
        ("finished", False, {}, "not finished"),
        ("fast", 0.3, {}, "30% of the trials answered faster than the clips play"),
        ("fast", 0.3, {"fast": 0.3}, ""),
    ],
)
def test_listeners_are_excluded_by_stated_rules(
    answers: dict[str, Answers], column: str, value: object, spec: dict[str, float], reason: str
) -> None:
    listeners = answers["pairs"].listeners.copy()
    listeners.loc[2, column] = value
    found = exclusions(replace(answers["pairs"], listeners=listeners), ListeningSpec(**spec))
    assert found == {number: reason if number == 2 else "" for number in range(LISTENERS)}


@pytest.mark.parametrize(("low", "reason"), [(0, ""), (1, "hidden reference below 90 in 33% of the trials")])
def test_listeners_who_do_not_hear_the_hidden_reference_are_excluded(
    answers: dict[str, Answers], low: int, reason: str
) -> None:
    """BS.1534-3: below 90 in more than 15 % of the trials."""
    ratings = answers["mushra"].ratings.copy()
    hidden = ratings.index[(ratings["role"] == "hidden reference") & (ratings["listener"] == 5)]
    ratings.loc[hidden, "rating"] = [90.0] * len(hidden)
    ratings.loc[hidden[:low], "rating"] = 89.0
    assert exclusions(replace(answers["mushra"], ratings=ratings), ListeningSpec())[5] == reason


def test_tables_say_who_is_left_out(answers: dict[str, Answers], tmp_path: Path) -> None:
    listeners = answers["pairs"].listeners.assign(finished=lambda table: table["listener"] > 1)
    result = analysed(replace(answers["pairs"], listeners=listeners), ListeningSpec())
    assert excluded_table(result)["listener"].to_list() == [0, 1]
    table = main_table(result)
    assert table["condition"].to_list() == list(reversed(NOISES))
    assert sentences(result)[0] == "10 listeners of 12; intervals over listeners."
    csv, tex = write_tables(tmp_path, result)
    assert csv.read_text().splitlines()[0] == "condition,score,score_lo,score_hi,rank,rank_lo,rank_hi,n"
    assert "little noise" in tex.read_text() and "Davidson" in tex.read_text()


def test_one_listener_gives_no_intervals(answers: dict[str, Answers]) -> None:
    """Not those of ranks either: the loser's would be the first rank."""
    listeners = answers["pairs"].listeners.assign(finished=lambda table: table["listener"] == 0)
    result = analysed(replace(answers["pairs"], listeners=listeners), ListeningSpec())
    assert result["rank"].notnull().all()
    for name in ("score_lo", "score_hi", "rank_lo", "rank_hi"):
        assert result[name].isnull().all(), name
    assert main_table(result)["ranks"].to_list() == ["undefined"] * 3


def test_if_all_are_excluded_there_is_no_result(answers: dict[str, Answers]) -> None:
    listeners = answers["pairs"].listeners.assign(finished=False)
    with pytest.raises(UserError, match="All 12 listeners are excluded, the first for: not finished"):
        analysed(replace(answers["pairs"], listeners=listeners), ListeningSpec())
