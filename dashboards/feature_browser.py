"""The table of an autoencoder's features as it is browsed: read once, then filtered, sorted and sent in pages."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.sae.concept_difference import carried_shares, value_difference
from cache.errors import UserError
from dashboards.results import Identity, load_result, result_identity, sae_names
from dashboards.tables.features import features_frame
from dashboards.tables.paging import MOST_ROWS, RowsRequest, filtered, ordered, records
from workbench.files import file_version
from workbench.studies.feature_notes import FILE, read_all, read_set, weights_of
from workbench.studies.study import Study

SHOWN = (
    "star",
    "feature",
    "best_value",
    "best_auroc",
    "best_p",
    "label",
    "density",
    "max_activation",
    "alive",
)
"""The columns that are sent to the browser."""
MOST_CORNERS = 100
"""Of a lasso on the map."""
AREA_FORM = (
    "an area of the map is a box, four numbers with commas between, or a lasso, two numbers for each of 3 to "
    f"{MOST_CORNERS} corners"
)
STARRED = "★"
"""The set of the starred features."""
BEST_FIRST = (("best_auroc", False),)
CARRIED = ("difference", "share")
"""The columns of a difference between two concept values (`analyses.sae.concept_difference`)."""
CHOSEN = {"of_set": "set", "value": "value", "against": "against", "area": "area"}
"""The fields of a `View` that are in the URL, and their names there."""


class Version(NamedTuple):
    """Whose features, and versions of the files that the table is made of."""

    name: str
    result: Identity
    notes: tuple[Identity, str] | None
    """Of the file of notes, and the hash of the autoencoder's weights, by which it says whose notes they are."""


