"""The musicnn scorer: what it hears in synthesised clips, what stands for a text, and what it refuses."""

import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.organisms.labels import Labels
from benchmarks.organisms.synth import dataset
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.scorers import load_scorer, scorer_identity
from workbench.scorers.musicnn import WEIGHTS, MusicnnScorer
from workbench.tensor_files import NotTensors

RATE = 16_000


@pytest.fixture(scope="module")
def scorer() -> MusicnnScorer:
    return MusicnnScorer()


@pytest.fixture(scope="module")
def fresh() -> tuple[np.ndarray, list[Labels]]:
    """Clips (clip, channel, sample) with their labels."""
    clips, labels = dataset(16, seed=99)
    return clips[:, None], labels


def test_it_hears_voices_and_drums_that_it_was_not_trained_on(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    audio, labels = fresh
    scores = scorer.score(audio, RATE, ["vocals", "with drums"])
    voice = [label.value("instrument").endswith("vocal") for label in labels]
    drums = [label.value("drums") == "with drums" for label in labels]
    assert roc_auc_score(voice, scores[:, 0]) > 0.8
    assert roc_auc_score(drums, scores[:, 1]) > 0.9


def test_a_text_with_or_without_a_tag_has_its_probability_or_the_rest(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    found = scorer.score(fresh[0][:1], RATE, ["drums", "with drums", "without drums", "no vocals"])[0]
    assert found[0] == found[1] == 1 - found[2]
    assert found[3] == scorer.probabilities(fresh[0][0], RATE)[scorer.tags.index("no vocals")]


def test_scores_do_not_depend_on_the_clips_beside_nor_on_the_number_of_channels(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    together = scorer.score(fresh[0][:2], RATE, ["guitar", "fast"]).astype(np.float32)
    assert_close(scorer.score(fresh[0][1:2], RATE, ["guitar", "fast"])[0], together[1])
    assert_close(scorer.score(np.repeat(fresh[0][:2], 2, axis=1), RATE, ["guitar", "fast"]), together)


def test_windows_are_averaged_and_a_shorter_rest_is_not_heard(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    clip = fresh[0][0]
    twice = np.concatenate([clip, clip], axis=1)[:, : 6 * RATE]
    first = scorer.spectrogram(twice, RATE)
    by_hand = [scorer.tag_probabilities(first[None, start : start + 187])[0] for start in (0, 187)]
    mean = np.mean(by_hand, axis=0, dtype=np.float32)
    assert_close(scorer.probabilities(twice, RATE), mean)
    assert_close(scorer.probabilities(np.concatenate([twice, np.zeros((1, RATE))], axis=1), RATE), mean)


def test_other_sample_rates_are_resampled(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    import soxr

    clip = fresh[0][0]
    faster = soxr.resample(clip[0], RATE, 44_100, quality="HQ")[None]
    np.testing.assert_allclose(
        scorer.probabilities(faster, 44_100), scorer.probabilities(clip, RATE), atol=0.02
    )


def test_what_cannot_be_scored_is_nan_and_logged(
    scorer: MusicnnScorer, fresh: tuple[np.ndarray, list[Labels]], caplog: pytest.LogCaptureFixture
) -> None:
    broken = fresh[0][1].copy()
    broken[0, 7] = np.nan
    with caplog.at_level(logging.ERROR):
        scores = scorer.score(np.stack([np.zeros_like(broken), fresh[0][0], broken]), RATE, ["slow"])
        short = scorer.score(fresh[0][:1, :, : 2 * RATE], RATE, ["slow"])
        loud = scorer.score(1e5 * fresh[0][:1], RATE, ["slow"])
        cancelling = scorer.score(np.stack([fresh[0][0, 0], -fresh[0][0, 0]])[None], RATE, ["slow"])
    assert np.isnan(scores[:, 0]).tolist() == [True, False, True]
    assert np.isnan(short).all()
    assert np.isnan(loud).all()
    assert np.isnan(cancelling).all()
    assert [record.getMessage() for record in caplog.records] == [
        "musicnn cannot score clip 0: it is silent.",
        "musicnn cannot score clip 2: it has samples that are not finite numbers.",
        "musicnn cannot score clip 0: it is shorter than 2.98 s.",
        "musicnn cannot score clip 0: it has samples beyond ±10.",
        "musicnn cannot score clip 0: it is silent.",
    ]


def test_the_shortest_clip_is_one_window(scorer: MusicnnScorer) -> None:
    samples = round(scorer.min_seconds * RATE)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 1, samples))
    assert np.isfinite(scorer.score(noise, RATE, ["slow"])).all()
    assert np.isnan(scorer.score(noise[..., 1:], RATE, ["slow"])).all()


def test_other_texts_and_missing_or_damaged_weights_are_refused(
    scorer: MusicnnScorer, tmp_path: Path
) -> None:
    for text in ("trumpet", "without a tag", "with without drums", "without with drums", "with slow", ""):
        with pytest.raises(UserError, match=r"not one of its tags.*violin"):
            scorer.check_texts(["violin", text])
    with pytest.raises(UserError, match="weights of the musicnn scorer are missing"):
        MusicnnScorer(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(NotTensors, match="not a valid safetensors file"):
        MusicnnScorer(damaged)


def test_it_is_loaded_by_name_and_known_by_its_weights(scorer: MusicnnScorer) -> None:
    loaded = load_scorer("musicnn")
    assert (loaded.name, loaded.identity) == ("musicnn", scorer.identity)
    assert scorer_identity("musicnn") == scorer.identity
