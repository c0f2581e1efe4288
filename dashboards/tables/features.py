"""Tables of a sparse autoencoder's features, and the names of its metrics."""

import numpy as np
import pandas as pd
import xarray as xr

MEASURES = ("loss", "explained_variance", "l0", "dead_fraction")
STEP_MEASURES = ("explained_variance", "normalised_error", "l0", "dead_fraction")
SCORES = ("auroc", "tfidf", "diff", "cohens_d")
NEARNESS = {"decoder": "cosine", "coactive": "jaccard"}
"""What features are near by, and its measure."""


def features_frame(result: xr.Dataset) -> pd.DataFrame:
    """One row for each feature: feature, alive, density, max_activation, mean_activation, label, best_value,
    best_auroc, its interval best_auroc_lo and best_auroc_hi, best_p, shuffled_auroc.

    `label` is the proposed label, or "". `best_value` is the concept value that the feature distinguishes best; "" if
    no AUROC is defined. `best_p` is its p, corrected for the number of features and values; `shuffled_auroc` is the
    AUROC for that value that the best feature exceeds in 5 % of shuffles of its labels.
    """
    auroc = result["auroc"].transpose("feature", "value").values.astype(float)
    known = ~np.isnan(auroc).all(axis=1)
    best = np.where(np.isnan(auroc), -np.inf, auroc).argmax(axis=1)
    names = np.asarray([str(value) for value in result["value"].values], dtype=object)

    def of_best(name: str) -> np.ndarray:
        values = result[name].transpose("feature", "value").values.astype(float)
        return np.where(known, values[np.arange(len(best)), best], np.nan)

    return pd.DataFrame(
        {
            "feature": result["feature"].values.astype(int),
            "alive": result["alive"].values.astype(bool),
            "density": result["density"].values.astype(float),
            "max_activation": result["max_activation"].values.astype(float),
            "mean_activation": result["mean_activation"].values.astype(float),
            "label": [str(label) for label in result["label"].values],
            "best_value": np.where(known, names[best], ""),
            "best_auroc": of_best("auroc"),
            "best_auroc_lo": of_best("auroc_lo"),
            "best_auroc_hi": of_best("auroc_hi"),
            "best_p": of_best("p_adjusted"),
            "shuffled_auroc": np.where(known, result["auroc_shuffled"].values.astype(float)[best], np.nan),
        }
    )


def examples_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """Top-activating clips of a feature, highest first: rank, clip, activation, second, step; empty if it is dead."""
    ranks = pd.Series(result["rank"].values.astype(int), name="rank")
    return _moments_frame(result.sel(feature=feature), ranks, "top")


def quantiles_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """Moments at quantiles of a feature's positive activations: quantile, clip, activation, second, step; empty if it
    is dead.
    """
    quantiles = pd.Series(result["quantile"].values.astype(float), name="quantile")
    return _moments_frame(result.sel(feature=feature), quantiles, "quantile")


def _moments_frame(one: xr.Dataset, labels: pd.Series, prefix: str) -> pd.DataFrame:
    """Moments of a feature by label, from the variables with a prefix; those without a clip are left out."""
    kinds = {"clip": int, "activation": float, "second": float, "step": int}
    columns: dict[str, np.ndarray] = {
        name: one[f"{prefix}_{name}"].values.astype(kind) for name, kind in kinds.items()
    }
    frame = pd.DataFrame({labels.name: labels, **columns})
    return frame[frame["clip"] >= 0].reset_index(drop=True)


def scores_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """A feature's scores, highest AUROC first: value, then each of `SCORES` with `_lo` and `_hi`, and p_adjusted; empty
    if it is dead.
    """
    one = result.sel(feature=feature)
    columns = [f"{name}{end}" for name in SCORES for end in ("", "_lo", "_hi")]
    frame = pd.DataFrame(
        {
            "value": [str(value) for value in result["value"].values],
            **{name: one[name].values.astype(float) for name in (*columns, "p_adjusted")},
        }
    )
    frame = frame.dropna(subset="auroc").sort_values("auroc", ascending=False, kind="stable")
    return frame.reset_index(drop=True)


def neighbours_frame(result: xr.Dataset, feature: int) -> pd.DataFrame:
    """The nearest features of a feature, nearest first: by (a key of `NEARNESS`), neighbour, similarity."""
    one = result.sel(feature=feature)
    frames = [
        pd.DataFrame(
            {
                "by": by,
                "neighbour": one[f"{by}_neighbour"].values.astype(int),
                "similarity": one[f"{by}_{measure}"].values.astype(float),
            }
        )
        for by, measure in NEARNESS.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame[frame["neighbour"] >= 0].reset_index(drop=True)


EFFECTS = ("effect", "effect_lo", "effect_hi", "null_lo", "null_hi", "p_adjusted")
EFFECTS_VERSION = 4
"""Schema version of the results of kind "feature-effects" that `effects_frame` reads."""


def effects_frame(result: xr.Dataset, name: str, feature: int) -> pd.DataFrame:
    """What happened to scores when a feature was changed, from a result of kind "feature-effects", by its first scorer.

    A row for each cell in which the feature of the autoencoder `name` was changed, and factor: value (on whose
    prompts), set (its name in the study's notes, or ""), changed (how many features of each autoencoder), factor, each
    of `EFFECTS` for the value's concept, and others (the effects on other concepts, by name). Empty if the result has
    none.
    """
    if name not in result["sae"].values:
        return pd.DataFrame()
    one = result.isel(scorer=0)
    changed = [str(feature) in str(text).split(", ") for text in one["features"].sel(sae=name).values]
    lines = []
    for cell in one["cell"].values[np.array(changed) & (one["role"].values == "cell")]:
        of_cell = one.sel(cell=cell)
        value = str(of_cell["value"].item())
        concept = value.partition("=")[0]
        for factor in one["factor"].values:
            at = of_cell.sel(factor=factor)
            rest = at["effect"].drop_sel(concept=concept).dropna("concept")
            lines.append(
                {
                    "value": value,
                    "set": str(of_cell["set"].item()),
                    "changed": int(of_cell["size"]),
                    "factor": float(factor),
                    **{each: float(at[each].sel(concept=concept)) for each in EFFECTS},
                    "others": {str(each): float(rest.sel(concept=each)) for each in rest["concept"].values},
                }
            )
    return pd.DataFrame(lines)
