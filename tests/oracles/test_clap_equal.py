"""Both CLAP scorers against the laion-clap package itself, on random weights of the real network's shape.

The text branch is one layer of RoBERTa with few words; the audio branch is HTSAT-base, as in the music
checkpoint. All compute in float32 along different routes, so that unit embeddings differ by rounding alone:
6e-8 was seen, and 1e-6 is allowed.
"""

import sys
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers

from tests.tolerances import assert_close
from tests.workbench.scorers.tiny_clap import WORDS, notes, save_checkpoint, save_tokenizer
from workbench.scorers import load_scorer
from workbench.scorers.clap import TEMPLATE
from workbench.scorers.clap_laion import LaionClapScorer, import_laion_clap
from workbench.scorers.clap_transformers import LogMel, TransformersClapScorer
from workbench.scorers.windows import quantise

pytestmark = pytest.mark.skipif(find_spec("laion_clap") is None, reason="the extra 'clap' is not installed")

TOLERANCE = 1e-6
TEXTS = ["violin", "female vocal", "a slow song with drums, and a text longer than the others"]


class Rig(NamedTuple):
    """The package's own network, and both scorers with its weights."""

    package: Any
    laion: LaionClapScorer
    transformers: TransformersClapScorer
    random_numbers_kept: bool


def roberta(*_: Any) -> transformers.RobertaModel:
    """One layer with roberta-base's other settings."""
    return transformers.RobertaModel(
        transformers.RobertaConfig(
            vocab_size=WORDS,
            num_hidden_layers=1,
            intermediate_size=64,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
    )


def distinct(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under which different inputs differ: nothing left at zero or one, as a fresh network has it."""
    torch.manual_seed(0)
    for name, tensor in state.items():
        if name.endswith(("bias", "relative_position_bias_table", "norm.weight", "LayerNorm.weight")):
            tensor += 0.1 * torch.randn_like(tensor)
    state["audio_branch.bn0.running_mean"].fill_(-40.0)
    state["audio_branch.bn0.running_var"].fill_(400.0)
    return state


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("clap")
    tokenizer = save_tokenizer(folder / "roberta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.RobertaModel, "from_pretrained", roberta)
        patch.setattr(
            transformers.RobertaTokenizer, "from_pretrained", lambda _: transformers.RobertaTokenizer()
        )
        package = import_laion_clap().CLAP_Module(amodel="HTSAT-base", device="cpu")
    state = distinct(package.model.state_dict())
    positions = {"text_branch.embeddings.position_ids": torch.arange(514)[None]}  # as older versions stored
    path = save_checkpoint(folder / "clap.pt", state | positions)
    options = {"checkpoint": path, "tokenizer": tokenizer}
    random_state = torch.get_rng_state()
    laion, ours = load_scorer("clap-laion", **options), load_scorer("clap", **options)
    kept = torch.equal(torch.get_rng_state(), random_state)
    path.unlink()  # 300 MB
    assert isinstance(laion, LaionClapScorer)
    assert isinstance(ours, TransformersClapScorer)
    package.tokenize = transformers.RobertaTokenizer.from_pretrained(str(tokenizer))
    return Rig(package, laion, ours, kept)


def test_texts_are_embedded_as_by_the_package(rig: Rig) -> None:
    expected = rig.package.get_text_embedding([TEMPLATE.format(text=text) for text in TEXTS])
    assert rig.laion.embed_texts(TEXTS) == pytest.approx(expected, abs=TOLERANCE)
    assert rig.transformers.embed_texts(TEXTS) == pytest.approx(expected, abs=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE


def test_a_short_clip_is_embedded_as_by_the_package(rig: Rig) -> None:
    audio = notes(220, seconds=4).mean(axis=1)
    expected = rig.package.get_audio_embedding_from_data(audio)
    assert rig.laion.embed_audio(audio[:, None], 48_000) == pytest.approx(expected, abs=TOLERANCE)
    assert rig.transformers.embed_audio(audio[:, None], 48_000) == pytest.approx(expected, abs=TOLERANCE)
    other = rig.transformers.embed_audio(notes(1760, seconds=4), 48_000)
    assert np.abs(other - expected).max() > 100 * TOLERANCE


def test_long_clips_at_another_sample_rate_score_the_same(rig: Rig) -> None:
    audio = notes(220, 1760, seconds=12, sample_rate=44_100)
    ours = rig.transformers.score(audio, 44_100, TEXTS)
    assert rig.laion.score(audio, 44_100, TEXTS) == pytest.approx(ours, abs=TOLERANCE)
    assert np.ptp(ours, axis=0).min() > 100 * TOLERANCE


def test_the_spectrogram_is_the_package_s(rig: Rig) -> None:
    windows = torch.from_numpy(notes(220, seconds=10)[0])
    branch = rig.package.model.audio_branch
    expected = branch.logmel_extractor(branch.spectrogram_extractor(windows))
    assert_close(LogMel(rig.package.model.state_dict())(windows), expected)


def test_samples_are_quantised_as_by_the_package() -> None:
    package = import_laion_clap().hook
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, 200_000).astype(np.float32)
    assert np.array_equal(quantise(samples), package.int16_to_float32(package.float32_to_int16(samples)))


def test_the_package_leaves_no_trace(rig: Rig) -> None:
    assert rig.random_numbers_kept
    assert not any("laion_clap" in folder for folder in sys.path)
    assert find_spec("torchvision") is not None or "torchvision" not in sys.modules
    for owner in (transformers.RobertaModel, transformers.RobertaTokenizer, transformers.BertTokenizer):
        assert "from_pretrained" not in vars(owner)
