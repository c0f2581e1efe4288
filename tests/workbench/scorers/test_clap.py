"""CLAP scores: what a score is, and what is refused rather than scored wrongly."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.scorers.tiny_clap import notes, save_checkpoint, save_tokenizer, tiny_state
from workbench.scorers import clap, load_scorer, scorer_identity
from workbench.scorers.clap import CHECKPOINT_NAME, CHECKPOINT_VARIABLE, ClapScorer, load_tokenizer
from workbench.scorers.windows import mono_48k

TEXTS = ["violin", "a slow song with drums"]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return tiny_state()


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("clap") / CHECKPOINT_NAME, state)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("clap") / "roberta")


@pytest.fixture(scope="module")
def scorer(checkpoint: Path, tokenizer: Path) -> Any:
    return load_scorer("clap", checkpoint=checkpoint, tokenizer=tokenizer)


# Scores


def test_a_score_is_the_cosine_of_clip_and_text(scorer: ClapScorer) -> None:
    audio = notes(220, 1760, seconds=2)
    scores = scorer.score(audio, 48_000, TEXTS)
    clips, texts = scorer.embed_audio(audio, 48_000), scorer.embed_texts(TEXTS)
    for clip in range(2):
        for text in range(2):
            cosine = np.dot(clips[clip], texts[text])
            cosine /= np.linalg.norm(clips[clip]) * np.linalg.norm(texts[text])
            assert_close(scores[clip, text], cosine, (clip, text))
    assert len(np.unique(scores)) == 4
    assert np.abs(scores).max() < 1


def test_a_long_clip_scores_the_same_every_time_and_leaves_random_numbers_alone(scorer: ClapScorer) -> None:
    audio = notes(220, seconds=12)
    np.random.seed(1)
    first = scorer.score(audio, 48_000, TEXTS)
    after = np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    assert np.array_equal(scorer.score(audio, 48_000, TEXTS), first)


def test_a_clip_scores_the_same_alone_and_among_others(scorer: ClapScorer) -> None:
    audio = notes(220, 1760, 55, seconds=11)
    together = scorer.score(audio, 48_000, TEXTS)
    alone = np.concatenate([scorer.score(clip[None], 48_000, TEXTS) for clip in audio])
    assert_close(together, alone)


def test_a_long_clip_is_the_mean_of_its_windows_by_their_seconds(scorer: ClapScorer) -> None:
    parts = [notes(f, seconds=s) for f, s in ((220, 10), (1760, 10), (55, 5))]
    embedded = np.concatenate([scorer.embed_audio(part, 48_000) for part in parts])
    mean = 10 * embedded[0] + 10 * embedded[1] + 5 * embedded[2]
    whole = scorer.embed_audio(np.concatenate(parts, axis=-1), 48_000)[0]
    assert_close(whole, (mean / np.linalg.norm(mean)).astype(np.float32))  # the network's own precision


def test_a_rest_of_milliseconds_hardly_counts(scorer: ClapScorer) -> None:
    audio = notes(220, seconds=10.01)
    ten_seconds = scorer.embed_audio(audio[:, :, :480_000], 48_000)[0]
    rest = scorer.embed_audio(audio[:, :, 480_000:], 48_000)[0]
    whole = scorer.embed_audio(audio, 48_000)[0]
    assert whole @ ten_seconds > 0.99999 > whole @ rest


def test_channels_and_sample_rate_are_made_one_before_the_network(scorer: ClapScorer) -> None:
    audio = notes(220, seconds=2, sample_rate=44_100)
    mono = mono_48k(audio[0], 44_100)
    assert mono.shape == (96_000,)
    assert_close(scorer.embed_audio(audio, 44_100), scorer.embed_audio(mono[None, None], 48_000))


def test_the_template_is_put_around_every_text(scorer: ClapScorer, checkpoint: Path, tokenizer: Path) -> None:
    plain = load_scorer("clap", checkpoint=checkpoint, tokenizer=tokenizer, template="{text}")
    assert isinstance(plain, ClapScorer)
    assert np.array_equal(scorer.embed_texts(["violin"]), plain.embed_texts(["This is a music of violin"]))
    assert not np.allclose(scorer.embed_texts(["violin"]), plain.embed_texts(["violin"]), atol=1e-3)


def test_captions_are_compared_as_they_are_with_texts_in_the_template(
    scorer: ClapScorer, checkpoint: Path, tokenizer: Path
) -> None:
    plain = load_scorer("clap", checkpoint=checkpoint, tokenizer=tokenizer, template="{text}")
    assert isinstance(plain, ClapScorer)
    captions = ["a fast violin tune", "violin", "This is a music of violin"]
    similarities = scorer.compare_texts(captions, TEXTS)
    assert similarities.shape == (3, 2)
    expected = plain.embed_texts(captions) @ scorer.embed_texts(TEXTS).T
    assert_close(similarities, expected)
    assert similarities[2, 0] == pytest.approx(1)
    assert similarities[1, 0] < 0.999


def test_a_template_without_a_place_for_the_text_is_refused(checkpoint: Path, tokenizer: Path) -> None:
    with pytest.raises(UserError, match=r"must contain \{text\}; got 'music'"):
        load_scorer("clap", checkpoint=checkpoint, tokenizer=tokenizer, template="music")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_clip_that_is_not_finite_scores_nan_and_is_logged(
    scorer: ClapScorer, bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    audio = notes(220, 1760, seconds=1)
    good = scorer.score(audio, 48_000, TEXTS)
    audio[0, 1, 100] = bad
    scores = scorer.score(audio, 48_000, TEXTS)
    assert np.isnan(scores[0]).all()
    assert_close(scores[1], good[1])
    assert [(record.levelname, record.args[:2]) for record in caplog.records] == [("ERROR", ("clap", 0))]


def test_an_empty_clip_scores_nan_and_is_logged(scorer: ClapScorer, caplog: pytest.LogCaptureFixture) -> None:
    assert np.isnan(scorer.score(np.zeros((1, 2, 0), np.float32), 48_000, TEXTS)).all()
    assert "cannot score clip 0" in caplog.text


def test_a_network_that_gives_no_number_scores_nan_and_is_logged(
    state: dict[str, torch.Tensor], tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = state | {"audio_projection.2.bias": torch.full((512,), float("nan"))}
    scorer = load_scorer("clap", checkpoint=save_checkpoint(tmp_path / "nan.pt", broken), tokenizer=tokenizer)
    assert np.isnan(scorer.score(notes(220, seconds=1), 48_000, TEXTS)).all()
    assert "cannot score clip 0" in caplog.text


# The checkpoint


def test_a_checkpoint_with_and_without_position_ids_gives_the_same(
    state: dict[str, torch.Tensor], scorer: ClapScorer, tokenizer: Path, tmp_path: Path
) -> None:
    key = "text_branch.embeddings.position_ids"
    assert key in state
    without = {name: tensor for name, tensor in state.items() if name != key}
    path = save_checkpoint(tmp_path / "without.pt", without)
    other = load_scorer("clap", checkpoint=path, tokenizer=tokenizer)
    audio = notes(220, seconds=1)
    assert np.array_equal(other.score(audio, 48_000, TEXTS), scorer.score(audio, 48_000, TEXTS))


def test_a_missing_checkpoint_names_the_path_and_the_command(tmp_path: Path) -> None:
    path = tmp_path / "weights" / CHECKPOINT_NAME
    with pytest.raises(UserError) as error:
        load_scorer("clap", checkpoint=path)
    assert str(path) in str(error.value)
    assert f"hf download lukewys/laion_clap {CHECKPOINT_NAME} --local-dir {path.parent}`" in str(error.value)


def test_the_checkpoint_is_looked_for_in_the_variable_and_then_in_the_cache(
    checkpoint: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path / "nothing.pt"))
    with pytest.raises(UserError, match=r"no CLAP checkpoint at .*nothing\.pt"):
        load_scorer("clap", tokenizer=tokenizer)
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(checkpoint))
    assert load_scorer("clap", tokenizer=tokenizer).name == "clap"
    monkeypatch.delenv(CHECKPOINT_VARIABLE)
    with pytest.raises(UserError, match="no CLAP checkpoint at the Hugging Face cache"):
        load_scorer("clap", tokenizer=tokenizer)
    repository = tmp_path / "models--lukewys--laion_clap"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / CHECKPOINT_NAME).symlink_to(checkpoint)
    assert load_scorer("clap", tokenizer=tokenizer).name == "clap"


class Planted:
    """Unpickled without restriction, this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_is_never_executed(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "planted.pt"
    torch.save({"state_dict": {"module.x": Planted(tmp_path / "ran")}}, path)
    with pytest.raises(UserError, match=r"planted\.pt is damaged or contains more than plain tensors"):
        load_scorer("clap", checkpoint=path, tokenizer=tokenizer)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"hello world" * 10, "half"])
