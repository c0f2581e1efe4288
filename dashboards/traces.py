"""A feature's activation over one clip, looked up in the codes of the clip, and memoised."""

from functools import lru_cache

import xarray as xr

from analyses.sae.trace import feature_trace
from dashboards.results import Identity, result_identity
from workbench.studies.study import Study

REMEMBERED = 64


@lru_cache(maxsize=REMEMBERED)
def _trace(study: Study, version: Identity, name: str, feature: int, clip: int) -> xr.DataArray:
    del version  # only part of the key: a new autoencoder must not get the old one's traces
    return feature_trace(study, name, feature, clip)


def activation_trace(study: Study, name: str, feature: int, clip: int) -> xr.DataArray:
    """Activation of a feature in a clip, dims (step, token), coords seconds and sigma."""
    return _trace(study, result_identity(study, f"sae-{name}"), name, feature, clip)
