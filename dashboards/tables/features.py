"""Tables of a sparse autoencoder's features, and the names of its metrics."""

import numpy as np
import pandas as pd
import xarray as xr

MEASURES = ("loss", "explained_variance", "l0", "dead_fraction")


def features_frame(result: xr.Dataset) -> pd.DataFrame:
    """One row for each feature: feature, alive, density, max_activation, mean_activation, best_value, best_auroc,
    shuffled_auroc.

    `best_value` is the concept value that the feature distinguishes best; "" if no AUROC is defined. `shuffled_auroc`
    is the AUROC for that value that the best feature exceeds in 5 % of shuffles of its labels.
    """
    auroc = result["auroc"].transpose("feature", "value").values.astype(float)
    known = ~np.isnan(auroc).all(axis=1)
    best = np.where(np.isnan(auroc), -np.inf, auroc).argmax(axis=1)
    names = np.asarray([str(value) for value in result["value"].values], dtype=object)
    return pd.DataFrame(
        {
            "feature": result["feature"].values.astype(int),
            "alive": result["alive"].values.astype(bool),
            "density": result["density"].values.astype(float),
            "max_activation": result["max_activation"].values.astype(float),
            "mean_activation": result["mean_activation"].values.astype(float),
            "best_value": np.where(known, names[best], ""),
            "best_auroc": np.where(known, auroc[np.arange(len(best)), best], np.nan),
            "shuffled_auroc": np.where(known, result["auroc_shuffled"].values.astype(float)[best], np.nan),
        }
    )


def examples_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """Top-activating clips of a feature, highest first: rank, clip, activation, second, step; empty if it is dead."""
    one = result.sel(feature=feature)
    frame = pd.DataFrame(
        {
            "rank": result["rank"].values.astype(int),
            "clip": one["top_clip"].values.astype(int),
            "activation": one["top_activation"].values.astype(float),
            "second": one["top_second"].values.astype(float),
            "step": one["top_step"].values.astype(int),
        }
    )
    return frame[frame["clip"] >= 0].reset_index(drop=True)
