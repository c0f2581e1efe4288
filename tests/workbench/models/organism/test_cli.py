"""The commands `organism train`, `synth` and `evaluate`."""

from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from cache.errors import UserError
from workbench.cli.organism import app
from workbench.models.organism import card, train
from workbench.models.organism.labels import CONCEPTS
from workbench.models.organism.planting import Plan
from workbench.models.organism.synth import clip_labels, labelled_clip
from workbench.models.organism.train import Recipe


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

    figures = {"prompt_following": {"mood": 0.5}}
    monkeypatch.setattr(train, "train", pretend)
    monkeypatch.setattr(card, "evaluate", lambda folder, evaluation, device: {"n": evaluation.prompts})
    monkeypatch.setattr(card, "write_card", lambda folder, _: {"figures": figures, "misses": ["mood: low"]})
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
        (["train", "--out", "x", "--blocks", "3", "--device", "tpu"], "give one of cpu, cuda"),
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
