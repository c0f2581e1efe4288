"""Phrases shared by captions, tables, tooltips and pages: numbers with intervals, null bands, samples."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import xarray as xr

from analyses.statistics import ALPHA, too_few_pairs
from analyses.steering.checks import BACKWARDS, TOO_FEW
from cache.wording import counted
from dashboards.names import shortened
from dashboards.numbers import UNDEFINED, compared_p, fixed, span
from dashboards.tables.benchmark import DIRECTIONS as BENCHMARK_DIRECTIONS
from dashboards.tables.benchmark import of_judge
from dashboards.tables.patching import UNCLEAR, UNTESTED
from dashboards.tables.steering import checks_frame, is_interpretable, steered_ends
from workbench.studies.study import Study

LONGEST_VALUE = 60  # characters
STRENGTH_1 = (
    "Strength 1 adds a vector as it was computed, such as the mean difference within pairs; of features of an "
    "autoencoder, what they add where each is active by 1."
)
DAGGERS = {**dict.fromkeys(UNCLEAR, "†"), UNTESTED: "‡"}  # in tables, as hatching and dots on maps


def interval(row: Mapping[Any, Any] | pd.Series, name: str, digits: int = 2) -> str:
    """A number with its interval, or "undefined"; a denominator has enough digits to show whether it is above 0."""
    if pd.isna(row[name]):
        return UNDEFINED
    zero = 0.0 if name == "denominator" else None
    limits = span(row[f"{name}_lo"], row[f"{name}_hi"], digits, zero)
    return f"{fixed(row[name], digits, zero)} {limits}"


def undefined_because(row: Mapping[Any, Any] | pd.Series) -> str:
    """Why a concept's impacts are undefined."""
    if row["n_pairs"] == 1:
        return "one pair has no interval; use more pairs"
    return "the clean and corrupt scores do not clearly differ"


def band(row: pd.Series) -> str:
    """The null band of a row, or "none"."""
    return "none" if pd.isna(row["null_lo"]) else span(row["null_lo"], row["null_hi"])


def agreed_text(agreed: Mapping[str, float | int]) -> str:
    """The agreement of two scorers' maps with its interval and number of cells, or "undefined"."""
    found = interval(agreed, "agreement")
    cells = counted(int(agreed["agreement_cells"]), "cell")
    return found if found == UNDEFINED else f"{found} (n = {cells})"


def sample(row: pd.Series, seeds: int) -> str:
    """The pairs, seeds and n of a concept."""
    pairs = f"{row['n_pairs']:.0f} pair{'' if row['n_pairs'] == 1 else 's'}"
    return f"{pairs} × {seeds} seed{'' if seeds == 1 else 's'} (n = {row['n']:.0f})"


def short_sample(row: pd.Series, seeds: int) -> str:
    """The same for a column whose heading names what is counted."""
    return f"{row['n_pairs']:.0f} × {seeds} (n = {row['n']:.0f})"


def confidence(result: xr.Dataset) -> str:
    """The confidence level of a result's intervals, such as "95 %"."""
    return f"{100 * float(result.attrs['confidence']):g} %"


def cell_text(row: pd.Series) -> str:
    """A map's cell as text in a table: impact with its interval and mark, or why there is none."""
    if pd.isna(row["impact"]):
        return str(row["status"])
    mark = DAGGERS.get(row["status"], "")
    if pd.isna(row["impact_lo"]):
        return fixed(row["impact"]) + mark
    return interval(row, "impact") + mark


def steering_notes(result: xr.Dataset, scorer: str = "") -> list[str]:
    """Sentences on what makes a `steering` result hard to believe, by one scorer, the first by default."""
    notes = []
    if not is_interpretable(result, scorer):
        positive, negative = (_value(result.attrs[end]) for end in ("positive", "negative"))
        notes.append(
            f"Not interpretable: the scorer does not clearly tell {positive} from {negative} in clips of the real "
            "prompts."
        )
    pairs = result.sizes["pair"]
    if pairs > 1 and too_few_pairs(pairs):
        notes.append("Intervals of so few pairs are little more than the range of the pairs.")
    checks = checks_frame(result, scorer)
    if backwards := checks["way"][checks["verdict"] == BACKWARDS].tolist():
        notes.append(f"Steers backwards: {', '.join(backwards)}.")
    if unknown := checks["way"][checks["verdict"] == TOO_FEW].tolist():
        names = f" ({', '.join(unknown)})" if len(unknown) < len(checks) else ""
        notes.append(f"Sign check: {TOO_FEW}{names}.")
    return notes


