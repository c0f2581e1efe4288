"""What stands under a figure in a paper: what it shows, over how much data, and how its numbers were tested."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import xarray as xr

from analyses.sae.train import DEAD_AFTER
from analyses.statistics import ALPHA, too_few_pairs
from dashboards import numbers
from dashboards.comparison import Comparison
from dashboards.numbers import fixed, span
from dashboards.tables.patching import UNCLEAR, UNTESTED, agreement, pair_notes, tested_cells

MEANING = {
    "sufficiency": "Sufficiency is the fraction of the concept that is restored in the corrupt run.",
    "necessity": "Necessity is the share of the concept that is lost in the clean run.",
}


DAGGERS = {
    "not significant": "†",
    "inside null band": "†",
    UNTESTED: "‡",
}  # in tables, as hatching and dots on maps


def interval(row: Mapping[Any, Any] | pd.Series, name: str, digits: int = 2) -> str:
    """A number with its interval, "undefined" where there is none; a denominator's shows whether it lies above 0."""
    if pd.isna(row[name]):
        return numbers.UNDEFINED
    zero = 0.0 if name == "denominator" else None
    told = numbers.span(row[f"{name}_lo"], row[f"{name}_hi"], digits, zero)
    return f"{numbers.fixed(row[name], digits, zero)} {told}"


def band(row: pd.Series) -> str:
    """The null band of a row."""
    return "none" if pd.isna(row["null_lo"]) else numbers.span(row["null_lo"], row["null_hi"])


def sample(row: pd.Series, seeds: int) -> str:
    """Pairs, seeds and rows of a concept."""
    pairs = f"{row['n_pairs']:.0f} pair{'' if row['n_pairs'] == 1 else 's'}"
    return f"{pairs} × {seeds} seed{'' if seeds == 1 else 's'} (n = {row['n']:.0f})"


def short_sample(row: pd.Series, seeds: int) -> str:
    """The same where a heading says what is counted."""
    return f"{row['n_pairs']:.0f} × {seeds} (n = {row['n']:.0f})"


def patching_caption(result: xr.Dataset, frame: pd.DataFrame) -> str:
    """Caption of a patching map, from its result and its frame."""
    scorer = str(frame["scorer"].iloc[0])
    concepts = list(dict.fromkeys(frame["concept"]))
    across = result.attrs["column_label"] if len(concepts) == 1 else "concept"
    on_concept = f" on {concepts[0]}" if len(concepts) == 1 else ""
    cells = frame[frame["group"] == "cell"]
    shown = "" if len(concepts) == 1 else f" ({', '.join(dict.fromkeys(cells['panel']))})"
    sentences = [
        f"Impact of patching{on_concept}, by {result.attrs['row_label']} (rows) and {across} (columns){shown}; "
        f"question {result.attrs['question']}, mode {result.attrs['mode']}, scorer {scorer}.",
        *(text for direction, text in MEANING.items() if direction in set(cells["direction"])),
        *_tests(result, frame),
        *_null_rows(frame),
    ]
    if "planted" in frame:
        sentences.append("Outlined: the blocks that the model's truth card names.")
    seeds = result.sizes["seed"]
    for _, row in frame.drop_duplicates("concept").iterrows():
        sentences.append(
            f"{row['concept']}: {_concept(row, seeds, agreement(result, row['concept'], scorer))}."
        )
    return " ".join([*sentences, str(result.attrs["stopped"])]).strip()


def _tests(result: xr.Dataset, frame: pd.DataFrame) -> list[str]:
    cells = tested_cells(result, str(frame["scorer"].iloc[0]))
    told = [f"Intervals are {confidence(result)} BCa bootstraps over pairs."]
    if set(frame["status"]) - {UNTESTED, "undefined", "no score", "null arm"}:
        told.append(
            f"Hatched (dagger in the table): not significant (p > {ALPHA:g} after {result.attrs['correction']} over "
            f"{cells} cells) or inside the null band."
        )
    if notes := pair_notes(frame):
        told += ["Dotted (double dagger in the table): too few pairs for a test.", *notes]
    return told


