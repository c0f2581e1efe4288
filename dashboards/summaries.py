"""Summary tables of results, as commands print them."""

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from analyses.sae.spec import foretelling
from analyses.statistics import too_few_for_one, too_few_pairs
from cache.wording import counted
from dashboards.numbers import fixed, p_value, percent, significant, span
from dashboards.tables.benchmark import areas_of_tada, published_frame, ranking_frame
from dashboards.tables.features import features_frame
from dashboards.tables.patching import DIRECTIONS, agreement, cells_frame, scorers
from dashboards.tables.probes import descriptors_frame, has_descriptors, probes_frame
from dashboards.tables.steering import doses_frame
from dashboards.wording import band, interval, undefined_because
from workbench.sae.settings import sae_kind

NO_SCORES = (
    "the scorer gave no scores: it cannot score the concept's texts, or failed on every clip and printed each reason "
    "as it scored them"
)
TOP_CELLS = 2
TOP_FEATURES = 5


def patching_summary(result: xr.Dataset, scorer: str = "") -> pd.DataFrame:
    """The cells with the largest impact for each concept and direction of a `patching` result, by one scorer.

    The scorer is the first by default; concepts of which it has no scores are left out, unless that are all. Columns:
    concept, direction, cell, impact with its interval, the adjusted p and pairs.
    """
    cells = cells_frame(result, scorer)
    cells = cells[cells["group"] == "cell"].sort_values("impact", ascending=False, kind="stable")
    cells = cells[cells["n_pairs"] > 0] if (cells["n_pairs"] > 0).any() else cells
    by_map = dict(tuple(cells.groupby(["concept", "direction"], sort=False)))
    order = dict.fromkeys(
        (str(concept), direction) for concept in result["concept"].values for direction in DIRECTIONS
    )
    top = pd.concat([by_map[key].head(TOP_CELLS) for key in order if key in by_map])
    return pd.DataFrame(
        {
            "concept": top["concept"],
            "direction": top["direction"],
            "cell": top["row"].where(top["column"].isin(DIRECTIONS), top["row"] + ", " + top["column"]),
            "impact [95 %]": [interval(row, "impact") for _, row in top.iterrows()],
            "p, adjusted": top["p_adjusted"].map(p_value),
            "pairs": top["n_pairs"].map("{:.0f}".format),
        }
    )


def agreement_summary(result: xr.Dataset) -> pd.DataFrame:
    """How far the maps of each two scorers of a `patching` result agree; empty if there is one scorer.

    Columns: concept, scorers, rank correlation with its interval, cells and pairs.
    """
    lines = [
        {
            "concept": concept,
            "scorers": f"{one}, {other}",
            "rank correlation [95 %]": interval(agreed, "agreement"),
            "cells": str(agreed["agreement_cells"]),
            "pairs": str(agreed["agreement_pairs"]),
        }
        for concept in result["concept"].values.tolist()
        for one, other in combinations(scorers(result), 2)
        for agreed in [agreement(result, concept, one)[other]]
        if agreed["agreement_cells"]
    ]
    return pd.DataFrame(lines)


def undefined_notes(result: xr.Dataset, scorer: str = "") -> list[str]:
    """Sentences on why impacts of a `patching` result by one scorer are undefined, one for each reason."""
    cells = cells_frame(result, scorer)
    cells = cells[cells["group"] == "cell"]
    by_reason: dict[str, list[str]] = {}
    for status in ("undefined", "no score"):
        for _, row in cells[cells["status"] == status].drop_duplicates("concept").iterrows():
            reason = undefined_because(row) if status == "undefined" else NO_SCORES
            by_reason.setdefault(reason, []).append(
                f"{row['concept']}: {counted(int(row['n_pairs']), 'pair')}"
            )
    return [f"undefined: {reason} ({', '.join(counts)})." for reason, counts in by_reason.items()]


def has_impacts(result: xr.Dataset, scorer: str = "") -> bool:
    """Whether a cell of a `patching` result has an impact by one scorer."""
    cells = cells_frame(result, scorer)
    return bool(cells[cells["group"] == "cell"]["impact"].notna().any())


def probes_summary(result: xr.Dataset) -> pd.DataFrame:
    """The most accurate probe for each concept of a `probes` result.

    Columns: concept, site, step, accuracy with its interval, shuffled (mean accuracy of the concept's probes with
    labels shuffled), chance, the adjusted p and clips.
    """
    probes = probes_frame(result)
    best = probes.loc[probes.groupby("concept", sort=False)["accuracy"].idxmax()]
    return pd.DataFrame(
        {
            "concept": best["concept"],
            "site": best["site"],
            "step": best["step"].astype(str),
            "accuracy [95 %]": [interval(row, "accuracy") for _, row in best.iterrows()],
            "shuffled": (best["accuracy"] - best["selectivity"]).map(fixed),
            "chance": best["chance"].map(fixed),
            "p, adjusted": best["q_value"].map(p_value),
            "clips": best["n"].map(lambda clips: fixed(clips, 0)),
        }
    )


