"""Activations of features in one clip, from the codes that were kept when the features were described."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from analyses.sae.codes import CODES, Axes, read_codes
from analyses.sae.spec import FOLDER
from cache.errors import UserError
from workbench.studies.study import Study


def feature_trace(study: Study, name: str, feature: int, clip: int) -> xr.DataArray:
    """Return the activations of one feature over one clip, dims (step, token), coords step, sigma and seconds.

    Nothing is encoded: they are those on which the result "sae-<name>" is based.

    Raises:
        UserError: if there is no such autoencoder, feature or clip, or what was kept of the clip is damaged.
    """
    _check_clip(study, clip)
    codes, axes = read_codes(study.path, Path(FOLDER, name, CODES), clip)
    n_features = len(codes.pointer) - 1
    if not 0 <= feature < n_features:
        raise UserError(f"The sparse autoencoder '{name}' has features 0 to {n_features - 1}; got {feature}.")
    return _over_clip(codes.dense(feature, axes.rows), axes).rename(f"{name} feature {feature}")


def total_trace(study: Study, name: str, clip: int) -> xr.DataArray:
    """Return the sum of the activations of all features over one clip, as `feature_trace`.

    Raises:
        UserError: if there is no such autoencoder or clip, or what was kept of the clip is damaged.
    """
    _check_clip(study, clip)
    codes, axes = read_codes(study.path, Path(FOLDER, name, CODES), clip)
    sums = np.bincount(codes.row, weights=codes.value, minlength=axes.rows)
    return _over_clip(sums, axes).rename(f"{name}, all features")


def _over_clip(values: Float[np.ndarray, " row"], axes: Axes) -> xr.DataArray:
    """Return values of a clip's rows by step and token."""
    return xr.DataArray(
        values.reshape(len(axes.steps), axes.tokens),
        dims=("step", "token"),
        coords={
            "step": list(axes.steps),
            "sigma": ("step", list(axes.sigmas)),
            "seconds": ("token", np.arange(axes.tokens) * axes.token_seconds),
        },
        attrs={"token_seconds": axes.token_seconds},
    )


def active_features(
    study: Study, name: str, clip: int, second: float | None = None, step: int | None = None
) -> pd.DataFrame:
    """Return the features that are active in a clip, at a second and at a step of it.

    Columns feature, activation (the largest at these tokens and steps), and where that is: second (start of the token)
    and step; largest activation first.

    Args:
        study: the study.
        name: the autoencoder.
        clip: number of the clip.
        second: a time in the clip; None for all tokens.
        step: a denoising step; None for all.

    Raises:
        UserError: if there is no such clip, second or step, or what was kept of the clip is missing or damaged.
    """
    _check_clip(study, clip)
    codes, axes = read_codes(study.path, Path(FOLDER, name, CODES), clip)
    place, token = np.divmod(codes.row, axes.tokens)
    wanted = np.ones(len(codes.row), dtype=bool)
    if second is not None:
        if not 0 <= second <= axes.tokens * axes.token_seconds:
            raise UserError(
                f"Clip {clip} lasts {axes.tokens * axes.token_seconds:g} s; there is no second {second:g}."
            )
        wanted &= token == min(int(second / axes.token_seconds), axes.tokens - 1)
    if step is not None:
        if step not in axes.steps:
            raise UserError(
                f"There is no step {step} among the cached ones: {', '.join(map(str, axes.steps))}."
            )
        wanted &= place == axes.steps.index(step)
    found = pd.DataFrame(
        {
            "feature": codes.feature[wanted],
            "activation": codes.value[wanted].astype(float),
            "second": token[wanted] * axes.token_seconds,
            "step": np.asarray(axes.steps)[place[wanted]],
        }
    )
    found = found.sort_values("activation", ascending=False, kind="stable")
    return found.drop_duplicates("feature").reset_index(drop=True)


def _check_clip(study: Study, clip: int) -> None:
    if clip not in study.clips["clip"].to_numpy():
        raise UserError(f"{study.path} has no clip {clip}: its clips are 0 to {len(study.clips) - 1}.")
