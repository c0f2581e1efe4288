"""Tables of how well both sides' autoencoders find planted features, and how the two sides differ."""

import pandas as pd
from scipy import stats

METRICS = ("f1", "mcc", "uniqueness", "explained_variance")
"""Those in which ours should not be below theirs."""
MARGIN = 0.01
_NAMES = {"f1": "F1", "mcc": "MCC", "explained_variance": "explained variance", "l0": "L0"}


def by_side(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the metrics: mean and range over seeds, by kind and side.

    Args:
        found: a row for each autoencoder, with `kind`, `side` ("ours" or "SAELens"), `seed` and the metrics.
    """
    groups = found.groupby(["kind", "side"], sort=False)[[*METRICS, "l0", "dead"]]
    cells = groups.agg(lambda values: f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})")
    order = [(kind, side) for kind in found["kind"].unique() for side in ("ours", "SAELens")]
    return cells.loc[order].reset_index().rename(columns=_NAMES)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """Return ours less SAELens' with the same seed: mean and ends of its 95 % interval (Student), by kind and metric.

    Columns: `kind`, `metric`, `mean`, `low`, `high`.
    """
    sides = found.set_index(["kind", "seed"]).pivot(columns="side", values=list(METRICS))
    made = []
    for kind in found["kind"].unique():
        for metric in METRICS:
            apart = sides.loc[kind][metric]["ours"] - sides.loc[kind][metric]["SAELens"]
            half = stats.t.ppf(0.975, len(apart) - 1) * apart.sem()
            made.append((kind, metric, apart.mean(), apart.mean() - half, apart.mean() + half))
    return pd.DataFrame(made, columns=["kind", "metric", "mean", "low", "high"])


def differences_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the differences, a row for each kind."""
    each = differences(found)
    each["cell"] = [f"{m:+.3f} ({low:+.3f} to {high:+.3f})" for m, low, high in each.iloc[:, 2:].to_numpy()]
    cells = each.pivot(index="kind", columns="metric", values="cell")
    return cells.loc[found["kind"].unique(), list(METRICS)].reset_index().rename(columns=_NAMES)


def below(found: pd.DataFrame) -> list[str]:
    """Return where the mean of ours is below that of SAELens by more than the margin: `<kind> <metric>`."""
    each = differences(found)
    short = each[each["mean"] < -MARGIN]
    return [f"{kind} {metric}" for kind, metric in zip(short["kind"], short["metric"], strict=True)]
