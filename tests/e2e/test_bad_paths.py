"""Paths and numbers that cannot be used: one sentence, exit code 2, and nothing left behind."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.e2e.cli import Workbench, workbench
from tests.e2e.test_bad_input import assert_refused, study, traced
from workbench.cli.main import app
from workbench.cli.parsing import MAY_BE_EMPTY
from workbench.models import ORGANISMS

__all__ = ["study", "traced", "workbench"]


@pytest.mark.parametrize(
    "command",
    [
        "pairs build --out {file}/x",
        "pairs build --out {folder}",
        "pairs build --out {folder}/p.csv --report {file}/x",
    ],
)
def test_a_file_in_the_place_of_a_folder(workbench: Workbench, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    names = {name: tmp_path / name for name in ("file", "folder")}
    assert_refused(workbench(*command.format(**names).split()), "cannot be used", "Give another path")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pairs filter {new} --out {new} --margin nan", "finite number, not 'nan'"),
        ("pairs filter {new} --out {new} --margin inf", "at most 2"),
        ("import localisation {new} --out {new} --threshold inf", "at most"),
        ("patch {new} --question sets --greedy-fraction nan", "finite number, not 'nan'"),
        ("patch {new} --question sets --greedy-fraction inf", "at most 1.0, not 'inf'"),
        ("patch {new} --question sets --greedy-fraction -1", "at least 0.0, not '-1'"),
        ("patch {new} --question sets --greedy-fraction 2", "at most 1.0, not '2'"),
        ("trace {model} --out {new} --option cfg_interval_start=nan", "finite"),
        ("trace {model} --out {new} --guidance inf", "finite"),
        ("trace {model} --out {new} --option shift=inf", "finite"),
    ],
)
def test_absurd_numbers(workbench: Workbench, tmp_path: Path, command: str, words: str) -> None:
    outcome = workbench(*command.format(new=tmp_path / "new", model=ORGANISMS[0]).split())
    assert outcome.code == 2
    assert words in " ".join(outcome.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("patch --seeds 9999999999999", "--seeds': it must be at most 1000000"),
        ("patch --pairs 99999999999999999999999", "--pairs': it must be at most 1000000"),
        ("patch --screen velocity --top 99999999999999999999", "--top': it must be at most"),
        (
            "sae train --site tf0.cross_attn --train-steps 99999999999999",
            "--train-steps': it must be at most",
        ),
    ],
)
def test_absurd_numbers_of_a_study(workbench: Workbench, traced: Path, options: str, words: str) -> None:
    assert_refused(workbench(*options.split(), traced), words)
    assert not (traced / "results").exists()


def test_the_demonstration_follows_no_link(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo-finished").symlink_to(tmp_path / "elsewhere")
    assert_refused(workbench("demo", "--out", tmp_path / "demo", "--no-serve"), "link")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "command",
    [
        "patch {study} --pairs-file {large}.csv",
        "patch {study} --arms {large}.json",
        "pairs build --captions {large}.txt --out {new}",
        "pairs build --captions {large}.csv --out {new}",
        "pairs build --captions {large}.jsonl --out {new}",
        "pairs build --captions {large}.json --out {new}",
        "pairs build --captions {large}.parquet --out {new}",
        "pairs build --attribute-set {large}.yaml --out {new}",
        "pairs filter {large}.csv --out {new}",
        "pairs import {large}.csv --out {new}",
        "trace organism-shared --prompts {large}.yaml --out {new}",
        "import localisation {large}.csv --out {new}",
        "dashboard {study} --published {large}.csv",
    ],
)
def test_files_that_would_fill_the_memory_are_not_read(
    workbench: Workbench, traced: Path, tmp_path: Path, command: str
) -> None:
    for ending in ("csv", "json", "txt", "jsonl", "yaml", "parquet"):
        with (tmp_path / f"large.{ending}").open("wb") as file:
            os.truncate(file.fileno(), 2**40)  # takes no room on the disk
    names = {"study": traced, "large": tmp_path / "large", "new": tmp_path / "new"}
    assert_refused(workbench(*command.format(**names).split()), "large")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "command",
    [
        "patch {study} --pairs-file {folder}",
        "patch {study} --arms {folder}",
        "pairs build --captions {folder} --out {new}",
        "pairs build --attribute-set {folder} --out {new}",
        "pairs filter {folder} --out {new}",
        "pairs import {folder} --out {new}",
        "trace organism-shared --prompts {folder} --out {new}",
        "dashboard {study} --published {folder}",
    ],
)
def test_a_folder_in_the_place_of_a_file(
    workbench: Workbench, traced: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "folder").mkdir()
    names = {"study": traced, "folder": tmp_path / "folder", "new": tmp_path / "new"}
    assert_refused(workbench(*command.format(**names).split()), "is a folder, not a file. Give the path")
    assert not (tmp_path / "new").exists()


def _parameters() -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Every command's path with each of its parameters that takes text, and with the command."""
    groups: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    for path, command in groups:
        groups += [((*path, name), inner) for name, inner in getattr(command, "commands", {}).items()]
        for parameter in command.params if path else ():
            if not getattr(parameter, "is_flag", False) and parameter.name not in MAY_BE_EMPTY:
                yield path, command, parameter


@pytest.mark.parametrize(
    ("path", "command", "parameter", "empty"),
    [
        pytest.param(*each, ("", "  ")[number % 2], id=" ".join([*each[0], each[2].name]))
        for number, each in enumerate(_parameters())
    ],
)
def test_nothing_empty_is_taken_for_a_name_or_a_folder(
    workbench: Workbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    command: Any,
    parameter: Any,
    empty: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = []
    for each in command.params:
        value = empty if each is parameter else "x"
        if each.param_type_name == "argument":
            given.append(value)
        elif each is parameter:
            given += [each.opts[0], value]
    outcome = workbench(*path, *given)
    assert outcome.code == 2
    assert "must not be empty" in " ".join(outcome.err.replace("│", " ").split()), outcome.err
    assert not list(tmp_path.iterdir())


def test_lyrics_and_a_prefix_may_be_empty(workbench: Workbench, tmp_path: Path) -> None:
    assert_refused(workbench("dashboard", tmp_path, "--url-prefix", ""), "is not a study")
    assert_refused(workbench("trace", "nothing", "--out", tmp_path / "new", "--lyrics", ""), "Unknown model")