def test_a_damaged_checkpoint_is_refused(
    content: bytes | str, checkpoint: Path, tokenizer: Path, tmp_path: Path
) -> None:
    whole = checkpoint.read_bytes()
    path = tmp_path / "damaged.pt"
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"damaged\.pt is damaged or contains more"):
        load_scorer("clap", checkpoint=path, tokenizer=tokenizer)


def test_tensors_that_are_no_clap_are_refused(
    state: dict[str, torch.Tensor], tokenizer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match="has no 'state_dict'"):
        load_scorer("clap", checkpoint=path, tokenizer=tokenizer)
    save_checkpoint(path, {"weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"not a LAION-CLAP checkpoint with HTSAT: .* is missing"):
        load_scorer("clap", checkpoint=path, tokenizer=tokenizer)
    save_checkpoint(path, state | {"audio_branch.patch_embed.fusion_model.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="does not match an HTSAT network without fusion"):
        load_scorer("clap", checkpoint=path, tokenizer=tokenizer)


# The tokenizer


def test_a_tokenizer_with_too_few_entries_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "small", entries=300)
    with pytest.raises(UserError, match=r"small' must have at least 50000 entries; it has \d+"):
        load_scorer("clap", checkpoint=checkpoint, tokenizer=folder)


def test_an_empty_tokenizer_is_refused_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"'nobody/roberta-base' must have at least .*Run `hf download roberta-base "
    ):
        load_tokenizer("nobody/roberta-base")
    with pytest.raises(UserError, match="it has 0"):
        load_tokenizer(tmp_path / "no" / "such" / "folder")


# Choosing a scorer


def test_the_identity_is_that_of_weights_template_and_tokenizer(
    state: dict[str, torch.Tensor], checkpoint: Path, tokenizer: Path, scorer: Any, tmp_path: Path
) -> None:
    bias = "audio_projection.0.bias"
    changed = save_checkpoint(tmp_path / "changed.pt", state | {bias: state[bias] + 1e-3})
    words = save_tokenizer(tmp_path / "roberta", 50_266)
    identify = type(scorer).identify
    identities = [
        identify(checkpoint, tokenizer=tokenizer),
        identify(changed, tokenizer=tokenizer),
        identify(checkpoint, tokenizer=tokenizer, template="{text}"),
        identify(checkpoint, tokenizer=words),
    ]
    assert len(set(identities)) == 4
    assert scorer.identity == identities[0]


def test_an_identity_follows_a_file_that_is_replaced(
    state: dict[str, torch.Tensor], tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "clap.pt", state)
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(path))
    monkeypatch.setattr(clap, "load_tokenizer", lambda source: load_tokenizer(tokenizer))
    before = scorer_identity("clap")
    assert scorer_identity("clap") == before
    save_checkpoint(path, state | {"audio_projection.0.bias": state["audio_projection.0.bias"] + 1e-3})
    assert scorer_identity("clap") != before


def test_a_silent_clip_gets_no_score(scorer: Any) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=48_000).astype(np.float32)
    for clip in (
        np.zeros((1, 2, 48_000), np.float32),
        np.stack([noise, -noise])[None],
    ):  # silent in mono, too
        assert np.isnan(scorer.score(clip, 48_000, TEXTS)).all()


def test_an_unknown_scorer_is_refused_with_the_list() -> None:
    with pytest.raises(
        UserError,
        match=r"Unknown scorer 'clapp'. Scorers: 'embedded', 'musicnn', 'descriptors', 'clap', 'clap-laion'",
    ):
        load_scorer("clapp")


def test_without_the_package_the_extra_is_named_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    with pytest.raises(UserError, match=r"pip install 'audio-diffusion-workbench\[clap\]'"):
        load_scorer("clap-laion", checkpoint=tmp_path / "missing.pt")


def test_scorers_import_nothing_heavy_until_one_is_loaded() -> None:
    heavy = {"torch", "transformers", "laion_clap", "librosa", "huggingface_hub"}
    code = f"import sys, workbench.scorers; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
