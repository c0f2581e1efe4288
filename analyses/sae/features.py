"""The table of an SAE's features: each feature's activity, top clips, step profile and concepts."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import rankdata

from analyses.statistics import ALPHA
from cache import CachePlan
from workbench.sae.base import SAE

TOP_CLIPS = 12
BINS = 30
FEWEST_PROMPTS = 2
SHUFFLES = 200

ClipActivations = Iterable[Float[np.ndarray, "step token channel"]]


class Activity(NamedTuple):
    """Summary statistics of all clips' feature activations, from which the table of features is made."""

    peak: Float[np.ndarray, "clip feature"]  # largest activation over steps and tokens
    peak_row: Int[np.ndarray, "clip feature"]  # its position: step position * tokens + token
    clip_mean: Float[np.ndarray, "clip feature"]
    step_mean: Float[np.ndarray, "step feature"]
    density: Float[
        np.ndarray, " feature"
    ]  # fraction of the rows (clip, step, token) with a positive activation


def feature_table(
    sae: SAE, clip_acts: Callable[[], ClipActivations], clips: pd.DataFrame, plan: CachePlan
) -> xr.Dataset:
    """Compute the feature table of a result of kind "sae", holding one clip at a time in memory.

    - density: fraction of rows with a positive activation. alive: density above 0.
    - max_activation; mean_activation: mean over the rows in which the feature is positive (0 for a dead feature).
    - top_clip, top_activation, top_second, top_step: clips in descending order of their largest activation, and its
      position in the clip (start of the token in seconds, denoising step). A clip has at most one rank; ranks beyond
      the clips in which the feature is positive have clip and step -1, and NaN.
    - hist_count, hist_edge: number of positive activations in equal bins from 0 to the largest; left edges.
    - step_profile: mean activation over clips and tokens, zeros included.
    - auroc: AUROC of the clip-mean activation for "the clip has this value", among the clips with a value of the
      concept; NaN for a value without one (`ConceptLabels.has_auroc`), and for dead features.
    - auroc_shuffled: the AUROC that the best feature exceeds in 5 % of shuffles of the labels (`shuffled_aurocs`).

    Args:
        sae: the autoencoder.
        clip_acts: returns the activations of every clip in `clips`, in order; called twice.
        clips: the study's clip table.
        plan: plan of the cache that the activations come from.
    """
    activity = measure_activity(sae, clip_acts())
    peak = activity.peak.max(axis=0)
    clip_mean = activity.clip_mean.mean(axis=0)
    alive = activity.density > 0
    mean = np.divide(clip_mean, activity.density, out=np.zeros_like(clip_mean), where=alive)
    values, aurocs = concept_aurocs(activity.clip_mean, clips)
    return xr.Dataset(
        {
            "density": ("feature", activity.density),
            "alive": ("feature", alive),
            "max_activation": ("feature", peak),
            "mean_activation": ("feature", mean),
            **top_clips(activity, clips["clip"].to_numpy(), plan),
            "hist_count": (("feature", "bin"), histograms(sae, clip_acts(), peak)),
            "hist_edge": (("feature", "bin"), peak[:, None] * np.arange(BINS) / BINS),
            "step_profile": (("feature", "step"), activity.step_mean.T),
            "auroc": (("feature", "value"), np.where(alive[:, None], aurocs, np.nan)),
            "auroc_shuffled": ("value", shuffled_aurocs(activity.clip_mean[:, alive], clips)),
        },
        {
            "feature": np.arange(len(peak)),
            "rank": np.arange(min(TOP_CLIPS, len(clips))),
            "bin": np.arange(BINS),
            "step": list(plan.steps),
            "value": values,
        },
    )


def measure_activity(sae: SAE, clip_acts: ClipActivations) -> Activity:
    """Encode all clips and summarise their feature activations."""
    peaks, peak_rows, clip_means = [], [], []
    step_sum, density_sum = np.zeros((1, sae.config.d_sae)), np.zeros(sae.config.d_sae)
    for acts in encoded(sae, clip_acts):
        peak = acts.flatten(0, 1).max(dim=0)
        step_mean = acts.mean(dim=1, dtype=torch.float64)
        peaks.append(peak.values.numpy(force=True))
        peak_rows.append(peak.indices.numpy(force=True))
        clip_means.append(step_mean.mean(dim=0).numpy(force=True))
        step_sum = step_sum + step_mean.numpy(force=True)
        density_sum += (acts > 0).double().mean(dim=(0, 1)).numpy(force=True)
    return Activity(
        peak=np.stack(peaks),
        peak_row=np.stack(peak_rows),
        clip_mean=np.stack(clip_means),
        step_mean=step_sum / len(peaks),
        density=density_sum / len(peaks),
    )


def histograms(
    sae: SAE, clip_acts: ClipActivations, peak: Float[np.ndarray, " feature"]
) -> Int[np.ndarray, "feature bin"]:
    """Count each feature's positive activations in `BINS` equal bins from 0 to its peak (inclusive)."""
    counts = np.zeros(len(peak) * BINS, dtype=np.int64)
    for acts in encoded(sae, clip_acts):
        rows = acts.flatten(0, 1).numpy(force=True)
        row, feature = rows.nonzero()
        position = np.minimum((rows[row, feature] / peak[feature] * BINS).astype(np.int64), BINS - 1)
        counts += np.bincount(feature * BINS + position, minlength=len(counts))
    return counts.reshape(len(peak), BINS)


def encoded(sae: SAE, clip_acts: ClipActivations) -> Iterator[Float[torch.Tensor, "step token feature"]]:
    """Yield the feature activations of one clip at a time, on the SAE's device."""
    for acts in clip_acts:
        with torch.no_grad():
            z = sae.encode(torch.from_numpy(acts).to(sae.device))
        yield z


