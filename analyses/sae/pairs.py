"""The features of two SAEs of a study in pairs: which feature of the other is the same as each of one's own."""

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
By = Literal["decoder", "clips"]


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


def feature_pairs(study: Study, name: str, other: str, by: By | None = None) -> Pairs:
    """Match the features of two SAEs of a study that are active in any clip (see `analyses.sae.matching`).

    Args:
        study: the study.
        name: the SAE whose features are looked at.
        other: the SAE in which counterparts are sought.
        by: "decoder" for the cosine of decoder rows, "clips" for the correlation over clips; by default the first,
            unless the SAEs have other widths.

    Raises:
        UserError: if an SAE or the codes of its features are missing or damaged, or decoders of different widths are to
            be compared.
    """
    clips = study.clips["clip"].to_numpy()
    if len(clips) > MOST_CLIPS:
        clips = clips[np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int)]
    one, two = (_side(study, each, clips) for each in (name, other))
    widths = one.decoder.shape[1], two.decoder.shape[1]
    if by is None:
        by = "decoder" if widths[0] == widths[1] else "clips"
    if by == "decoder" and widths[0] != widths[1]:
        raise UserError(
            f"The decoders of '{name}' and '{other}' cannot be compared: they write to {widths[0]} and {widths[1]} "
            "channels. Compare when their features are active."
        )
    found = (
        match_features(one.decoder, two.decoder) if by == "decoder" else match_features(one.means, two.means)
    )
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


def _side(study: Study, name: str, clips: np.ndarray) -> _Side:
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
    return _Side(decoder[alive], centred(means), alive)
