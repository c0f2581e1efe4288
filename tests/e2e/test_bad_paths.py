"""Paths and numbers that cannot be used: one sentence, exit code 2, and nothing left behind."""

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.cli import Workbench, workbench
from tests.e2e.test_bad_input import assert_refused, study, traced
from workbench.models import ORGANISMS, model_source

__all__ = ["study", "traced", "workbench"]


@pytest.mark.parametrize(
    "command",
    [
        "organism synth --clips 1 --seconds 0.1 --out {file}",
        "organism synth --clips 1 --seconds 0.1 --out {file}/x",
        "organism train --blocks 3,4 --out {file}",
        "pairs build --out {file}/x",
        "pairs build --out {folder}",
        "pairs build --out {folder}/p.csv --report {file}/x",
    ],
)
def test_a_file_in_the_place_of_a_folder(workbench: Workbench, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    names = {name: tmp_path / name for name in ("file", "folder")}
    assert_refused(workbench(*command.format(**names).split()), "cannot be used", "give another path")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("organism synth --seconds inf --out {new}", "at most 1200"),
        ("organism synth --seconds nan --out {new}", "not 'nan'"),
        ("organism synth --seconds 1e12 --out {new}", "at most 1200"),
        ("organism synth --clips 99999999999999999999 --out {new}", "at most 1000000"),
        ("organism train --blocks 3,4 --clips 99999999999 --out {new}", "at most 1000000"),
        ("organism train --blocks ² --out {new}", "blocks are 0 to 7"),
        ("organism evaluate {new} --prompts 99999999999", "at most 100000"),
        ("pairs filter {new} --out {new} --margin nan", "not 'nan'"),
        ("pairs filter {new} --out {new} --margin inf", "at most 2"),
        ("import localisation {new} --out {new} --threshold inf", "at most"),
        ("trace {model} --out {new} --guidance inf", "finite"),
        ("trace {model} --out {new} --shift inf", "finite"),
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
        ("patch --seeds 9999999999999", "seeds must be at most 1000000"),
        ("patch --pairs 99999999999999999999999", "pairs must be at most 1000000"),
        ("patch --screen velocity --top 99999999999999999999", "top must be at most"),
        ("sae --site tf0.cross_attn --train-steps 99999999999999", "train_steps must be at most"),
    ],
)
def test_absurd_numbers_of_a_study(workbench: Workbench, traced: Path, options: str, words: str) -> None:
    name, *rest = options.split()
    assert_refused(workbench(name, traced, *rest), words)
    assert not (traced / "results").exists()


@pytest.mark.parametrize("command", ["organism scorer --out {new} --vae", "organism evaluate"])
@pytest.mark.parametrize("what", ["empty", "nowhere", "file", "half"])
def test_organism_commands_refuse_folders_without_a_model(
    workbench: Workbench, tmp_path: Path, command: str, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"_class_name": "AutoencoderOobleck"}')
    (tmp_path / "half" / "model_index.json").write_text('{"_class_name": "AceStepPipeline"}')
    arguments = command.format(new=tmp_path / "new.npz").split()
    assert_refused(workbench(*arguments, tmp_path / what), str(tmp_path / what))
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("note", ["truth.json", "recipe.json"])
@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"[1]"])
def test_an_organism_without_its_notes_is_not_evaluated(
    workbench: Workbench, tmp_path: Path, note: str, content: bytes | None
) -> None:
    folder = shutil.copytree(model_source(ORGANISMS[0]), tmp_path / "organism")
    (folder / note).unlink()
    if content is not None:
        (folder / note).write_bytes(content)
    assert_refused(workbench("organism", "evaluate", folder), "missing or damaged", str(folder))


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
        "pairs build --feature-set {large}.yaml --out {new}",
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
