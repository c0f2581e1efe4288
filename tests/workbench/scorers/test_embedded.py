"""The embedded scorer: right on fresh clips, calibrated, independent of the batch, and clear about what it
cannot do.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from benchmarks.organisms.embedded.fit_scorer import brier_score, calibration_error
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.synth import dataset
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.scorers import load_scorer
from workbench.scorers.embedded import SAMPLE_RATE, WEIGHTS, EmbeddedScorer, features

TEXTS = [value for values in CONCEPTS.values() for value in values]


@pytest.fixture(scope="module")
def scorer() -> EmbeddedScorer:
    return EmbeddedScorer()


@pytest.fixture(scope="module")
def fresh() -> tuple[np.ndarray, list[Labels]]:
    """Clips (clip, channel, sample) of a data set that nothing was fitted on."""
    clips, labels = dataset(70, seed=4_321)
    return clips[:, None], labels


def test_fresh_clips_are_recognised(scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]]) -> None:
    audio, labels = fresh
    found = scorer.most_probable(audio, SAMPLE_RATE)
    for concept in CONCEPTS:
        right = [value == label.value(concept) for value, label in zip(found[concept], labels, strict=True)]
        assert np.mean(right) >= 0.95, concept


def test_scores_are_probabilities_of_the_values_of_a_concept(
    scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    audio, _ = fresh
    scores = scorer.score(audio[:5], SAMPLE_RATE, TEXTS)
    assert scores.shape == (5, len(TEXTS))
    assert ((scores >= 0) & (scores <= 1)).all()
    first = 0
    for values in CONCEPTS.values():
        np.testing.assert_allclose(scores[:, first : first + len(values)].sum(axis=1), 1)
        first += len(values)


def test_scores_do_not_depend_on_the_clips_beside_or_on_the_other_texts(
    scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    audio, _ = fresh
    together = scorer.score(audio[:6], SAMPLE_RATE, TEXTS)
    for row in range(6):
        assert_close(scorer.score(audio[row : row + 1], SAMPLE_RATE, TEXTS)[0], together[row])
    assert_close(
        scorer.score(audio[:6], SAMPLE_RATE, ["sad", "flute"])[:, 0], together[:, TEXTS.index("sad")]
    )


def test_level_channels_and_sample_rate_do_not_matter(
    scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]]
) -> None:
    audio, _ = fresh
    plain = scorer.score(audio[:3], SAMPLE_RATE, TEXTS)
    np.testing.assert_allclose(scorer.score(0.2 * audio[:3], SAMPLE_RATE, TEXTS), plain, atol=0.01)
    stereo = np.repeat(audio[:3], 2, axis=1)
    assert_close(scorer.score(stereo, SAMPLE_RATE, TEXTS), plain)
    upsampled = resample_poly(audio[:3], 48_000, SAMPLE_RATE, axis=-1)
    np.testing.assert_allclose(scorer.score(upsampled, 48_000, TEXTS), plain, atol=0.1)


def test_what_cannot_be_scored_is_nan_and_logged_and_the_rest_is_scored(
    scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]], caplog: pytest.LogCaptureFixture
) -> None:
    audio, _ = fresh
    silent, broken = np.zeros_like(audio[0]), audio[1].copy()
    broken[0, 100] = np.inf
    with caplog.at_level(logging.ERROR):
        scores = scorer.score(np.stack([silent, audio[0], broken]), SAMPLE_RATE, ["sad", "fast"])
    assert np.isnan(scores).tolist() == [[True, True], [False, False], [True, True]]
    assert [record.getMessage() for record in caplog.records] == [
        "clip 0 cannot be scored: it is silent",
        "clip 2 cannot be scored: it has samples that are not finite numbers",
    ]
    assert np.isnan(scorer.score(audio[:1, :, :SAMPLE_RATE], SAMPLE_RATE, ["sad"])).all()
    assert scorer.most_probable(silent[None], SAMPLE_RATE)["mood"] == [None]


def test_unknown_texts_and_missing_weights_are_refused(
    scorer: EmbeddedScorer, fresh: tuple[np.ndarray, list[Labels]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"'cello'.*violin, flute.*without drums"):
        scorer.score(fresh[0][:1], SAMPLE_RATE, ["violin", "cello"])
    with pytest.raises(UserError, match="weights are missing"):
        EmbeddedScorer(tmp_path / "none.npz")


def test_it_is_loaded_by_name() -> None:
    assert load_scorer("embedded").name == "embedded"


def test_features_hear_the_tempo() -> None:
    click = np.exp(-np.arange(1600) / 200.0) * np.sin(np.arange(1600))
    rates = []
    for beat in (6400, 12_800):
        audio = np.zeros(64_000)
        for start in range(3200, 60_000, beat):
            audio[start : start + 1600] += click
        rates.append(features(audio)[-3:])
    np.testing.assert_allclose(rates[0], 9 / 4)
    np.testing.assert_allclose(rates[1], 5 / 4)


def test_calibration_metrics_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    targets = np.array([0, 0, 1, 0])
    assert calibration_error(probabilities, targets) == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)
    by_hand = (2 * 2 * 0.05**2 + 2 * 0.35**2 + 2 * 0.65**2) / 4
    assert brier_score(probabilities, targets) == pytest.approx(by_hand)


def test_the_card_reports_accuracy_and_calibration_on_held_out_clips() -> None:
    card = json.loads((WEIGHTS.parent / "card.json").read_text())
    for concept in CONCEPTS:
        for kind in ("raw", "reconstructed"):
            metrics = card["held_out"][kind][concept]
            assert metrics["accuracy"] >= 0.95
            assert metrics["calibration_error"] <= 0.05
