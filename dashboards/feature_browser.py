"""The table of an autoencoder's features as it is browsed: read once, then filtered, sorted and sent in pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboards.results import Identity, load_result, result_identity
from dashboards.tables.features import features_frame
from dashboards.tables.paging import MOST_ROWS, RowsRequest, filtered, ordered, records
from workbench.studies.study import Study

SHOWN = ("feature", "best_value", "best_auroc", "best_p", "label", "density", "max_activation", "alive")
"""The columns that are sent to the browser."""
BEST_FIRST = (("best_auroc", False),)


@dataclass(frozen=True)
class View:
    """What is asked of the table: whose features, in which order, and which of them."""

    name: str
    order: tuple[tuple[str, bool], ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    words: str = ""

    @classmethod
    def of_request(cls, name: str, request: RowsRequest | None, words: str) -> "View":
        """The view of a grid's request; all features in the default order if it has made none yet."""
        if request is None:
            return cls(name, words=words)
        return cls(name, request.order, request.filters, words)


@dataclass(frozen=True)
class Visible:
    """The features of a view: their positions in the table, in order, and sentences on filters without an effect."""

    positions: np.ndarray
    sentences: tuple[str, ...]


def browser_frame(study: Study, name: str) -> pd.DataFrame:
    """The table, a row for each feature: the columns `SHOWN`, and `text`, in which a search looks."""
    return _frame(study.path, name, result_identity(study, f"sae-{name}"))


def visible(study: Study, view: View) -> Visible:
    """The features of a view."""
    return _visible(study.path, result_identity(study, f"sae-{view.name}"), view)


def page_of_rows(study: Study, view: View, start: int, end: int) -> tuple[list[dict[str, Any]], Visible]:
    """The rows from `start` to before `end` of a view, each with its `id`; and all that it shows."""
    shown = visible(study, view)
    frame = browser_frame(study, view.name)
    rows = frame.iloc[shown.positions[start : min(end, start + MOST_ROWS)]]
    return records(rows[list(SHOWN)].assign(id=rows["feature"].astype(str))), shown


def place(study: Study, view: View, feature: int) -> int | None:
    """The number of the row in which a view has a feature; None if it does not show it."""
    of_feature = browser_frame(study, view.name)["feature"].to_numpy()[visible(study, view).positions]
    found = np.flatnonzero(of_feature == feature)
    return int(found[0]) if found.size else None


@lru_cache(maxsize=8)
def _frame(study_path: Path, name: str, version: Identity) -> pd.DataFrame:
    del version  # only part of the cache key: a changed result is read again
    table = features_frame(load_result(Study.open(study_path), f"sae-{name}"))
    table["alive"] = table["alive"].map({True: "yes", False: "dead"})
    return table[list(SHOWN)].assign(text=_joined(table, ("feature", "label", "best_value")))


def _joined(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    text = table[columns[0]].astype("str")
    for name in columns[1:]:
        text = text + " " + table[name].astype("str")
    return text.str.casefold()


@lru_cache(maxsize=32)
def _visible(study_path: Path, version: Identity, view: View) -> Visible:
    frame = _frame(study_path, view.name, version)
    passes, sentences = filtered(frame, view.filters, view.words)
    places = ordered(frame, view.order or BEST_FIRST)
    return Visible(places[passes[places]], tuple(sentences))
