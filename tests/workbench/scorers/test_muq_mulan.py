"""The MuQ-MuLan scorer on a stand-in for its package, which is itself in `oracles/test_hub_scorers.py`."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ConformerConfig
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.scorers import load_scorer, muq_mulan, scorer_identity
from workbench.scorers.muq_mulan import MuqMulanScorer, keep_hidden_states

RATE = 24_000


class MuQMuLan:
    """A model with a unit embedding of two numbers: of a clip, from its mean; of texts, from their longest's length."""

    entries = 100

    def __init__(self) -> None:
        conformer = SimpleNamespace(config=SimpleNamespace(), forward=None, layers=[])
        text = SimpleNamespace(
            tokenizer=range(self.entries), model=SimpleNamespace(config=SimpleNamespace(vocab_size=100))
        )
        audio = SimpleNamespace(model=SimpleNamespace(model=SimpleNamespace(conformer=conformer)))
        self.mulan_module = SimpleNamespace(text=text, audio=audio)
        self.device = torch.device("cpu")
        self.heard: list[torch.Tensor] = []

    @classmethod
    def from_pretrained(cls, folder: str) -> "MuQMuLan":
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        if not (Path(folder) / "parts").exists():
            raise OSError("a part is missing")
        return cls()

    def eval(self) -> "MuQMuLan":
        return self

    def to(self, device: str) -> "MuQMuLan":
        return self

    def __call__(self, wavs: torch.Tensor | None = None, texts: list[str] | None = None) -> torch.Tensor:
        if wavs is not None:
            self.heard.append(wavs)
            angles = 10 * wavs.mean(dim=1)
        else:
            assert texts is not None
            angles = torch.tensor([max(map(len, texts)) / 100.0] * len(texts))
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    def calc_similarity(self, music: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return music @ words.T


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    module = ModuleType("muq")
    module.MuQMuLan = MuQMuLan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "muq", module)
    monkeypatch.setattr(muq_mulan, "version", lambda package: {"muq": "0.1.0"}[package])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "parts").touch()
    return tmp_path


def test_a_score_is_the_similarity_of_a_clip_with_a_text_in_the_template(folder: Path) -> None:
    scorer = load_scorer("muq-mulan", model=folder, template="a {text}")
    clip = np.full((1, 2, 2 * RATE), 0.05, np.float32)
    (scores,) = scorer.score(clip, RATE, ["violin", "piano and drums"])
    assert not huggingface_hub.constants.HF_HUB_OFFLINE  # but while the model was loaded
    assert scores == pytest.approx(np.cos([0.5 - 0.08, 0.5 - 0.17]), rel=1e-4)


def test_clips_are_mono_at_24_khz_and_texts_are_embedded_alone(folder: Path) -> None:
    scorer = load_scorer("muq-mulan", model=folder)
    assert isinstance(scorer, MuqMulanScorer)
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 2, 48_000)).astype(np.float32)
    both = scorer.score(clip, 16_000, ["a", "a long text"])
    assert scorer._model.heard[0].shape == (1, 3 * RATE)
    assert_close(both[:, :1], scorer.score(clip, 16_000, ["a"]))


def test_what_cannot_be_scored_is_nan_with_a_reason(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer = load_scorer("muq-mulan", model=folder)
    good = np.full((1, RATE), 0.1)
    broken = good.copy()
    broken[0, 0] = np.inf
    scores = scorer.score(np.stack([0 * good, good, broken]), RATE, ["violin", "piano"])
    assert np.isnan(scores).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(scorer.score(good[None, :, 1:], RATE, ["violin"])).all()
    assert [record.getMessage() for record in caplog.records] == [
        "muq-mulan cannot score clip 0: it is silent.",
        "muq-mulan cannot score clip 2: it has samples that are not finite numbers.",
        "muq-mulan cannot score clip 0: it is shorter than 1 s.",
    ]


def test_a_network_that_gives_no_number_is_nan(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer("muq-mulan", model=folder)
    monkeypatch.setattr(
        MuQMuLan, "calc_similarity", lambda self, music, words: torch.tensor([[torch.nan, 1]])
    )
    assert np.isnan(scorer.score(np.full((1, 1, RATE), 0.1), RATE, ["violin", "piano"])).all()
    assert "its score is not finite" in caplog.text


def test_empty_texts_and_templates_without_a_place_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="'muq-mulan' needs a text that is not empty"):
        load_scorer("muq-mulan", model=folder).check_texts(["violin", " "])
    with pytest.raises(UserError, match=r"must contain \{text\}; got 'music'"):
        load_scorer("muq-mulan", model=folder, template="music")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "muq", None)
    for ask in (load_scorer, scorer_identity):
        with pytest.raises(
            UserError, match=r"needs the package muq, .*pip install 'audio-diffusion-workbench\[muq\]'"
        ):
            ask("muq-mulan")


def test_without_the_model_or_its_parts_it_says_what_to_download(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    download = (
        "missing or incomplete. Run `hf download {} && hf download OpenMuQ/MuQ-large-msd-iter && "
        "hf download xlm-roberta-base`."
    )
    with pytest.raises(UserError) as nothing:
        scorer_identity("muq-mulan")
    assert download.format("OpenMuQ/MuQ-MuLan-large") in str(nothing.value)
    (folder / "parts").unlink()
    with pytest.raises(UserError) as partly:
        load_scorer("muq-mulan", model=folder)
    assert download.format(folder) in str(partly.value)
    (folder / "parts").touch()
    monkeypatch.setattr(MuQMuLan, "entries", 0)
    with pytest.raises(UserError, match="missing or incomplete"):
        load_scorer("muq-mulan", model=folder)


def test_the_identity_is_that_of_weights_settings_template_and_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = [MuqMulanScorer.identify(folder), MuqMulanScorer.identify(folder, template="{text}")]
    assert load_scorer("muq-mulan", model=folder).identity == identities[0]
    (folder / "model.safetensors").write_bytes(b"others")
    identities.append(MuqMulanScorer.identify(folder))
    (folder / "config.json").write_text(json.dumps({"mulan": {}}))
    identities.append(MuqMulanScorer.identify(folder))
    monkeypatch.setattr(muq_mulan, "version", lambda package: "0.1.1")
    identities.append(MuqMulanScorer.identify(folder))
    assert len(set(identities)) == 5


def test_the_model_is_found_in_the_cache_with_weights_of_either_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--OpenMuQ--MuQ-MuLan-large"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(UserError, match="missing or incomplete"):
        scorer_identity("muq-mulan")
    (snapshot / "pytorch_model.bin").write_bytes(b"weights")
    assert len(scorer_identity("muq-mulan")) == 16


def test_hidden_states_are_the_layers_inputs_and_the_output() -> None:
    """As transformers 4 returned them, and muq reads them."""
    settings: Any = Wav2Vec2ConformerConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    encoder = Wav2Vec2ConformerEncoder(SimpleNamespace(**settings.to_dict())).eval()
    keep_hidden_states(encoder)
    states = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = encoder(states, output_hidden_states=True)
        assert len(found["hidden_states"]) == 4
        assert torch.equal(found["hidden_states"][0], states)
        positions = encoder.embed_positions(states) if encoder.embed_positions is not None else None
        second = encoder.layers[0](states, attention_mask=None, relative_position_embeddings=positions)
    assert_close(found["hidden_states"][1], second)
    assert torch.equal(found["hidden_states"][3], found["last_hidden_state"])
