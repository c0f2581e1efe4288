"""Linear mixed models by restricted maximum likelihood; slow to import, as statsmodels is."""

from typing import Any

import numpy as np
from jaxtyping import Float
from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams, MixedLMResultsWrapper

LEAST_EIGENVALUE = 1e-9
"""Variances of random effects below this, relative to the residual's, are taken for none."""


class BoundedMixedLM(MixedLM):
    """statsmodels' `MixedLM` without the covariances of random effects that cannot be inverted.

    There, rounding decides what its likelihood is: often infinite.
    """

    def loglike(
        self, params: MixedLMParams | Float[np.ndarray, " parameter"], profile_fe: bool = True
    ) -> float:
        """Return the log-likelihood; -inf beyond the bound."""
        if not isinstance(params, MixedLMParams):
            params = MixedLMParams.from_packed(params, self.k_fe, self.k_re, self.use_sqrt, has_fe=False)
        variances = [*np.linalg.eigvalsh(params.cov_re), *params.vcomp]
        return super().loglike(params, profile_fe) if min(variances) >= LEAST_EIGENVALUE else -np.inf


def fit(model: BoundedMixedLM) -> MixedLMResultsWrapper:
    """Fit a model by Powell's method.

    Its parameters are square roots of variances. Where one comes near 0, so does the gradient, and methods that follow
    it, as lbfgs, stop short of the maximum, often saying that they converged.
    """
    options: dict[str, Any] = {"method": "powell", "ftol": 1e-7}
    return model.fit(reml=True, **options)