@dataclass(frozen=True)
class View:
    """What is asked of the table: whose features, in which order, and which of them."""

    name: str
    order: tuple[tuple[str, bool], ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    words: str = ""
    of_set: str = ""
    """Name of a set, or `STARRED`; "" for all features."""
    value: str = ""
    """Concept value whose difference from `against` (or from all others) the features are ranked by."""
    against: str = ""
    area: str = ""
    """An area on the map of the decoder, numbers with commas between: a box (from and to on the first axis, then on the
    second), or the corners of a lasso (on the first axis, on the second, …)."""

    @classmethod
    def of_request(
        cls, name: str, request: RowsRequest | None, words: str | None, query: Mapping[str, str]
    ) -> "View":
        """The view of a grid's request and of the selection in the URL; the grid may have made no request yet."""
        order, filters = (request.order, request.filters) if request else ((), ())
        chosen = {field: query.get(key, "") for field, key in CHOSEN.items()}
        return cls(name, order, filters, words or "", **chosen)


@dataclass(frozen=True)
class Visible:
    """The features of a view: their positions in the table, in order, and sentences on filters without an effect."""

    positions: np.ndarray
    sentences: tuple[str, ...]


def _version(study: Study, name: str) -> Version:
    file, notes = study.path / FILE, None
    if file.exists():
        with suppress(UserError):  # the card says why
            notes = file_version(file), weights_of(study.path, name)
    return Version(name, result_identity(study, f"sae-{name}"), notes)


def read_ahead(study: Study) -> None:
    """Make the table that the page shows first, so that its first visitor does not wait for it."""
    for name in sae_names(study)[:1]:
        visible(study, View(name))


def browser_frame(study: Study, name: str) -> pd.DataFrame:
    """The table, a row for each feature: the columns `SHOWN`, and `text`, in which a search looks."""
    return _frame(study.path, _version(study, name))


def visible(study: Study, view: View) -> Visible:
    """The features of a view."""
    return _visible(study.path, _version(study, view.name), view)


def page_of_rows(study: Study, view: View, start: int, end: int) -> tuple[list[dict[str, Any]], Visible]:
    """The rows from `start` to before `end` of a view, each with its `id`; and all that it shows."""
    shown = visible(study, view)
    frame = _whole(study.path, _version(study, view.name), view.value, view.against)
    rows = frame.iloc[shown.positions[start : min(end, start + MOST_ROWS)]]
    return records(rows[[*SHOWN, *CARRIED]].assign(id=rows["feature"].astype(str))), shown


def places(study: Study, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The place of each feature on the map of the decoder, and the shares of variance of its axes; see `decoder_map`.

    Raises:
        UserError: the autoencoder's weights are missing or damaged.
    """
    return _places(study.path, name, result_identity(study, f"sae-{name}"))


def scored_values(study: Study, name: str) -> list[str]:
    """The concept values that features have scores for."""
    return list(_scored_values(study.path, name, result_identity(study, f"sae-{name}")))


def place(study: Study, view: View, feature: int) -> int | None:
    """The number of the row in which a view has a feature; None if it does not show it."""
    of_feature = browser_frame(study, view.name)["feature"].to_numpy()[visible(study, view).positions]
    found = np.flatnonzero(of_feature == feature)
    return int(found[0]) if found.size else None


@lru_cache(maxsize=32)
def _scored_values(study_path: Path, name: str, version: Identity) -> tuple[str, ...]:
    del version  # only part of the cache key: a changed result is read again
    scores = load_result(Study.open(study_path), f"sae-{name}")["diff"]
    return tuple(map(str, scores["value"].values[scores.notnull().any("feature").values]))


@lru_cache(maxsize=8)
def _found(study_path: Path, name: str, version: Identity) -> pd.DataFrame:
    """The table without what people wrote."""
    del version  # only part of the cache key: a changed result is read again
    table = features_frame(load_result(Study.open(study_path), f"sae-{name}"))
    table["alive"] = table["alive"].map({True: "alive", False: "dead"})
    table["text"] = _joined(table, ("feature", "label", "best_value"))
    return table.assign(star="", note="")[[*SHOWN, "note", "text"]]


@lru_cache(maxsize=8)
def _frame(study_path: Path, version: Version) -> pd.DataFrame:
    """The table with what people wrote: their labels take the place of proposed ones, and the search finds notes."""
    table = _found(study_path, version.name, version.result)
    written = {}
    if version.notes:
        with suppress(UserError):  # the card says why
            written = read_all(study_path, version.name)
    rows = {feature: row for row, feature in enumerate(table["feature"])} if written else {}
    known = {rows[feature]: fields for feature, fields in written.items() if feature in rows}
    if not known:
        return table
    columns = {name: table[name].tolist() for name in ("label", "star", "note", "text")}
    for row, fields in known.items():
        columns["label"][row] = fields.get("label", columns["label"][row])
        columns["star"][row] = STARRED if "star" in fields else ""
        columns["note"][row] = fields.get("note", "")
        columns["text"][row] += f" {fields.get('label', '')} {fields.get('note', '')}".casefold()
    return table.assign(**{name: pd.Series(values, dtype="str") for name, values in columns.items()})


def _joined(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    text = table[columns[0]].astype("str")
    for name in columns[1:]:
        text = text + " " + table[name].astype("str")
    return text.str.casefold()


@lru_cache(maxsize=8)
def _whole(study_path: Path, version: Version, value: str, against: str) -> pd.DataFrame:
    """The table with what each feature carries of the difference between two values; NaN if none is asked for."""
    frame = _frame(study_path, version)
    if not value:
        return frame.assign(**dict.fromkeys(CARRIED, np.nan))
    difference, share = _carried(study_path, version.name, version.result, value, against)
    return frame.assign(difference=difference, share=share)


@lru_cache(maxsize=16)
def _carried(
    study_path: Path, name: str, version: Identity, value: str, against: str
) -> tuple[np.ndarray, np.ndarray]:
    del version  # only part of the cache key: a changed result is read again
    study = Study.open(study_path)
    difference = value_difference(load_result(study, f"sae-{name}"), study.clips, value, against)
    from analyses.sae.names import load_sae  # imports torch

    return difference, carried_shares(difference, load_sae(study, name).W_dec.detach().double().numpy())


@lru_cache(maxsize=8)
def _places(study_path: Path, name: str, version: Identity) -> tuple[np.ndarray, np.ndarray]:
    del version  # only part of the cache key: a changed result is read again
    from analyses.sae.decoder_map import decoder_map  # slow to import, as is torch
    from analyses.sae.names import load_sae

    where, shares = decoder_map(load_sae(Study.open(study_path), name).W_dec.detach().float().numpy())
    if len(where) != load_result(Study.open(study_path), f"sae-{name}").sizes["feature"]:
        raise UserError(f"The autoencoder '{name}' has another number of features than its result.")
    return where, shares


def area_corners(area: str) -> np.ndarray | None:
    """The two rows of a box or the corners of a lasso (`View.area`); None if the text is no area."""
    pairs = np.empty((0, 2))
    with suppress(ValueError):
        pairs = np.array([float(end) for end in area.split(",", MOST_CORNERS * 2)]).reshape(-1, 2)
    return pairs if len(pairs) >= 2 and np.isfinite(pairs).all() else None


def _inside(where: np.ndarray, area: str) -> np.ndarray:
    """Whether each place is in an area (`View.area`)."""
    pairs = area_corners(area)
    if pairs is None:
        raise UserError(f"{AREA_FORM[0].upper()}{AREA_FORM[1:]}.")
    if len(pairs) == 2:
        return np.asarray(((where >= pairs[:, 0]) & (where <= pairs[:, 1])).all(axis=1))
    from matplotlib.path import Path as Outline  # slow to import

    return np.asarray(Outline(pairs).contains_points(where))


@lru_cache(maxsize=32)
def _visible(study_path: Path, version: Version, view: View) -> Visible:
    frame = _whole(study_path, version, view.value, view.against)
    passes, sentences = filtered(frame, view.filters, view.words)
    if view.of_set == STARRED:
        passes &= (frame["star"] != "").to_numpy()
    elif view.of_set:
        passes &= frame["feature"].isin(read_set(study_path, view.of_set, view.name)).to_numpy()
    if view.area:
        where, _ = _places(study_path, view.name, version.result)
        passes &= _inside(where, view.area)
    places = ordered(frame, view.order or ((("share", False),) if view.value else BEST_FIRST))
    return Visible(places[passes[places]], tuple(sentences))
