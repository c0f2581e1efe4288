"""Analyse a listening study: exclusions, preferences or ratings, agreement, as a labelled result."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.listening.agreement import Level, agreement, answers_table
from analyses.listening.exclusions import exclusions
from analyses.listening.preferences import (
    counts_of,
    is_separated,
    preferred_share,
    ranks,
    score_intervals,
)
from analyses.listening.ratings import mean_ratings, modelled_means
from analyses.listening.spec import ListeningSpec
from analyses.statistics import expanded_confidence
from cache.errors import UserError
from cache.protocol import canonical_json
from workbench.listening.answers import Answers, read_answers, study_id
from workbench.provenance import content_hash, provenance
from workbench.studies.result_files import save_result_file

KIND = "listening"
SCHEMA_VERSION = 1
RESULT = "analysis.nc"


def analyse(folder: Path, spec: ListeningSpec) -> xr.Dataset:
    """Analyse the answers in the folder of a listening study, and save the result there as `analysis.nc`.

    Raises:
        UserError: if nobody has answered, or all listeners are excluded.
    """
    started = time.monotonic()
    answers = read_answers(folder)
    result = analysed(answers, spec)
    own = spec.model_dump(mode="json")
    identity = {"spec": own, "study": study_id(answers.config), "schema_version": SCHEMA_VERSION}
    result.attrs |= {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "spec": canonical_json(own),
        "result_id": content_hash(identity),
        "provenance": canonical_json(
            provenance(study=study_id(answers.config), duration_s=round(time.monotonic() - started, 2))
        ),
    }
    save_result_file(folder, RESULT, result)
    return result


def analysed(answers: Answers, spec: ListeningSpec) -> xr.Dataset:
    """Return the result of the listeners who are not excluded.

    Of pairs: `score` (condition) with `score_lo`, `score_hi`, `rank` with `rank_lo`, `rank_hi`, and `preferred`
    (condition, other). Of ratings and MUSHRA: `mean` and `modelled` (question, condition), with the ends of their
    intervals. Of all: `alpha` with its interval, `excluded` (listener), a reason or "". Of one listener, intervals are
    NaN.

    Raises:
        UserError: if all listeners are excluded.
    """
    reasons = exclusions(answers, spec)
    kept = [number for number, reason in reasons.items() if not reason]
    if not kept:
        raise UserError(
            f"All {len(reasons)} listeners are excluded, the first for: {next(iter(reasons.values()))}. Look at the "
            "rules (`workbench listen analyse --help`)."
        )
    of_design = _preferences if answers.config.design == "pairs" else _ratings
    result = of_design(answers, kept, spec)
    excluded = np.array(list(reasons.values()), dtype=object)
    result = result.assign(excluded=("listener", excluded)).assign_coords(listener=list(reasons))
    result.attrs |= {
        "design": answers.config.design,
        "title": answers.config.title,
        "confidence": spec.confidence,
        "n_listeners": len(kept),
    }
    return result


def _preferences(answers: Answers, kept: Sequence[int], spec: ListeningSpec) -> xr.Dataset:
    table = answers.preferences[answers.preferences["listener"].isin(kept)]
    conditions = answers.config.conditions
    counts = counts_of(table, conditions)
    boot = score_intervals(counts, spec.confidence, spec.seed)
    level = expanded_confidence(spec.confidence, len(kept)) if len(kept) > 1 else spec.confidence
    tails = ((1 - level) / 2, (1 + level) / 2)
    # A rank is a whole number: the ends are ranks that were drawn.
    low, high = np.quantile(ranks(boot.resampled), tails, axis=1, method="inverted_cdf")
    # Each pair in both orders: otherwise alpha would depend on which condition is called the first.
    mirrored = table.rename(columns={"first": "second", "second": "first"})
    both = pd.concat([table, mirrored.assign(preferred=1 - mirrored["preferred"])])
    agreed = agreement(
        answers_table(both, ["item", "first", "second"], "preferred"), "nominal", spec.confidence
    )
    of_condition: dict[str, Any] = {
        "score": boot.value,
        "score_lo": boot.low,
        "score_hi": boot.high,
        "rank": ranks(boot.value),
        "rank_lo": low,
        "rank_hi": high,
        "n": (counts.wins + counts.wins.swapaxes(1, 2) + counts.ties).sum(axis=(0, 2)),
    }
    result = xr.Dataset(
        {name: ("condition", values) for name, values in of_condition.items()},
        {"condition": list(conditions), "other": list(conditions)},
    )
    result["preferred"] = (("condition", "other"), preferred_share(counts))
    result = result.assign(alpha=agreed.alpha, alpha_lo=agreed.low, alpha_hi=agreed.high)
    result.attrs["regularised"] = int(is_separated(counts.wins.sum(axis=0), counts.ties.sum(axis=0)))
    return result


def _ratings(answers: Answers, kept: Sequence[int], spec: ListeningSpec) -> xr.Dataset:
    table = answers.ratings[answers.ratings["listener"].isin(kept)]
    conditions = tuple(dict.fromkeys((*answers.config.conditions, *table["condition"])))
    conditions = tuple(name for name in conditions if name in set(table["condition"]))
    level: Level = "interval" if answers.config.design == "mushra" else "ordinal"
    of_questions = []
    for question in answers.config.shown_questions:
        asked = table[table["question"] == question]
        mean = mean_ratings(asked, conditions, spec.confidence, spec.seed)
        # The hidden reference and the anchor are rated alike by everyone who listens.
        compared = asked[asked["role"] == "condition"]
        model = modelled_means(compared, conditions, spec.confidence)
        agreed = agreement(answers_table(compared, ["item", "condition"], "rating"), level, spec.confidence)
        count = asked.groupby("condition")["rating"].count().reindex(list(conditions), fill_value=0)
        columns = {
            **dict(zip(("mean", "mean_lo", "mean_hi"), mean, strict=True)),
            **dict(zip(("modelled", "modelled_lo", "modelled_hi"), model, strict=True)),
            "n": count.to_numpy(),
        }
        one = xr.Dataset(
            {name: ("condition", values) for name, values in columns.items()},
            {"condition": list(conditions)},
        )
        of_questions.append(one.assign(alpha=agreed.alpha, alpha_lo=agreed.low, alpha_hi=agreed.high))
    questions = xr.DataArray(list(answers.config.shown_questions), dims="question", name="question")
    return xr.concat(of_questions, questions)
