"""Which features carry the difference between two values of a concept at a site.

Let m_f(v) be the mean activation of feature f over the clips with value v, their steps and tokens, and w_f its decoder
row. The autoencoder reconstructs the difference of means of two values as d = sum_f (m_f(v) - m_f(u)) w_f, as biases
cancel. The part of it that feature f carries is (m_f(v) - m_f(u)) (w_f . d) / |d|^2; the parts sum to 1, and a negative
one works against the difference. If the autoencoder scales its inputs per step, d is the difference of the scaled
activations, not of those at the site. That is what distinguishes the values at the site, not what the model does with
it: causal effects are those of `analyses.evaluation.feature_effects`.
"""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from analyses.sae.concept_labels import concept_labels
from cache.errors import UserError


def value_difference(
    result: xr.Dataset, clips: pd.DataFrame, value: str, against: str = ""
) -> Float[np.ndarray, " feature"]:
    """Return m_f(value) - m_f(against) of every feature; without `against`, of the clips with another value.

    Args:
        result: a result of kind "sae"; `diff` there is the difference to the clips with any other value.
        clips: the study's clip table.
        value: a concept value, such as "mood=sad".
        against: another value of the same concept.

    Raises:
        UserError: if the values are not of one concept of the result, or have no scores.
    """
    concept = value.partition("=")[0]
    known = [str(name) for name in result["value"].values if str(name).startswith(f"{concept}=")]
    for name in filter(None, (value, against)):
        if name not in known or result["diff"].sel(value=name).isnull().all():
            raise UserError(
                f"Features have no scores for '{name[:100]}' beside '{value[:100]}'. Choose two values of a concept "
                f"with at least two prompts each{': ' if known else ''}{', '.join(known)}."
            )
    one = np.nan_to_num(result["diff"].sel(value=value).values.astype(float))
    if not against:
        return one
    other = np.nan_to_num(result["diff"].sel(value=against).values.astype(float))
    return one * _share_without(clips, value) - other * _share_without(clips, against)


def _share_without(clips: pd.DataFrame, value: str) -> float:
    """Return the fraction of a concept's clips that lack a value.

    m(v) = diff(v) (N - n(v)) / N + M / N, with the sum M of all N clips, which cancels in a difference.
    """
    concept, _, name = value.partition("=")
    (labels,) = (labels for labels in concept_labels(clips) if labels.concept == concept)
    return float((~labels.has(name)).mean())


def carried_shares(
    difference: Float[np.ndarray, " feature"], w_dec: Float[np.ndarray, "feature channel"]
) -> Float[np.ndarray, " feature"]:
    """Return the part of the reconstructed difference that each feature carries (see the module); zeros without one."""
    whole = difference @ w_dec
    square = float(whole @ whole)
    return difference * (w_dec @ whole) / square if square > 0 else np.zeros_like(difference)
