"""Scores of features for concept values: formulas, intervals over prompts, and labels that survive correction."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from analyses.sae import concept_scores as scores_module
from analyses.sae import score_intervals as intervals_module
from analyses.sae.auroc import SHUFFLES, chance_aurocs
from analyses.sae.concept_labels import concept_labels
from analyses.sae.concept_scores import SCORED, concept_scores
from analyses.sae.score_intervals import score_intervals
from tests.tolerances import assert_close

PROMPTS, FEATURES = 24, 40


@pytest.fixture(scope="module")
def clips() -> pd.DataFrame:
    """Two clips of each prompt; half of the prompts are slow, a third is happy, some have no mood."""
    prompt = np.arange(PROMPTS).repeat(2)
    mood = np.array(["happy", "sad", "sad"])[prompt % 3]
    return pd.DataFrame(
        {
            "clip": range(2 * PROMPTS),
            "encoding": prompt,
            "label_tempo": np.where(prompt < PROMPTS // 2, "slow", "fast"),
            "label_mood": np.where(prompt >= 20, "", mood),
        }
    )


@pytest.fixture(scope="module")
def clip_mean(clips: pd.DataFrame) -> np.ndarray:
    """Noise by prompt; feature 0 is active on slow clips, feature 1 on most fast ones, the last one is dead."""
    rng = np.random.default_rng(0)
    noise = np.maximum(rng.normal(size=(PROMPTS, FEATURES)), 0).repeat(2, axis=0)
    slow = (clips["label_tempo"] == "slow").to_numpy()
    noise[:, 0] = slow * (1 + noise[:, 0])
    noise[:, 1] += 2.0 * ~slow
    noise[:, -1] = 0
    return noise


@pytest.fixture(scope="module")
def scores(clip_mean: np.ndarray, clips: pd.DataFrame) -> xr.Dataset:
    return concept_scores(clip_mean, np.arange(FEATURES) < FEATURES - 1, clips)


def test_scores_are_their_formulas(scores: xr.Dataset, clip_mean: np.ndarray, clips: pd.DataFrame) -> None:
    assert scores["value"].values.tolist() == ["tempo=fast", "tempo=slow", "mood=happy", "mood=sad"]
    for name in scores["value"].values:
        concept, value = name.split("=")
        known = clips[f"label_{concept}"] != ""
        has = clips.loc[known, f"label_{concept}"] == value
        one = clip_mean[known][:, 5]
        positive, negative = one[has], one[~has]
        found = scores.sel(value=name, feature=5)
        assert_close(found["auroc"], roc_auc_score(has, one))
        assert_close(found["diff"], positive.mean() - negative.mean())
        assert_close(found["tfidf"], positive.mean() * np.log(1 + 1 / (negative.mean() + 1e-6)))
        pooled = (len(positive) - 1) * positive.var(ddof=1) + (len(negative) - 1) * negative.var(ddof=1)
        spread = np.sqrt(pooled / (len(one) - 2))
        assert_close(found["cohens_d"], (positive.mean() - negative.mean()) / (spread + 1e-6))


def test_dead_features_have_no_scores(scores: xr.Dataset) -> None:
    dead = scores.isel(feature=-1)
    assert dead["label"].item() == ""
    assert all(dead[name].isnull().all() for name in (*SCORED, "p_adjusted", "auroc_lo"))


def test_labels_are_what_survives_correction(scores: xr.Dataset) -> None:
    assert scores["label"].values[:2].tolist() == ["tempo=slow", "tempo=fast"]
    assert (scores["label"].values[2:] == "").all()
    assert scores["p_adjusted"].sel(feature=0, value="tempo=slow") == 1 / (SHUFFLES + 1)
    assert scores["p_adjusted"].sel(feature=0, value="tempo=fast") == 1
    p = scores["p_adjusted"].values[~np.isnan(scores["p_adjusted"].values)]
    assert ((p >= 1 / (SHUFFLES + 1)) & (p <= 1)).all()


def test_of_noise_few_studies_have_any_label(monkeypatch: pytest.MonkeyPatch, clips: pd.DataFrame) -> None:
    """Corrected for features and values: in some 5 % of draws anything is significant."""
    monkeypatch.setattr("analyses.sae.auroc.SHUFFLES", 99)
    found = []
    for draw in range(120):
        noise = np.random.default_rng(draw).normal(size=(PROMPTS, FEATURES)).repeat(2, axis=0)
        chance = chance_aurocs(noise, clips, seed=draw)
        aurocs = scores_module.concept_aurocs(noise, clips)[1]
        found.append(bool((chance.corrected_p(aurocs) <= 0.05).any()))
    assert 0.01 < np.mean(found) < 0.1


def test_what_is_reported_has_intervals(scores: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCORED:
        low, value, high = (scores[f"{name}{end}"].values for end in ("_lo", "", "_hi"))
        known = ~np.isnan(low)
        assert (known == ~np.isnan(high)).all()
        assert (known.sum(axis=0) == scores_module.TOP_FEATURES).all()
        assert ((low <= value) & (value <= high))[known].mean() > 0.95
    auroc = scores["auroc"].sel(value="tempo=slow").values
    least = auroc[~np.isnan(scores["auroc_lo"].sel(value="tempo=slow"))].min()
    assert (auroc[:-1] >= least).sum() == scores_module.TOP_FEATURES
    monkeypatch.setattr(scores_module, "TOP_FEATURES", 0)
    reported = scores_module._reported(scores["auroc"].values[:3], np.array([1, -1, -1]))
    assert reported.tolist() == [[False, True, False, False], [False] * 4, [False] * 4]


def test_a_feature_that_separates_all_clips_has_a_point_as_interval(scores: xr.Dataset) -> None:
    one = scores.sel(feature=0, value="tempo=slow")
    assert (one["auroc"], one["auroc_lo"], one["auroc_hi"]) == (1, 1, 1)
    assert one["diff_lo"] < one["diff"] < one["diff_hi"]


def test_intervals_are_quantiles_over_resampled_prompts(
    clip_mean: np.ndarray, clips: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each resample against the scores of a table in which its prompts' clips are repeated."""
    mood = concept_labels(clips)[1]
    some = clip_mean[mood.clips][:, 3:6]
    has = mood.prompt_labels == "happy"
    drawn = []

    def remembered(some_prompts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = int(some_prompts.sum())
        drawn.append(rng.multinomial(n, np.full(n, 1 / n), size=30).astype(float))
        return drawn[-1]

    monkeypatch.setattr(intervals_module, "_times_drawn", remembered)
    monkeypatch.setattr(intervals_module, "expanded_confidence", lambda confidence, n: 0.8)
    found = score_intervals(some, mood, "happy")
    resampled = []
    for with_value, without in zip(*drawn, strict=True):
        times = np.zeros(len(has), dtype=int)
        times[has], times[~has] = with_value, without
        clip = np.repeat(np.arange(len(some)), times[mood.prompt])
        resampled.append([roc_auc_score(mood.has("happy")[clip], some[clip, j]) for j in range(3)])
        positive, negative = (some[clip][mood.has("happy")[clip] == value].mean(axis=0) for value in (1, 0))
        resampled[-1].extend(positive - negative)
    low, high = np.quantile(resampled, [0.1, 0.9], axis=0)
    assert_close(np.concatenate([found["auroc"][0], found["diff"][0]]), low)
    assert_close(np.concatenate([found["auroc"][1], found["diff"][1]]), high)


def test_no_concepts_make_an_empty_table() -> None:
    clips = pd.DataFrame({"clip": [0, 1], "encoding": ["a", "b"]})
    scores = concept_scores(np.ones((2, 3)), np.ones(3, dtype=bool), clips)
    assert scores.sizes["value"] == 0
    assert scores["label"].values.tolist() == [""] * 3


def test_nothing_alive_has_no_scores(clips: pd.DataFrame) -> None:
    scores = concept_scores(np.zeros((2 * PROMPTS, 2)), np.zeros(2, dtype=bool), clips)
    assert scores["auroc"].isnull().all()
    assert scores["auroc_shuffled"].isnull().all()
