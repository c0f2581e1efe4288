"""Numbers of a sparse autoencoder: its training, its features, one feature and one clip."""

import numpy as np
import pandas as pd
import xarray as xr

MEASURES = ("loss", "explained_variance", "l0", "dead_fraction")


def training_frame(result: xr.Dataset) -> pd.DataFrame:
    """Training curves and the final held-out figures of a `sae` result: train_step, measure, split, value."""
    steps = [int(step) for step in result["train_step"].values]
    curves = [
        pd.DataFrame(
            {"train_step": steps, "measure": name, "split": "training", "value": result[name].values}
        )
        for name in MEASURES
    ]
    final = [
        {
            "train_step": steps[-1],
            "measure": name,
            "split": "held-out",
            "value": float(result[f"final_{name}"]),
        }
        for name in MEASURES
    ]
    return pd.concat([*curves, pd.DataFrame(final)], ignore_index=True).astype({"value": float})


def features_frame(result: xr.Dataset) -> pd.DataFrame:
    """One row for each feature: feature, alive, density, max_activation, mean_activation, best_value, best_auroc.

    `best_value` is the concept value that the feature tells apart best; "" where no AUROC is defined.
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
        }
    )


def feature_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """What one feature's figure shows, long: feature, panel, label, x, value.

    Panels: "histogram" (x: left edge of the activation bin, value: count), "step_profile" (x: step, value: mean
    activation), "auroc" (label: concept value, value: AUROC of the clip-mean activation).
    """
    one = result.sel(feature=feature)
    values = [str(value) for value in result["value"].values]
    panels = [
        pd.DataFrame({"panel": "histogram", "x": one["hist_edge"].values, "value": one["hist_count"].values}),
        pd.DataFrame(
            {"panel": "step_profile", "x": result["step"].values, "value": one["step_profile"].values}
        ),
        pd.DataFrame({"panel": "auroc", "label": values, "value": one["auroc"].values}),
    ]
    frame = pd.concat(panels, ignore_index=True).assign(feature=feature)
    frame["label"] = frame["label"].fillna("")
    return frame[["feature", "panel", "label", "x", "value"]].astype({"x": float, "value": float})


def telling_values(panel: pd.DataFrame, most: int) -> pd.DataFrame:
    """The `most` rows of a feature's "auroc" panel that are furthest from chance, in order of their AUROC."""
    distance = (panel["value"] - 0.5).abs().fillna(-1.0)
    furthest = panel.loc[distance.sort_values(ascending=False, kind="stable").index[:most]]
    return furthest.sort_values("value", na_position="first", kind="stable")


def examples_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """Top-activating clips of a feature, best first: rank, clip, activation, second, step; empty for a dead one."""
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


def trace_frame(trace: xr.DataArray, feature: int, clip: int) -> pd.DataFrame:
    """A feature's activation in one clip, a row for each step and token, with sigma and seconds."""
    rows = trace.rename("value").to_dataframe().reset_index().assign(feature=feature, clip=clip)
    return rows[["feature", "clip", "step", "sigma", "token", "seconds", "value"]].astype({"value": float})