def ridge_summary(result: xr.Dataset) -> pd.DataFrame:
    """The best ridge probe for each descriptor of a `probes` result; empty if it has none.

    Columns: descriptor, site, step, R² with its interval, shuffled (that of the same probe with shuffled values), the
    adjusted p and clips.
    """
    if not has_descriptors(result):
        return pd.DataFrame()
    probes = descriptors_frame(result)
    best = probes.loc[probes.groupby("concept", sort=False)["r2"].idxmax()]
    return pd.DataFrame(
        {
            "descriptor": best["concept"],
            "site": best["site"],
            "step": best["step"].astype(str),
            "R² [95 %]": [interval(row, "r2") for _, row in best.iterrows()],
            "shuffled": best["control"].map(fixed),
            "p, adjusted": best["q_value"].map(p_value),
            "clips": best["n"].map(lambda clips: fixed(clips, 0)),
        }
    )


def sae_metrics(result: xr.Dataset) -> pd.DataFrame:
    """The metrics of a `sae` result on held-out clips, one row each: metric and value."""
    metrics = {
        "explained variance": fixed(float(result["final_explained_variance"]), 3),
        "L0": significant(float(result["final_l0"])),
        "dead features": percent(float(result["final_dead_fraction"])),
    }
    return pd.DataFrame({"held-out metric": metrics.keys(), "value": metrics.values()})


def mean_to_spread(result: xr.Dataset) -> str:
    """A sentence on how far the inputs' mean is from 0, of inputs scaled per step at the step where it is farthest."""
    return foretelling(float(result["mean_to_spread"].max()))


def sae_line(result: xr.Dataset) -> dict[str, str]:
    """What a `sae` result is of, and its metrics on held-out clips, for a list of autoencoders."""
    attrs, metrics = result.attrs, sae_metrics(result)
    return {
        "site": attrs["site"],
        "pass": attrs["pass"],
        "architecture": sae_kind(attrs.get("trained_as", attrs["architecture"]), attrs["architecture"]),
        "features": str(attrs["d_sae"]),
        **dict(zip(metrics["held-out metric"], metrics["value"], strict=True)),
    }


def sae_summary(result: xr.Dataset, clips: pd.DataFrame) -> pd.DataFrame:
    """The features of a `sae` result that best distinguish a concept's value; `clips` is the study's clip table.

    Columns: feature, responds to, clips (that have this value), AUROC with its interval, p (corrected for the number of
    features and values) and density.
    """
    top = _best_features(result).head(TOP_FEATURES)
    return pd.DataFrame(
        {
            "feature": top["feature"].astype(str),
            "responds to": top["best_value"],
            "clips": [str(_clips_with(clips, value)) for value in top["best_value"]],
            "AUROC [95 %]": [interval(row, "best_auroc") for _, row in top.iterrows()],
            "p, adjusted": top["best_p"].map(p_value),
            "density": top["density"].map(lambda density: percent(density, 2)),
        }
    )


def evaluation_summary(result: xr.Dataset) -> pd.DataFrame:
    """What a `sae-evaluation` result says of each step.

    Columns: step, sigma, explained variance, normalised error, L0, dead, dense, loss recovered relative to mean and to
    zero ablation with its interval, and closed.
    """
    lines = []
    for step in result["step"].values:
        one = result.sel(step=step)
        lines.append(
            {
                "step": str(step),
                "sigma": significant(float(one["sigma"])),
                "explained variance": fixed(float(one["step_explained_variance"]), 3),
                "normalised error": fixed(float(one["step_normalised_error"]), 3),
                "L0": significant(float(one["step_l0"])),
                "dead": percent(float(one["step_dead_fraction"])),
                "dense": percent(float(one["step_dense_fraction"])),
                **{
                    f"loss recovered, {ablation}": _with_interval(
                        one.sel(ablation=ablation), "loss_recovered"
                    )
                    for ablation in result["ablation"].values.tolist()
                },
                "gate": "closed" if bool(one["gated"]) else "open",
            }
        )
    return pd.DataFrame(lines)


