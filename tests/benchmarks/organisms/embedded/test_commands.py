"""The commands `train`, `synth` and `evaluate`."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from benchmarks.organisms.__main__ import app
from benchmarks.organisms.embedded import card, train
from benchmarks.organisms.embedded.train import Recipe
from benchmarks.organisms.labels import CONCEPTS
from benchmarks.organisms.planting import Plan
from benchmarks.organisms.synth import clip_labels, labelled_clip
from cache.errors import UserError
from tests.e2e.cli import Workbench, runner
from tests.e2e.test_bad_input import assert_refused
from workbench.cli.main import run
from workbench.models import ORGANISMS, model_source


def test_synth_writes_clips_and_their_labels(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synth", "--out", str(tmp_path), "--clips", "3", "--seed", "5"])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "labels.csv")
    assert table["file"].tolist() == ["00000.flac", "00001.flac", "00002.flac"]
    for index, row in table.iterrows():
        labels = clip_labels(5, int(str(index)))
        assert row["prompt"] == labels.prompt
        assert [row[concept] for concept in CONCEPTS] == [labels.value(concept) for concept in CONCEPTS]
        audio, sample_rate = soundfile.read(tmp_path / row["file"])
        assert sample_rate == 16_000
        assert abs(audio - labelled_clip(5, int(str(index)))[0]).max() < 1e-4


def test_train_passes_its_options_on_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def pretend(out: Path, name: str, plan: Plan, recipe: Recipe, device: torch.device) -> Path:
        seen.update(out=out, name=name, plan=plan, recipe=recipe, device=device)
        return out / name

    metrics = {"prompt_following": {"mood": 0.5}}
    monkeypatch.setattr(train, "train", pretend)
    monkeypatch.setattr(card, "evaluate", lambda folder, evaluation, device: {"n": evaluation.prompts})
    monkeypatch.setattr(card, "write_card", lambda folder, _: {"metrics": metrics, "misses": ["mood: low"]})
    options = ["--blocks", "3,4", "--name", "mine", "--seed", "7", "--vae-steps", "2", "--dit-steps", "3"]
    result = CliRunner().invoke(app, ["train", "--out", str(tmp_path), *options, "--prompts", "4"])
    assert result.exit_code == 0, result.output
    recipe = seen["recipe"]
    assert isinstance(recipe, Recipe)
    assert (recipe.seed, recipe.vae.steps, recipe.dit.steps) == (7, 2, 3)
    assert (recipe.vae.batch, recipe.dit.batch) == (Recipe().vae.batch, Recipe().dit.batch)
    assert seen["name"] == "mine" and seen["plan"] == {3: tuple(CONCEPTS), 4: tuple(CONCEPTS)}
    assert "mood: 0.500 of 4 prompts followed" in result.output
    assert "target missed: mood: low" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "--out", "x", "--blocks", "9"], "blocks are 0 to 7"),
        (["train", "--out", "x", "--blocks", "3", "--device", "tpu"], "Give one of cpu, cuda"),
        (["evaluate", "nowhere"], "no organism in nowhere"),
    ],
)
def test_wrong_wishes_get_one_clear_sentence(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=complaint):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def organisms(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workbench:
    """`organisms("synth", "--out", folder)` runs `python -m benchmarks.organisms` so."""
    return runner(lambda: run(app), monkeypatch, capsys)


@pytest.mark.parametrize(
    "command",
    [
        "synth --clips 1 --seconds 0.1 --out {file}",
        "synth --clips 1 --seconds 0.1 --out {file}/x",
        "train --blocks 3,4 --out {file}",
    ],
)
def test_a_file_in_the_place_of_a_folder(organisms: Workbench, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    arguments = command.format(file=tmp_path / "file").split()
    assert_refused(organisms(*arguments), "cannot be used", "Give another path")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("synth --seconds inf --out {new}", "at most 1200"),
        ("synth --seconds nan --out {new}", "not 'nan'"),
        ("synth --seconds 1e12 --out {new}", "at most 1200"),
        ("synth --clips 99999999999999999999 --out {new}", "at most 1000000"),
        ("train --blocks 3,4 --clips 99999999999 --out {new}", "at most 1000000"),
        ("train --blocks ² --out {new}", "blocks are 0 to 7"),
        ("evaluate {new} --prompts 99999999999", "at most 100000"),
    ],
)
def test_absurd_numbers(organisms: Workbench, tmp_path: Path, command: str, words: str) -> None:
    outcome = organisms(*command.format(new=tmp_path / "new").split())
    assert outcome.code == 2
    assert words in " ".join(outcome.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["scorer --out {new} --vae", "evaluate"])
@pytest.mark.parametrize("what", ["empty", "nowhere", "file", "half"])
def test_organism_commands_refuse_folders_without_a_model(
    organisms: Workbench, tmp_path: Path, command: str, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"_class_name": "AutoencoderOobleck"}')
    (tmp_path / "half" / "model_index.json").write_text('{"_class_name": "AceStepPipeline"}')
    arguments = command.format(new=tmp_path / "new.npz").split()
    assert_refused(organisms(*arguments, tmp_path / what), str(tmp_path / what))
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("note", ["truth.json", "recipe.json"])
@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"[1]"])
def test_an_organism_without_its_notes_is_not_evaluated(
    organisms: Workbench, tmp_path: Path, note: str, content: bytes | None
) -> None:
    folder = shutil.copytree(model_source(ORGANISMS[0]), tmp_path / "organism")
    (folder / note).unlink()
    if content is not None:
        (folder / note).write_bytes(content)
    assert_refused(organisms("evaluate", folder), "missing or damaged", str(folder))
