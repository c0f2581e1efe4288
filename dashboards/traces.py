"""Activations over one clip, of a feature and of all, looked up in the codes of the clip, and memoised."""

from functools import lru_cache

import xarray as xr

from analyses.sae.trace import feature_trace, total_trace
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


@lru_cache(maxsize=REMEMBERED)
def _total(study: Study, version: Identity, name: str, clip: int) -> xr.DataArray:
    del version  # as in `_trace`
    return total_trace(study, name, clip)


def activation_total(study: Study, name: str, clip: int) -> xr.DataArray:
    """Activation of all features in a clip, their sum, as `activation_trace`; its `token_seconds` is an attribute."""
    return _total(study, result_identity(study, f"sae-{name}"), name, clip)