def kept_summary(result: xr.Dataset) -> pd.DataFrame:
    """The concept scores kept of a `sae-evaluation` result by its first scorer; empty if they were not measured.

    Columns: concept, the score kept with each replacement, with its interval, and pairs.
    """
    if "score_kept" not in result:
        return pd.DataFrame()
    one = result.isel(scorer=0)
    return pd.DataFrame(
        {
            "concept": concept,
            **{
                str(name): _with_interval(one.sel(concept=concept, replacement=name), "score_kept")
                for name in one["replacement"].values
            },
            "pairs": str(int(one["pairs"].sel(concept=concept))),
        }
        for concept in one["concept"].values.tolist()
    )


def stability_summary(result: xr.Dataset) -> pd.DataFrame:
    """The shares of features that others have, too, of a `sae-evaluation` result; empty if there are no others."""
    if "matched_share" not in result:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "autoencoder": other,
            **{
                f"cosine above {threshold:g}": percent(
                    float(result["matched_share"].sel(other=other, threshold=threshold))
                )
                for threshold in result["threshold"].values.tolist()
            },
        }
        for other in result["other"].values.tolist()
    )


def effects_summary(result: xr.Dataset) -> pd.DataFrame:
    """What each feature of a `feature-effects` result does at each factor, by the first scorer.

    Columns: responds to, feature (of each autoencoder, or how many are changed at once), AUROC (of these the lowest),
    factor, the change of the score of its own value with its interval, random (the null band), the adjusted p, and the
    changes of the other concepts' scores.
    """
    one, lines = result.isel(scorer=0), []
    for cell in one["cell"].values[one["role"].values == "cell"]:
        of_cell = one.sel(cell=cell)
        value = str(of_cell["value"].item())
        concept = value.partition("=")[0]
        for factor in one["factor"].values:
            at = of_cell.sel(factor=factor)
            own, others = at.sel(concept=concept), at["effect"].drop_sel(concept=concept).dropna("concept")
            lines.append(
                {
                    "responds to": value,
                    "feature": _features_changed(of_cell),
                    "AUROC": fixed(float(of_cell["auroc"].min())),
                    "factor": f"{factor:g}",
                    "change [95 %]": _with_interval(own, "effect"),
                    "random": span(float(own["null_lo"]), float(own["null_hi"])),
                    "p, adjusted": p_value(float(own["p_adjusted"])),
                    "other concepts": ", ".join(
                        f"{name} {fixed(float(others.sel(concept=name)))}"
                        for name in others["concept"].values
                    ),
                }
            )
    return pd.DataFrame(lines)


def _features_changed(of_cell: xr.Dataset) -> str:
    size, several, name = int(of_cell["size"]), of_cell.sizes["sae"] > 1, str(of_cell["set"].item())
    if name:
        return f"set {name} ({size}{' of each' if several else ''})"
    if size == 1:
        return " and ".join(of_cell["features"].values)
    return f"the {size} best of each" if several else f"the {size} best"


def _with_interval(one: xr.Dataset, name: str) -> str:
    """A number with its interval."""
    value, low, high = (float(one[each]) for each in (name, f"{name}_lo", f"{name}_hi"))
    return fixed(value) if pd.isna(value) else f"{fixed(value)} {span(low, high)}"


def sae_features_table(result: xr.Dataset, top: int) -> pd.DataFrame:
    """The `top` features of a `sae` result with the highest AUROCs.

    Columns: feature, label (the proposed one), best value, AUROC with its interval, p (adjusted), tf-idf, difference
    and d for this value, density, and nearest (by decoder).
    """
    best = _best_features(result).head(top)
    values = result.sel(feature=best["feature"].to_numpy())
    of_best = values.sel(value=xr.DataArray(best["best_value"].to_numpy(dtype=str), dims="feature"))
    return pd.DataFrame(
        {
            "feature": best["feature"].astype(str),
            "label": best["label"].replace("", "–"),
            "best value": best["best_value"],
            "AUROC [95 %]": [interval(row, "best_auroc") for _, row in best.iterrows()],
            "p, adjusted": best["best_p"].map(p_value),
            "tf-idf": [significant(score) for score in of_best["tfidf"].values],
            "difference": [significant(score) for score in of_best["diff"].values],
            "d": [significant(score) for score in of_best["cohens_d"].values],
            "density": best["density"].map(lambda density: percent(density, 2)),
            "nearest": [str(near) if near >= 0 else "–" for near in values["decoder_neighbour"].values[:, 0]],
        }
    )


def _best_features(result: xr.Dataset) -> pd.DataFrame:
    """The features with an AUROC, labelled ones first, by their highest AUROC."""
    features = features_frame(result).dropna(subset="best_auroc")
    features = features.assign(is_labelled=features["label"] != "")
    return features.sort_values(["is_labelled", "best_auroc"], ascending=False, kind="stable")


def _clips_with(clips: pd.DataFrame, value: str) -> int:
    """Number of clips with a value, written "concept=value"."""
    concept, _, name = value.partition("=")
    return int((clips[f"label_{concept}"] == name).sum())


