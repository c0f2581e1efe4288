"""MuQ-MuLan and Audiobox Aesthetics against their packages, on tiny random models of the packages' own classes.

Skipped where the extras are not installed, or their torchaudio does not fit torch (README.md says how it was run).
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.oracles.tiny_muq import RATE, TEXTS, clip, save_muq_mulan
from tests.tolerances import assert_close
from workbench.scorers import load_scorer
from workbench.scorers.audiobox import AXES

FIXTURE = Path(__file__).parent / "fixtures" / "muq_mulan.json"


def imported(module: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        pytest.skip(f"{module} cannot be imported: {error}")


def test_muq_mulan_scores_as_its_package_does_with_transformers_4(tmp_path: Path) -> None:
    imported("muq")
    scorer = load_scorer("muq-mulan", model=save_muq_mulan(tmp_path))
    scores = [scorer.score(clip(seconds)[None, None], RATE, TEXTS)[0] for seconds in (4, 12)]
    assert_close(np.array(scores), np.float32(json.loads(FIXTURE.read_text())))


def test_audiobox_rates_as_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aes, infer = imported("audiobox_aesthetics.model.aes"), imported("audiobox_aesthetics.infer")
    small = {
        "encoder_layers": 2,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 32,
        "encoder_attention_heads": 2,
        "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
        "conv_pos": 16,
    }
    monkeypatch.setattr(aes, "DEFAULT_AUDIO_CFG", aes.WavLMConfig(vars(aes.DEFAULT_AUDIO_CFG) | small))
    torch.manual_seed(0)
    scale = {axis: {"mean": 5.0 + place, "std": 1.5} for place, axis in enumerate(AXES.values())}
    model = aes.AesMultiOutput(nth_layer=3, target_transform=scale).eval()
    model.save_pretrained(tmp_path)
    predictor = infer.AesPredictor.__new__(infer.AesPredictor)
    predictor.model, predictor.device, predictor.sample_rate, predictor.data_col = (
        model,
        "cpu",
        16_000,
        "path",
    )
    predictor.target_transform = {axis: infer.Normalize(**values) for axis, values in scale.items()}
    stereo = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 13 * 16_000)).astype(np.float32)
    (expected,) = predictor.forward([{"path": torch.from_numpy(stereo), "sample_rate": 16_000}])
    found = load_scorer("audiobox", model=tmp_path).score(stereo[None], 16_000, list(AXES))[0]
    assert_close(found, np.float32([expected[axis] for axis in AXES.values()]))
    assert np.ptp(found) > 1
