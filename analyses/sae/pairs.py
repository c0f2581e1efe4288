"""The features of two SAEs of a study in pairs: which feature of the other is the same as each of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from analyses.sae.codes import CODES, read_codes
from analyses.sae.matching import centred, match_features, similarities
from analyses.sae.spec import FOLDER
from cache.errors import UserError
from workbench.studies.study import Study

MOST_CLIPS = 512
"""Clips over which activity is compared; of more, as many at even distances."""
READING = 0.2
"""About the part of the work that the codes of one SAE are."""
By = Literal["decoder", "clips"]
Progress = Callable[[float], None]


class Pairs(NamedTuple):
    """Features in pairs.

    `frame` has a row for each feature that is active in any clip: feature, other (its counterpart; -1 for none), cosine
    of the decoder rows (NaN if the SAEs have other widths), correlation of mean activations over clips (NaN where
    either is the same in all), and is_mutual (each is the other's nearest).
    """

    frame: pd.DataFrame
    by: By
    is_one_to_one: bool
    """Whether no feature has two counterparts; otherwise each has its nearest."""
    clips: int
    """Number of clips over which activity was compared."""
    others: int
    """Number of features of the other SAE that are active in any clip."""


class _Side(NamedTuple):
    decoder: Float32[np.ndarray, "feature channel"]
    means: Float32[np.ndarray, "feature clip"]
    alive: Bool[np.ndarray, " feature"]


def feature_pairs(
    study: Study, name: str, other: str, by: By | None = None, progress: Progress = lambda _: None
) -> Pairs:
    """Match the features of two SAEs of a study that are active in any clip (see `analyses.sae.matching`).

    Args:
        study: the study.
        name: the SAE whose features are looked at.
        other: the SAE in which counterparts are sought.
        by: "decoder" for the cosine of decoder rows, "clips" for the correlation over clips; by default the first,
            unless the SAEs have other widths.
        progress: called with the fraction of the work that is done.

    Raises:
        UserError: if an SAE or the codes of its features are missing or damaged, or decoders of different widths are to
            be compared.
    """
    clips = study.clips["clip"].to_numpy()
    if len(clips) > MOST_CLIPS:
        clips = clips[np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int)]
    one = _side(study, name, clips, _part(progress, 0.0, READING))
    two = _side(study, other, clips, _part(progress, READING, 2 * READING))
    widths = one.decoder.shape[1], two.decoder.shape[1]
    if by is None:
        by = "decoder" if widths[0] == widths[1] else "clips"
    if by == "decoder" and widths[0] != widths[1]:
        raise UserError(
            f"The decoders of '{name}' and '{other}' cannot be compared: they write to {widths[0]} and {widths[1]} "
            "channels. Compare when their features are active."
        )
    profiles = (one.decoder, two.decoder) if by == "decoder" else (one.means, two.means)
    found = match_features(*profiles, _part(progress, 2 * READING, 1.0))
    chosen = found.chosen
    nothing = np.full(len(chosen), np.nan)
    known = np.flatnonzero(two.alive)
    frame = pd.DataFrame(
        {
            "feature": np.flatnonzero(one.alive),
            "other": np.where(chosen >= 0, known[chosen], -1) if known.size else chosen,
            "cosine": similarities(one.decoder, two.decoder, chosen) if widths[0] == widths[1] else nothing,
            "correlation": similarities(one.means, two.means, chosen),
            "is_mutual": found.is_mutual,
        }
    )
    return Pairs(frame, by, found.match is not None, len(clips), len(known))


def _part(progress: Progress, first: float, last: float) -> Progress:
    """Return the progress of a part of the work, from one fraction of the whole to another."""
    return lambda done: progress(first + (last - first) * done)


def _side(study: Study, name: str, clips: np.ndarray, progress: Progress) -> _Side:
    """Return the profiles of the features of an SAE that are active in any clip, and which ones these are."""
    from analyses.sae.names import PREFIX, load_sae  # imports torch

    alive = study.result(PREFIX + name)["alive"].values.astype(bool)
    decoder = load_sae(study, name).W_dec.detach().float().numpy()
    means = np.empty((len(clips), int(alive.sum())), dtype=np.float32)
    for place, clip in enumerate(clips):
        codes, axes = read_codes(study.path, Path(FOLDER, name, CODES), int(clip))
        if not len(codes.counts) == len(alive) == len(decoder):
            raise UserError(
                f"The autoencoder '{name}' of {study.path}, its result and its codes have other numbers of features. "
                "Delete it, and train or import it again."
            )
        sums = np.bincount(codes.feature, weights=codes.value, minlength=len(alive))
        means[place] = sums[alive] / axes.rows
        progress((place + 1) / len(clips))
    return _Side(decoder[alive], centred(means), alive)
