"""The Audiobox scorer on a stand-in for its package, which is itself in `oracles/test_hub_scorers.py`."""

import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch

from cache.errors import UserError
from workbench.scorers import audiobox, load_scorer, scorer_identity
from workbench.scorers.audiobox import AXES, AudioboxScorer

RATE = 16_000


class AesMultiOutput:
    """A model whose standardised ratings are the mean of what it hears, plus 0, 1, 2 and 3."""

    target_transform: ClassVar = {axis: {"mean": 5.0, "std": 2.0} for axis in ("CE", "CU", "PC", "PQ")}

    @classmethod
    def from_pretrained(cls, folder: str) -> "AesMultiOutput":
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        return cls()

    def eval(self) -> "AesMultiOutput":
        return self

    def to(self, device: str) -> "AesMultiOutput":
        return self

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert batch["wav"].shape == batch["mask"].shape
        assert batch["wav"].shape[1:] == (1, 10 * RATE)
        means = (batch["wav"] * batch["mask"]).sum(dim=(1, 2)) / batch["mask"].sum(dim=(1, 2))
        return {axis: means + place for place, axis in enumerate(self.target_transform)}


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    module = ModuleType("audiobox_aesthetics.model.aes")
    module.AesMultiOutput = AesMultiOutput  # type: ignore[attr-defined]
    for name in ("audiobox_aesthetics", "audiobox_aesthetics.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(audiobox, "version", lambda package: {"audiobox-aesthetics": "0.0.4"}[package])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_the_texts_are_the_axes_and_ratings_are_on_their_scale(folder: Path) -> None:
    scorer = load_scorer("audiobox", model=folder)
    clip = np.full((1, 2, 4 * RATE), 0.25)
    (ratings,) = scorer.score(clip, RATE, list(AXES))
    assert ratings == pytest.approx(5 + 2 * (0.25 + np.arange(4)))
    assert scorer.score(clip, RATE, ["production quality"])[0, 0] == pytest.approx(11.5)


def test_windows_of_10_s_count_by_the_seconds_of_the_clip_in_them(folder: Path) -> None:
    """10 s of level 0.1 and 5 s of level 0.4: the mean level of the clip is 0.2."""
    clip = np.repeat([0.1, 0.4], [10 * RATE, 5 * RATE])[None, None]
    assert load_scorer("audiobox", model=folder).score(clip, RATE, ["content enjoyment"])[
        0, 0
    ] == pytest.approx(5 + 2 * 0.2)


def test_other_sample_rates_are_resampled_and_what_cannot_be_rated_is_nan(folder: Path) -> None:
    scorer = load_scorer("audiobox", model=folder)
    clip = np.full((1, 1, 4 * 48_000), 0.25)
    assert scorer.score(clip, 48_000, ["content enjoyment"])[0, 0] == pytest.approx(5.5, abs=1e-3)
    assert np.isnan(scorer.score(0 * clip, 48_000, list(AXES))).all()
    assert np.isnan(scorer.score(clip[..., :47_999], 48_000, list(AXES))).all()


def test_audio_without_clips_or_channels_is_refused(folder: Path) -> None:
    score = AudioboxScorer.score.__wrapped__  # type: ignore[attr-defined] - users have no type check
    with pytest.raises(UserError, match="three dimensions"):
        score(load_scorer("audiobox", model=folder), np.zeros((1, RATE)), RATE, list(AXES))


def test_a_concept_is_refused_with_the_axes(folder: Path) -> None:
    scorer = load_scorer("audiobox", model=folder)
    with pytest.raises(UserError, match=r"cannot score 'violin': it rates content enjoyment, .*no concepts"):
        scorer.score(np.zeros((0, 1, RATE)), RATE, ["content enjoyment", "violin"])


def test_without_package_or_model_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="Run `hf download facebook/audiobox-aesthetics`"):
        scorer_identity("audiobox")
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics.model.aes", None)
    with pytest.raises(
        UserError,
        match=r"needs the package audiobox-aesthetics, .*pip install 'audio-diffusion-workbench\[aesthetics\]'",
    ):
        load_scorer("audiobox")


def test_the_identity_is_that_of_weights_settings_and_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = [AudioboxScorer.identify(folder)]
    assert load_scorer("audiobox", model=folder).identity == identities[0]
    (folder / "model.safetensors").write_bytes(b"others")
    identities.append(AudioboxScorer.identify(folder))
    monkeypatch.setattr(audiobox, "version", lambda package: "0.0.5")
    identities.append(AudioboxScorer.identify(folder))
    assert len(set(identities)) == 3
