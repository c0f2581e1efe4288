"""The positive control: whether a judge tells the real prompts apart at all, before any curve of its is believed."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from analyses.evaluation.replicates import CONFIDENCE, Interval, Replicates
from analyses.statistics import fewest_pairs
from analyses.steering.checks import NOT_INTERPRETABLE, TOO_FEW

LEAST_SHARE_RIGHT = 0.75
"""A judge must get this share of pairs right.

Chance is .5. A published judge that heard nothing of its concepts got 60 to 66 % right, one that did 86 % (DEMON's
positive control on Stable Audio 3), and with enough pairs the interval of the former's mean is above 0, too. Of normal
differences, .75 is a mean of .67 of their standard deviation, between a medium and a large effect.
"""
NO_SCORES = "no scores"
TOO_OFTEN_WRONG = "not interpretable: the judge gets too few of the real prompts' pairs right"


def positive_control(
    score: xr.DataArray, replicates: Replicates, towards: int = 1, confidence: float = CONFIDENCE
) -> xr.Dataset:
    """Compare a judge's scores of the real positive prompts' clips with those of the real negative ones.

    A judge is `interpretable` if the interval of the mean difference is above 0, the share of pairs the right way at
    least `LEAST_SHARE_RIGHT`, and there are enough pairs to tell (`fewest_pairs`).

    Args:
        score: scores of one concept, with dims pair, seed, arm and scorer; the arms include `clean` and `corrupt`.
        replicates: of the same pairs.
        towards: 1 if `clean` is the positive prompt's run, -1 if it is the negative one's.
        confidence: confidence level.

    Returns:
        By scorer: `control` (mean difference positive - negative), `control_lo`, `control_hi`, `control_share` (of the
        pairs, the part whose mean difference is above 0, ties counting half: the common-language effect of McGraw and
        Wong, 1992, for pairs), `control_share_lo`, `control_share_hi` (Wilson 1927), `control_n` (pairs),
        `interpretable`, and `reason`, why it is not, or "".
    """
    difference = towards * (score.sel(arm="clean", drop=True) - score.sel(arm="corrupt", drop=True))
    difference = difference.transpose("pair", "seed", "scorer")
    of_pair = difference.mean("seed").values
    n = (~np.isnan(of_pair)).sum(axis=0)
    effect = replicates.interval(replicates.means(difference.values), n, confidence)
    right = (of_pair > 0).sum(axis=0) + (of_pair == 0).sum(axis=0) / 2
    share = _share(right, n, confidence)
    wrong = np.select(
        [n == 0, n < fewest_pairs(), ~(effect.low > 0), share.value < LEAST_SHARE_RIGHT],
        [NO_SCORES, TOO_FEW, NOT_INTERPRETABLE, TOO_OFTEN_WRONG],
        "",
    )
    variables = {
        **effect.named("control", "scorer"),
        **share.named("control_share", "scorer"),
        "control_n": ("scorer", n),
        "interpretable": ("scorer", wrong == ""),
        "reason": ("scorer", wrong.astype(object)),
    }
    return xr.Dataset(variables, {"scorer": score.scorer.values})


def _share(right: Float[np.ndarray, " cell"], n: Int[np.ndarray, " cell"], confidence: float) -> Interval:
    """Return a share with Wilson's score interval, which also has a width where all are right; NaN without any."""
    z = stats.norm.ppf((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = right / n
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, centre - half, centre + half)