def steering_summary(result: xr.Dataset) -> pd.DataFrame:
    """What each way of steering does to its concept, and at most to another one, by the first scorer.

    Columns: steering, strength, score (mean), change with its interval, random (the null band), the adjusted p, and
    other concepts (the one whose score changes most, and by how much).
    """
    doses = doses_frame(result)
    own = doses[doses["own"] & (doses["role"] != "null")]
    others = doses[~doses["own"]].dropna(subset="effect")
    most = others.loc[others["effect"].abs().groupby(others["arm"], sort=False).idxmax()].set_index("arm")
    names = {"clean": "(the positive prompt)", "corrupt": "(no steering)"}
    return pd.DataFrame(
        {
            "steering": own["way"].where(own["role"] == "cell", own["arm"].map(names)),
            "strength": own["strength"].map("{:g}".format).where(own["role"] == "cell", ""),
            "score": own["score"].map(fixed),
            "change [95 %]": [
                "" if row["arm"] == "corrupt" else interval(row, "effect") for _, row in own.iterrows()
            ],
            "random": [band(row) if row["role"] == "cell" else "" for _, row in own.iterrows()],
            "p, adjusted": own["p_adjusted"].map(p_value),
            "other concepts": [
                f"{most.concept[arm]} {fixed(most.effect[arm])}"
                if arm in most.index and arm != "corrupt"
                else ""
                for arm in own["arm"]
            ],
        }
    )


def _random_vectors(result: xr.Dataset) -> str:
    """Say how many random vectors a band is of, if there are any."""
    nulls = result["null_of"].values[result["role"].values == "null"].tolist()
    numbers = sorted({nulls.count(name) for name in nulls})
    return f"random: where 95 % of {' or '.join(map(str, numbers))} random vectors lie." if numbers else ""


def steering_summary_notes(result: xr.Dataset) -> list[str]:
    """Sentences on the p-values in the table of `steering_summary`."""
    pairs, steered = int(result.sizes["pair"]), int((result["role"] == "cell").sum())
    sentences = [
        "p, adjusted: sign flips of pairs, after Benjamini–Hochberg over the steered rows of the table.",
        too_few_pairs(pairs) or too_few_for_one(pairs, steered, "rows"),
        _random_vectors(result),
    ]
    return list(filter(None, sentences))


def benchmark_summary(result: xr.Dataset, scorer: str) -> pd.DataFrame:
    """What each method does by one judge, at the strength that other prompts and judges chose, and at equal distance.

    Columns: concept, direction, steering; chosen strength, and there change with its interval and kept (preservation);
    strength at equal distance, and there of the real prompt with its interval, random (the null band of the same) and
    rank with its interval.
    """
    table = ranking_frame(result, scorer)
    table = table[table["status"] == ""]
    return pd.DataFrame(
        {
            "concept": table["concept"],
            "direction": table["direction"],
            "steering": table["way"],
            "chosen strength": ["none" if np.isnan(one) else f"{one:g}" for one in table["strength"]],
            "there: change [95 %]": [interval(row, "effect") for _, row in table.iterrows()],
            "there: kept": table["preservation"].map(fixed),
            "strength at equal distance": table["strength_at"].map("{:.2g}".format),
            "there: of the real prompt [95 %]": [interval(row, "ratio_at") for _, row in table.iterrows()],
            "there: random": [
                span(row["band_lo"] / row["control"], row["band_hi"] / row["control"])
                if np.isfinite(row["band_lo"])
                else ""
                for _, row in table.iterrows()
            ],
            "there: rank [95 %]": [interval(row, "rank", 1) for _, row in table.iterrows()],
        }
    )


def published_summary(result: xr.Dataset, scorer: str, metrics: pd.DataFrame | None = None) -> pd.DataFrame:
    """TADA's areas and smoothness of each method by one judge: concept, steering, area, towards, away, smoothness.

    With TADA's own `metrics` (see `areas_of_tada`), its areas of the same concepts and methods stand beside.
    """
    table = published_frame(result, scorer)
    shown = pd.DataFrame({"concept": table["concept"], "steering": table["way"]})
    columns = {
        "area": "area",
        "towards": "area_positive",
        "away": "area_negative",
        "smoothness": "smoothness",
    }
    if metrics is not None:
        theirs = areas_of_tada(metrics)
        table = table.merge(theirs, on=["concept", "way"], how="left")
        columns |= {name: name for name in theirs.columns.drop(["concept", "way"])}
    for name, column in columns.items():
        shown[name] = table[column].map(lambda value: "" if pd.isna(value) else fixed(value, 3))
    return shown