def label_evidence(scores: pd.DataFrame, label: str) -> str:
    """A feature's proposed label with its evidence and the next value, or why there is none.

    `scores` is the feature's `scores_frame`.
    """
    if scores.empty:
        return "no label: the feature has no scores"
    chosen = label or str(scores["value"].iloc[0])
    row = scores.set_index("value").loc[chosen]
    limits = "" if pd.isna(row["auroc_lo"]) else f" {span(row['auroc_lo'], row['auroc_hi'])}"
    evidence = f"AUROC {fixed(row['auroc'])}{limits}, p {compared_p(row['p_adjusted'])}"
    if not label:
        is_why = scores["p_adjusted"].min() > ALPHA
        reason = ": no value is significant after correction" if is_why else ""
        return f"no label{reason} (highest: {chosen}, {evidence})"
    others = scores[scores["value"] != label]
    following = "" if others.empty else f"; next: {others['value'].iloc[0]}, {fixed(others['auroc'].iloc[0])}"
    return f"{label}: {evidence}{following}"


def steering_sample(result: xr.Dataset, scorer: str = "") -> str:
    """The prompts, seeds and n of a `steering` result by one scorer, the first by default."""
    one = result.sel(scorer=scorer or str(result["scorer"].values[0]))
    row = pd.Series({"n_pairs": float(one["n_pairs"]), "n": float(one["n"])})
    return sample(row, result.sizes["seed"])


def positive_control(result: xr.Dataset, scorer: str = "") -> str:
    """A sentence on whether a scorer tells the real prompts of a `steering` result apart."""
    name = scorer or str(result["scorer"].values[0])
    one = result.sel(scorer=name)
    names = ("denominator", "denominator_lo", "denominator_hi")
    difference = interval({name: float(one[name]) for name in names}, "denominator")
    ends = " − ".join(map(_value, reversed(steered_ends(result))))
    verdict = "clearly tells" if is_interpretable(result, scorer) else "does not clearly tell"
    return f"Positive control: {name} {verdict} the real prompts apart ({ends}: {difference})."


def from_to(result: xr.Dataset) -> str:
    """From which value a `steering` result steers to which: "from slow to fast"."""
    return "from {} to {}".format(*map(_value, steered_ends(result)))


def _value(name: object) -> str:
    """A value of a concept, in a sentence."""
    return shortened(str(name), LONGEST_VALUE)


def positive_value(study: Study, result: xr.Dataset, concept: str) -> str:
    """The value of a concept towards which an evaluation steers."""
    asked = [str(one).partition("=") for one in json.loads(result.attrs["spec"]).get("concepts", [])]
    named = [value for name, _, value in asked if name == concept and value]
    return named[0] if named else next(iter(study.spec.prompts.concepts.get(concept, [concept])))


def benchmark_sample(result: xr.Dataset, scorer: str, measure: str) -> str:
    """The judge, the distance, the prompts and the intervals of an evaluation's numbers."""
    one = of_judge(result, scorer, measure)
    pairs, seeds = (int(one[name].max()) for name in ("n_pairs", "n_seeds"))
    return (
        f"Judge {one['scorer'].item()}, distance {one['measure'].item()}; {counted(pairs, 'held-out prompt')} × "
        f"{counted(seeds, 'seed')} in each direction; {confidence(result)} bootstrap intervals over prompts."
    )


def distance_sentence(result: xr.Dataset, measure: str = "", concept: str = "") -> str:
    """At which distance the methods of an evaluation are compared, of the concepts or one, and what limits it."""
    one = result.sel(measure=measure or str(result["measure"].values[0]))
    found = []
    for each in [concept] if concept else one["concept"].values.tolist():
        for sign in one["sign"].values.tolist():
            part = one.sel(concept=each, sign=sign)
            limit = str(part["limited_by"].item())
            where = fixed(float(part["common_distance"]))
            found.append(
                f"{each}, {BENCHMARK_DIRECTIONS[sign]}: " + (f"{where} (limit: {limit})" if limit else "none")
            )
    return f"Common distance of the methods, by {one['measure'].item()}: {'; '.join(found)}."


def deaf_sentences(result: xr.Dataset, scorer: str = "", concept: str = "") -> list[str]:
    """Sentences on the concepts, or the one, that a judge of an evaluation cannot hear, whose numbers are hidden."""
    name = scorer or str(result["scorer"].values[0])
    one = result["reason"].sel(scorer=name)
    found: dict[str, list[str]] = {}
    for each in [concept] if concept else one["concept"].values.tolist():
        for sign in one["sign"].values.tolist():
            if reason := str(one.sel(concept=each, sign=sign).item()):
                found.setdefault(reason, []).append(f"{each}, {BENCHMARK_DIRECTIONS[sign]}")
    return [f"No numbers by {name} of {'; '.join(places)}: {reason}." for reason, places in found.items()]