def _null_rows(frame: pd.DataFrame) -> list[str]:
    nulls = frame.loc[frame["group"] == "null", "label"]
    if nulls.empty:
        return []
    largest = sorted({label.partition(" (")[2].rstrip(")") for label in nulls} - {""})
    of = f", each the {' or '.join(largest)}" if largest else ""
    return [f"Rows below the gap are null arms, which are not tested{of}."]


def confidence(result: xr.Dataset) -> str:
    """The confidence of a result's intervals, as in "95 %"."""
    return f"{100 * float(result.attrs['confidence']):g} %"


def _concept(row: pd.Series, seeds: int, agreements: dict[str, float]) -> str:
    told = [sample(row, seeds), f"denominator (clean − corrupt) {interval(row, 'denominator')}"]
    if not row["defined"]:
        return ", ".join([*told, "not clearly above zero, so that impacts are undefined"])
    told += [f"null band {band(row)}", f"stability {interval(row, 'stability')}"]
    told += [f"agreement with {name} {numbers.fixed(value)}" for name, value in agreements.items()]
    return ", ".join(told)


def pairs_caption(result: xr.Dataset, frame: pd.DataFrame, cell: pd.Series) -> str:
    """Caption of what one arm moves in each pair."""
    first = frame.iloc[0]
    place = f"{result.attrs['row_label']} {cell['row']}, {cell['column']}"
    quantities = " and ".join(dict.fromkeys(frame["quantity"]))
    seeds = result.sizes["seed"]
    return (
        f"What patching moves in each pair of {first['concept']} ({place}): {quantities}, one dot a pair and seed, "
        f"scorer {first['scorer']}; boxes are quartiles and medians. Impact {interval(cell, 'impact')} "
        f"({confidence(result)} BCa bootstrap over pairs), {_tested(result, cell)}. {sample(cell, seeds)}, denominator "
        f"{interval(cell, 'denominator')}, null band {band(cell)}, stability {interval(cell, 'stability')}."
    )


def _tested(result: xr.Dataset, cell: pd.Series) -> str:
    if pd.isna(cell["p"]):
        return "not tested"
    if cell["status"] == UNTESTED:
        return too_few_pairs(int(cell["n_pairs"])).rstrip(".")
    p = f"p = {numbers.p_value(cell['p'])}"
    if pd.isna(cell["p_adjusted"]):
        return f"{p}, not corrected"
    cells = tested_cells(result, cell["scorer"])
    return f"{p}, {numbers.p_value(cell['p_adjusted'])} after {result.attrs['correction']} over {cells} cells"


def compare_caption(compared: Comparison) -> str:
    """Caption of two maps beside each other."""
    left, right = compared.names
    told = [f"Impact maps of {left} and {right} on their common concepts."]
    found = set(compared.frame["status"])
    if found & set(UNCLEAR):
        told.append("Hatched (dagger in the table): not significant, or inside the null band.")
    if UNTESTED in found:
        told.append("Dotted (double dagger in the table): too few pairs for a test.")
    told += compared.notes
    return " ".join([*told, *compare_numbers(compared)])


def compare_numbers(compared: Comparison) -> list[str]:
    """How much two maps agree, in sentences; none where their cells cannot be matched."""
    if compared.matched.empty:
        return []
    rho = numbers.fixed(compared.spearman)
    top = len(compared.tops[0])
    shared = f": {', '.join(compared.overlap)}" if compared.overlap else ""
    return [
        f"Spearman's rank correlation of the means of {len(compared.means)} rows over the common concepts: {rho}.",
        f"Of the {top} rows on top, {len(compared.overlap)} are the same{shared}.",
    ]


