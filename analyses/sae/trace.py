"""One feature's activation over one clip, from the codes that were kept when the features were described."""

from pathlib import Path

import numpy as np
import xarray as xr

from analyses.sae.codes import CODES, read_codes
from analyses.sae.spec import FOLDER
from cache.errors import UserError
from workbench.studies.study import Study


def feature_trace(study: Study, name: str, feature: int, clip: int) -> xr.DataArray:
    """Return the activations of one feature over one clip, dims (step, token), coords step, sigma and seconds.

    Nothing is encoded: they are those on which the result "sae-<name>" is based.

    Raises:
        UserError: if there is no such autoencoder, feature or clip, or what was kept of the clip is damaged.
    """
    if clip not in study.clips["clip"].to_numpy():
        raise UserError(f"{study.path} has no clip {clip}: its clips are 0 to {len(study.clips) - 1}.")
    codes, axes = read_codes(study.path, Path(FOLDER, name, CODES), clip)
    n_features = len(codes.pointer) - 1
    if not 0 <= feature < n_features:
        raise UserError(f"The sparse autoencoder '{name}' has features 0 to {n_features - 1}; got {feature}.")
    return xr.DataArray(
        codes.dense(feature, axes.rows).reshape(len(axes.steps), axes.tokens),
        dims=("step", "token"),
        coords={
            "step": list(axes.steps),
            "sigma": ("step", list(axes.sigmas)),
            "seconds": ("token", np.arange(axes.tokens) * axes.token_seconds),
        },
        name=f"{name} feature {feature}",
    )
