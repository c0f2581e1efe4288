"""Directions at a site, as labelled arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from workbench.engine.sites import Site


def labelled(values: np.ndarray, site: str, passes: Sequence[str], sigmas: Sequence[float]) -> xr.DataArray:
    """Return a site's directions (pass, step, channel) or (pass, step, token, channel) with their coordinates."""
    dims = ("pass", "step", "token", "channel") if values.ndim == 4 else ("pass", "step", "channel")
    return xr.DataArray(values, _coordinates(passes, sigmas), dims, name=site)


def labelled_norms(
    values: np.ndarray, site: str, passes: Sequence[str], sigmas: Sequence[float]
) -> xr.DataArray:
    """Return the norms (pass, step) of a site's directions with their coordinates."""
    return xr.DataArray(values, _coordinates(passes, sigmas), ("pass", "step"), name=site)


def at_steps(array: xr.DataArray, steps: Sequence[int], sigmas: Sequence[float]) -> xr.DataArray:
    """Return directions, or their norms, with those of the given steps, one for each of some sigmas."""
    return array.isel(step=list(steps)).assign_coords(step=range(len(sigmas)), sigma=("step", list(sigmas)))


def nearest_steps(sigmas: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Return the step of the nearest sigma for each sigma wanted; of two equally near ones, the earlier."""
    known = np.asarray(sigmas, dtype=float)
    return [int(np.abs(known - sigma).argmin()) for sigma in wanted]


def _coordinates(passes: Sequence[str], sigmas: Sequence[float]) -> Mapping[str, object]:
    return {"pass": list(passes), "step": range(len(sigmas)), "sigma": ("step", list(sigmas))}


def norms(directions: xr.DataArray) -> xr.DataArray:
    """Return the norm of each direction by pass and step; if it has tokens, the root mean square over them."""
    squares = (directions.astype(float) ** 2).sum("channel")
    return (squares.mean("token") if "token" in squares.dims else squares) ** 0.5


def hook(site: str) -> str:
    """Return what a direction at a site is added to: the output of the site's module."""
    return f"{Site.parse(site).part} output"