def top_clips(
    activity: Activity, clips: Int[np.ndarray, " clip"], plan: CachePlan
) -> dict[str, tuple[tuple[str, str], np.ndarray]]:
    """Return the `top_...` variables of the table, dims (feature, rank)."""
    order = np.argsort(-activity.peak, axis=0, kind="stable")[:TOP_CLIPS]
    activation = np.take_along_axis(activity.peak, order, axis=0).T
    step, token = np.divmod(np.take_along_axis(activity.peak_row, order, axis=0).T, plan.tokens)
    fires = activation > 0
    variables = {
        "top_clip": np.where(fires, clips[order.T], -1),
        "top_activation": np.where(fires, activation, np.nan),
        "top_second": np.where(fires, token * plan.token_seconds, np.nan),
        "top_step": np.where(fires, np.array(plan.steps)[step], -1),
    }
    return {name: (("feature", "rank"), values) for name, values in variables.items()}


class ConceptLabels(NamedTuple):
    """A concept's labels: the clips that have a value, with the labels and numbers of their prompts.

    Prompts that are the same tokens to the model (`encoding` in the clip table) count as one.
    """

    concept: str
    values: list[str]  # in order
    ambiguous: set[str]  # values of prompts that are the same tokens as one with another value
    clips: Int[np.ndarray, " clip"]
    prompt_labels: Shaped[np.ndarray, " prompt"]
    prompt: Int[np.ndarray, " clip"]

    def has_auroc(self, value: str) -> bool:
        """Whether `FEWEST_PROMPTS` prompts have the value and as many lack it, and the model can tell which do.

        A feature of a single prompt would separate that prompt's value, too.
        """
        n = int((self.prompt_labels == value).sum())
        return value not in self.ambiguous and min(n, len(self.prompt_labels) - n) >= FEWEST_PROMPTS


def concept_labels(clips: pd.DataFrame) -> list[ConceptLabels]:
    """Return the labels of each concept, from the `label_<concept>` columns of a study's clip table."""
    found = []
    for column in (name for name in clips.columns if name.startswith("label_")):
        known = np.flatnonzero(clips[column] != "")
        labels = clips[column].to_numpy(str)[known]
        # Numbered in order of appearance, so that shuffles do not depend on the hashes.
        prompt, _ = pd.factorize(clips["encoding"].iloc[known])
        prompt_labels = labels[np.unique(prompt, return_index=True)[1]]
        mixed = np.isin(prompt, prompt[labels != prompt_labels[prompt]])
        found.append(
            ConceptLabels(
                column.removeprefix("label_"),
                sorted(set(labels.tolist())),
                set(labels[mixed].tolist()),
                known,
                prompt_labels,
                prompt,
            )
        )
    return found


def concept_aurocs(
    clip_mean: Float[np.ndarray, "clip feature"], clips: pd.DataFrame
) -> tuple[list[str], Float[np.ndarray, "feature value"]]:
    """Compute the AUROC of each feature for each value of the `label_<concept>` columns, named "concept=value".

    NaN for a value without one (`ConceptLabels.has_auroc`).
    """
    names, columns = [], []
    for labels in concept_labels(clips):
        for value in labels.values:
            names.append(f"{labels.concept}={value}")
            areas = auroc(clip_mean[labels.clips], (labels.prompt_labels == value)[labels.prompt])
            columns.append(areas if labels.has_auroc(value) else np.full_like(areas, np.nan))
    return names, np.array(columns, dtype=np.float64).reshape(len(names), clip_mean.shape[1]).T


def shuffled_aurocs(
    clip_mean: Float[np.ndarray, "clip feature"], clips: pd.DataFrame, seed: int = 0
) -> Float[np.ndarray, " value"]:
    """Compute the AUROC that the best feature exceeds in 5 % of shuffles of a concept's labels between prompts.

    Of many features one separates any value well by chance. A feature above this AUROC is significant at 5 %, corrected
    for the number of features (the maximum statistic of Westfall & Young, Resampling-Based Multiple Testing, 1993), but
    not for the number of values. NaN without features, and where `concept_aurocs` is.
    """
    rng = np.random.default_rng(seed)
    thresholds = []
    for labels in concept_labels(clips):
        ranks = rankdata(clip_mean[labels.clips], axis=0)
        shuffles = np.stack([rng.permutation(labels.prompt_labels) for _ in range(SHUFFLES)])[
            :, labels.prompt
        ]
        for value in labels.values:
            if not (labels.has_auroc(value) and clip_mean.shape[1]):
                thresholds.append(np.nan)
                continue
            has = (shuffles == value).astype(np.float64)
            areas = _areas(has @ ranks, has.sum(axis=1, keepdims=True), len(ranks))
            thresholds.append(np.quantile(areas.max(axis=1), 1 - ALPHA))
    return np.array(thresholds)


def auroc(
    scores: Float[np.ndarray, "clip feature"], positive: Bool[np.ndarray, " clip"]
) -> Float[np.ndarray, " feature"]:
    """Return the area under the ROC curve of every column: Mann–Whitney U / number of pairs; ties count one half."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return np.full(scores.shape[1], np.nan)
    rank_sum = rankdata(scores, axis=0)[positive].sum(axis=0)
    return _areas(rank_sum, n_positive, len(positive))


def _areas(
    rank_sum: Float[np.ndarray, "*shuffle feature"], n_positive: int | Float[np.ndarray, "shuffle 1"], n: int
) -> Float[np.ndarray, "*shuffle feature"]:
    """Return areas under ROC curves from sums of the positive clips' ranks among `n` clips."""
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))
