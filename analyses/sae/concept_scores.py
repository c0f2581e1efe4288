"""Scores of features for each concept value: AUROC, tf-idf, difference and Cohen's d, with intervals and labels."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from analyses.sae.auroc import chance_aurocs, concept_aurocs
from analyses.sae.concept_labels import ConceptLabels, concept_labels
from analyses.sae.feature_scores import SCORES, Responses
from analyses.sae.score_intervals import score_intervals
from analyses.statistics import ALPHA

AUROC = "auroc"
COMPARED = ("tfidf", "diff", "cohens_d")
SCORED = (AUROC, *COMPARED)
TOP_FEATURES = 20


def concept_scores(
    clip_mean: Float[np.ndarray, "clip feature"], alive: Bool[np.ndarray, " feature"], clips: pd.DataFrame
) -> xr.Dataset:
    """Score every feature's clip-mean activation for every concept value; dims (feature, value).

    The clips with a value are compared with those of another value of its concept. NaN for dead features, and for a
    value without an AUROC (`ConceptLabels.has_auroc`).

    - auroc; auroc_shuffled, dim value: what the best feature exceeds in 5 % of shuffles of the labels; p_adjusted: its
      p, corrected for the number of features and of values (see `analyses.sae.auroc`).
    - tfidf, diff, cohens_d: see `analyses.sae.feature_scores`, with the clips' means as samples.
    - `<score>_lo`, `<score>_hi`: 95 % intervals (`analyses.sae.score_intervals`) of the `TOP_FEATURES` features of each
      value with the highest AUROC, and of the values in `label`; NaN for others.
    - label, dim feature: the value of highest AUROC among those with p_adjusted up to 5 %; "" if there is none.
    """
    living = clip_mean[:, alive]
    names, aurocs = concept_aurocs(living, clips)
    chance = chance_aurocs(living, clips)
    p_adjusted = chance.corrected_p(aurocs)
    scores = {AUROC: aurocs, "p_adjusted": p_adjusted, **_compared(living, clips, ~np.isnan(aurocs))}
    label = _best_significant(aurocs, p_adjusted)
    scores |= _intervals(living, clips, _reported(aurocs, label))
    texts = np.full(len(alive), "", dtype=object)
    texts[alive] = np.append(np.array(names, dtype=object), "")[label]
    return xr.Dataset(
        {
            **{name: (("feature", "value"), _with_dead(values, alive)) for name, values in scores.items()},
            "auroc_shuffled": ("value", chance.auroc),
            "label": ("feature", texts),
        },
        {"feature": np.arange(len(alive)), "value": names},
    )


def _values(clips: pd.DataFrame) -> Iterator[tuple[ConceptLabels, str]]:
    """Yield all concept values in order."""
    return ((labels, value) for labels in concept_labels(clips) for value in labels.values)


def _compared(
    clip_mean: Float[np.ndarray, "clip feature"],
    clips: pd.DataFrame,
    is_scored: Bool[np.ndarray, "feature value"],
) -> dict[str, Float[np.ndarray, "feature value"]]:
    """Return the scores that compare clips with a value with those of another one."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COMPARED}
    for labels, value in _values(clips):
        of_concept, has = clip_mean[labels.clips], labels.has(value)
        both = [Responses(some, some**2, float(len(some))) for some in (of_concept[has], of_concept[~has])]
        for name, column in columns.items():
            with np.errstate(divide="ignore", invalid="ignore"):  # of a value that all clips have: not scored
                column.append(SCORES[name](*both))
    shape = is_scored.shape[::-1]
    return {
        name: np.where(is_scored, np.array(column, dtype=float).reshape(shape).T, np.nan)
        for name, column in columns.items()
    }


def _best_significant(
    aurocs: Float[np.ndarray, "feature value"], p_adjusted: Float[np.ndarray, "feature value"]
) -> np.ndarray:
    """Return the position of each feature's significant value of highest AUROC, or -1."""
    if not aurocs.shape[1]:
        return np.full(len(aurocs), -1)
    significant = np.where(p_adjusted <= ALPHA, aurocs, -np.inf)
    return np.where(np.isinf(significant).all(axis=1), -1, significant.argmax(axis=1))


def _reported(
    aurocs: Float[np.ndarray, "feature value"], label: np.ndarray
) -> Bool[np.ndarray, "feature value"]:
    """Which scores get an interval."""
    reported = np.zeros(aurocs.shape, dtype=bool)
    top = np.argsort(-aurocs, axis=0, kind="stable")[:TOP_FEATURES]
    np.put_along_axis(reported, top, True, axis=0)
    labelled = np.flatnonzero(label >= 0)
    reported[labelled, label[labelled]] = True
    return reported & ~np.isnan(aurocs)


def _intervals(
    clip_mean: Float[np.ndarray, "clip feature"],
    clips: pd.DataFrame,
    reported: Bool[np.ndarray, "feature value"],
) -> dict[str, Float[np.ndarray, "feature value"]]:
    """Return the ends of the intervals of the reported scores, by `<score>_lo` and `<score>_hi`."""
    ends = {f"{name}_{end}": np.full(reported.shape, np.nan) for name in SCORED for end in ("lo", "hi")}
    for place, (labels, value) in enumerate(_values(clips)):
        if not (features := np.flatnonzero(reported[:, place])).size:
            continue
        found = score_intervals(clip_mean[labels.clips][:, features], labels, value)
        for name, (low, high) in found.items():
            ends[f"{name}_lo"][features, place], ends[f"{name}_hi"][features, place] = low, high
    return ends


def _with_dead(
    scores: Float[np.ndarray, "living value"], alive: Bool[np.ndarray, " feature"]
) -> Float[np.ndarray, "feature value"]:
    """Return the scores of all features: NaN for dead ones."""
    every = np.full((len(alive), scores.shape[1]), np.nan)
    every[alive] = scores
    return every
