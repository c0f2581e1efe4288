"""Evaluation and cards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.organisms.embedded.card import (
    Evaluation,
    evaluate,
    held_out_prompts,
    misses,
    shown,
    signal_to_noise,
    write_card,
)
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.synth import dataset
from workbench.models import model_source
from workbench.provenance import weights_hash
from workbench.scorers.embedded import EmbeddedScorer


def metrics(following: float = 1.0, kept: float = 1.0) -> dict:
    return {
        "settings": {"prompts": 2, "seconds": 4.0, "steps": 8, "guidance": 3.0, "shift": 3.0},
        "prompt_following": dict.fromkeys(CONCEPTS, following),
        "autoencoder": {"kept": dict.fromkeys(CONCEPTS, kept)},
    }


def test_half_of_the_prompts_are_canonical_and_all_ask_for_their_labels() -> None:
    prompts, labels = held_out_prompts(20)
    assert prompts[::2] == [label.prompt for label in labels[::2]]
    assert not {label.prompt for label in labels} & set(prompts[1::2])
    assert held_out_prompts(20) == (prompts, labels)


def test_misses_name_what_falls_short() -> None:
    assert misses(metrics()) == []
    assert misses(metrics(following=0.92)) == [
        f"{concept}: 0.920 of prompts followed, target 0.95" for concept in ("instrument", "mood", "drums")
    ]
    assert len(misses(metrics(kept=0.9))) == 4


def test_clips_show_their_labels_and_not_others() -> None:
    clips, labels = dataset(4, seed=6)
    scorer = EmbeddedScorer()
    assert all(all(flags) for flags in shown(scorer, clips, labels).values())
    opposite = {"slow": "fast", "fast": "slow"}
    wrong = [Labels(x.instrument, opposite[x.tempo], x.mood, x.drums) for x in labels]
    assert not any(shown(scorer, clips, wrong)["tempo"])


def test_signal_to_noise_in_decibels() -> None:
    clips = np.ones((2, 100))
    assert signal_to_noise(clips, 0.9 * clips) == pytest.approx(20)


def test_evaluation_writes_a_card_that_belongs_to_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "organism-split"
    shutil.copytree(model_source("organism-split"), folder)
    found = evaluate(folder, Evaluation(prompts=4, steps=4), torch.device("cpu"))
    assert found["settings"]["steps"] == 4
    for concept in CONCEPTS:
        assert found["prompt_following"][concept] in (0, 0.25, 0.5, 0.75, 1)
    assert found["autoencoder"]["signal_to_noise_db"] > 7
    write_card(folder, found)
    card = json.loads((folder / "card.json").read_text())
    assert card["metrics"] == found
    assert card["weights_hash"] == weights_hash(folder)
    assert "# organism-split" in (folder / "README.md").read_text()
    weights = next(folder.glob("transformer/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert weights_hash(folder) != card["weights_hash"]