def probes_caption(frame: pd.DataFrame, quantity: str) -> str:
    """Caption of probe maps."""
    counts = frame.drop_duplicates("concept")
    sizes = "; ".join(
        f"{row.concept}: {numbers.fixed(row.n, 0)} clips of {numbers.fixed(row.groups, 0)} prompts, "
        f"chance {numbers.fixed(row.chance)}"
        for row in counts.itertuples()
    )
    return (
        f"Linear probes of each concept on {frame['part'].iloc[0]} by block and denoising step: {quantity} (balanced, "
        "cross-validated by prompt; control: shuffled labels; selectivity: accuracy − control). Intervals are 95 % BCa "
        "bootstraps over prompts. Hatched: not above the control (q ≥ 0.05 after Benjamini–Hochberg over all probes). "
        f"{sizes}."
    )


def folds_caption(frame: pd.DataFrame) -> str:
    """Caption of the folds of one probe."""
    first = frame.iloc[0]
    return (
        f"Balanced accuracy of the probe of {first['concept']} at {first['site']}, step {first['step']}, in each of "
        f"{len(frame)} folds, beside the same probe with shuffled labels; chance is {numbers.fixed(first['chance'])}."
    )


def training_caption(frame: pd.DataFrame, site: str) -> str:
    """Caption of the training curves of a sparse autoencoder."""
    held_out = frame[frame["split"] == "held-out"]
    told = ", ".join(
        f"{row.measure.replace('_', ' ')} {numbers.significant(row.value)}" for row in held_out.itertuples()
    )
    return (
        f"Training of the sparse autoencoder of {site}; dashed, the measures on held-out rows: {told}. Dead features "
        "fired on none of the held-out rows, or, in the curve, on none of the last "
        f"{DEAD_AFTER} steps' rows."
    )


def feature_caption(site: str, feature: int) -> str:
    """Caption of the panels of one feature."""
    return (
        f"Feature {feature} of the sparse autoencoder of {site}: its positive activations, its mean activation by "
        "denoising step, and how well its mean over a clip tells each concept value (AUROC, chance 0.5)."
    )


def feature_clip_caption(site: str, feature: int, clip: int) -> str:
    """Caption of one feature in one clip."""
    return (
        f"Feature {feature} of the sparse autoencoder of {site} in clip {clip}: mel spectrogram, activation over time "
        "(the largest over the denoising steps), and activation step by step."
    )


def probes_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The probes of a map as a paper prints them: a row each, the rest of their numbers being in the CSV."""
    accuracy = [
        f"{fixed(row.accuracy)} {span(row.accuracy_lo, row.accuracy_hi)}" for row in frame.itertuples()
    ]
    shown = frame.assign(**{"accuracy [95 %]": accuracy}).rename(columns={"q_value": "q"})
    return shown[["concept", "site", "step", "accuracy [95 %]", "control", "selectivity", "q", "n"]]


def patching_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The map as a table: a row a row, a column a panel and column, impact with its interval in each cell."""
    panels = frame["panel"].nunique() > 1
    named = frame.assign(
        name=frame["across"] + (" (" + frame["panel"] + ")" if panels else ""),
        text=[_cell_text(row) for _, row in frame.iterrows()],
    )
    wide = named.pivot(index="label", columns="name", values="text")
    wide = wide.loc[_in_order(named["label"]), _in_order(named["name"])].fillna("")
    return wide.rename_axis(index="row", columns=None).reset_index().rename(columns={"row": ""})


def compare_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Both maps of a comparison as a table: a row a concept and row, with both impacts."""
    frame = frame.assign(text=[_cell_text(row) for _, row in frame.iterrows()])
    sides = [
        part[["concept", "row", "text"]].rename(columns={"text": str(name)})
        for name, part in frame.groupby("map", sort=False)
    ]
    return sides[0].merge(sides[1], on=["concept", "row"], how="outer", sort=False).fillna("")


def _cell_text(row: pd.Series) -> str:
    if pd.isna(row["impact"]):
        return str(row["status"])
    mark = DAGGERS.get(row["status"], "")
    if pd.isna(row["impact_lo"]):
        return numbers.fixed(row["impact"]) + mark
    return interval(row, "impact") + mark


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
