"""The table of an SAE's features: each feature's activity, top clips, step profile, concepts and neighbours."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from analyses.sae.activity import BINS, QUANTILES, Activity, Spread, measure_activity, measure_spread
from analyses.sae.codes import Axes, ClipCodes
from analyses.sae.concept_scores import concept_scores
from analyses.sae.neighbours import NEIGHBOURS, coactive_neighbours, decoder_neighbours, sampled_rows

TOP_CLIPS = 12

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


def feature_table(
    codes: Iterable[ClipCodes],
    axes: Axes,
    w_dec: Float[np.ndarray, "feature channel"],
    clips: pd.DataFrame,
) -> xr.Dataset:
    """Compute the feature table of a result of kind "sae", holding the codes of one clip at a time in memory.

    - density: fraction of rows with a positive activation. alive: density above 0.
    - max_activation; mean_activation: mean over the rows in which the feature is positive (0 for a dead feature).
    - top_clip, top_activation, top_second, top_step: clips in descending order of their largest activation, and its
      position in the clip (start of the token in seconds, denoising step). A clip has at most one rank; ranks beyond
      the clips in which the feature is positive have clip and step -1, and NaN.
    - quantile_clip, quantile_activation, quantile_second, quantile_step: the same for moments at `QUANTILES` of the
      positive activations (see `analyses.sae.activity`); -1 and NaN for a dead feature.
    - hist_count, hist_edge: number of positive activations in equal bins from 0 to the largest; left edges.
    - step_profile: mean activation over clips and tokens, zeros included.
    - auroc, tfidf, diff, cohens_d, their intervals and p, and label: see `analyses.sae.concept_scores`.
    - decoder_neighbour, decoder_cosine; coactive_neighbour, coactive_jaccard: see `analyses.sae.neighbours`.

    Args:
        codes: the codes of every clip in `clips`, in order; iterated over several times.
        axes: the steps and tokens of the clips.
        w_dec: the decoder.
        clips: the study's clip table.
    """
    activity = measure_activity(codes, axes)
    peak = activity.peak.max(axis=0)
    clip_mean = activity.clip_mean.mean(axis=0)
    alive = activity.active > 0
    numbers = clips["clip"].to_numpy()
    spread = measure_spread(codes, activity)
    table = xr.Dataset(
        {
            "density": ("feature", activity.density),
            "alive": ("feature", alive),
            "max_activation": ("feature", peak),
            "mean_activation": (
                "feature",
                np.divide(clip_mean, activity.density, out=np.zeros_like(clip_mean), where=alive),
            ),
            **top_clips(activity, numbers, axes),
            **quantile_moments(spread, numbers, axes),
            "hist_count": (("feature", "bin"), spread.histogram),
            "hist_edge": (("feature", "bin"), peak[:, None] * np.arange(BINS) / BINS),
            "step_profile": (("feature", "step"), activity.step_mean.T),
            **neighbours(codes, axes, w_dec, alive, len(clips)),
        },
        {
            "feature": np.arange(len(peak)),
            "rank": np.arange(min(TOP_CLIPS, len(clips))),
            "quantile": list(QUANTILES),
            "bin": np.arange(BINS),
            "step": list(axes.steps),
            "neighbour": np.arange(NEIGHBOURS),
        },
    )
    return table.merge(concept_scores(activity.clip_mean, alive, clips))


def top_clips(activity: Activity, clips: Int[np.ndarray, " clip"], axes: Axes) -> Variables:
    """Return the `top_...` variables of the table, dims (feature, rank)."""
    order = np.argsort(-activity.peak, axis=0, kind="stable")[:TOP_CLIPS]
    activation = np.take_along_axis(activity.peak, order, axis=0).T
    row = np.take_along_axis(activity.peak_row, order, axis=0).T
    fires = activation > 0
    clip = np.where(fires, clips[order.T], -1)
    return _moments("top", "rank", clip, row, np.where(fires, activation, np.nan), axes)


def quantile_moments(spread: Spread, clips: Int[np.ndarray, " clip"], axes: Axes) -> Variables:
    """Return the `quantile_...` variables of the table, dims (feature, quantile)."""
    clip = np.where(spread.clip >= 0, clips[spread.clip], -1)
    return _moments("quantile", "quantile", clip, spread.row, spread.value, axes)


def _moments(
    prefix: str,
    dimension: str,
    clip: Int[np.ndarray, "feature moment"],
    row: Int[np.ndarray, "feature moment"],
    activation: Float[np.ndarray, "feature moment"],
    axes: Axes,
) -> Variables:
    """Return where moments are: the position of a row in seconds, and its step."""
    step, token = np.divmod(row, axes.tokens)
    values = {
        "clip": clip,
        "activation": activation,
        "second": np.where(clip >= 0, token * axes.token_seconds, np.nan),
        "step": np.where(clip >= 0, np.array(axes.steps)[step], -1),
    }
    return {f"{prefix}_{name}": (("feature", dimension), value) for name, value in values.items()}


def neighbours(
    codes: Iterable[ClipCodes],
    axes: Axes,
    w_dec: Float[np.ndarray, "feature channel"],
    alive: np.ndarray,
    n_clips: int,
) -> Variables:
    """Return the nearest features, dims (feature, neighbour)."""
    by_decoder, cosine = decoder_neighbours(w_dec, alive)
    coactive, jaccard = coactive_neighbours(sampled_rows(codes, n_clips, axes))
    values = {
        "decoder_neighbour": by_decoder,
        "decoder_cosine": cosine,
        "coactive_neighbour": coactive,
        "coactive_jaccard": jaccard,
    }
    return {name: (("feature", "neighbour"), value) for name, value in values.items()}
