"""Stability: how many features of an SAE another one has, too, such as one of another seed.

Features of two SAEs are matched one to one so that the sum of the cosines of their decoder rows is largest (the
Hungarian method; Paulo & Belrose, arXiv 2501.16615). A feature whose match has a high cosine was found twice; one that
depends on the seed has none.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.sae.matching import one_to_one, units
from cache.errors import UserError
from workbench.sae.base import SAE

THRESHOLDS = (0.9, 0.7, 0.5)
"""Cosines above which a feature counts as found by the other SAE, too."""


def stability(sae: SAE, others: Mapping[str, SAE]) -> xr.Dataset:
    """Match the features of an SAE with those of others, given by name.

    Returns:
        `matched_cosine` (other, feature): the cosine of each feature with its match, NaN if the other has fewer
        features and it has none; `matched_feature` (other, feature), its number, or -1; `matched_share` (other,
        threshold): the share of the features that have a match of a higher cosine than the threshold.

    Raises:
        UserError: if one of the others has another number of channels.
    """
    for name, other in others.items():
        if other.config.d_out != sae.config.d_out:
            raise UserError(
                f"The autoencoder '{name}' has {other.config.d_out} channels, and the one that it is compared with "
                f"{sae.config.d_out}. Compare autoencoders of the same width."
            )
    cosines = np.full((len(others), sae.config.d_sae), np.nan)
    features = np.full(cosines.shape, -1)
    for place, other in enumerate(others.values()):
        own, match, cosine = one_to_one(_directions(sae), _directions(other))
        cosines[place, own], features[place, own] = cosine, match
    shares = [[(np.nan_to_num(row) > threshold).mean() for threshold in THRESHOLDS] for row in cosines]
    return xr.Dataset(
        {
            "matched_cosine": (("other", "feature"), cosines),
            "matched_feature": (("other", "feature"), features),
            "matched_share": (("other", "threshold"), np.reshape(shares, (len(others), len(THRESHOLDS)))),
        },
        {"other": list(others), "feature": range(sae.config.d_sae), "threshold": list(THRESHOLDS)},
    )


def _directions(sae: SAE) -> Float[np.ndarray, "feature channel"]:
    return units(sae.W_dec.detach().double().numpy(force=True))
