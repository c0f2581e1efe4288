"""Features: an autoencoder's features as a table and a map, the card of one, and the autoencoder's training.

Each part is a module of its own: `feature_table.py` (and `feature_ranking.py`, `feature_sets.py` for its rows),
`feature_map.py`, `feature_training.py`, `feature_card.py` (and `feature_notes.py` for what people write on it).
`feature_address.py` keeps them in sync with the URL.
"""

import dash
import dash_mantine_components as dmc
from dash.development.base_component import Component

from dashboards.components.no_results import no_results
from dashboards.context import Context
from dashboards.links import write_query
from dashboards.pages import (
    feature_address,
    feature_card,
    feature_map,
    feature_ranking,
    feature_sets,
    feature_table,
    feature_training,
)
from dashboards.pages.feature_address import VIEWS, asked_view
from dashboards.pages.feature_query import area_choices
from dashboards.pages.feature_saes import asked_sae
from dashboards.pages.page import Choices, Page, Query
from dashboards.results import load_result, sae_names

PATH = "/features"
NAME = "Features"
SENTENCE = (
    "Features that a sparse autoencoder found in the activations of one site, with their top-activating clips and the "
    "concepts they distinguish."
)
_TABLE, _CARD = {"base": 24, "lg": 12, "xl": 13}, {"base": 24, "lg": 12, "xl": 11}
"""Parts of 24; at 1440 pixels the table shows all its columns."""


def layout(context: Context, query: Query) -> Component:
    """The page, or instructions if there is no sparse autoencoder."""
    study = context.study
    if not sae_names(study):
        then = (
            "This page lists a sparse autoencoder's features, with audio and spectrograms of their top clips."
        )
        return no_results(study, "sae", "No sparse autoencoder yet.", then)
    browser = dmc.Grid(
        [
            dmc.GridCol(feature_table.layout(study, query), span=_TABLE),
            dmc.GridCol(feature_card.layout(), span=_CARD),
        ],
        columns=24,
        gutter="md",
    )
    return dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(name, value=value) for value, name in VIEWS.items()], mb="md"),
            dmc.TabsPanel(browser, value="table", keepMounted=True),
            dmc.TabsPanel(feature_map.layout(query), value="map"),
            dmc.TabsPanel(feature_training.layout(), value="training"),
        ],
        id="features-tabs",
        value=asked_view(query),
        keepMounted=False,  # what draws graphs is large, and loaded only when needed
    )


def choices(context: Context, query: Query) -> Choices:
    """The values that this page accepts in its URL."""
    study = context.study
    names = sae_names(study)
    if not names:
        return {"sae": names}
    name = asked_sae(study, query)
    known = load_result(study, f"sae-{name}")["feature"].values
    asked = feature_card.selected(study, write_query({**query, "sae": name}))
    # Not all of tens of thousands: the one that is asked for, or some to choose from.
    features = [str(asked.feature)] if asked else [str(feature) for feature in known[:20]] + ["…"]
    return {
        "sae": names,
        "feature": features,
        "view": list(VIEWS)[1:],
        "colour": list(feature_map.COLOURS),
        "set": [one["value"] for one in feature_sets.set_choices(study) if one["value"]],
        **feature_ranking.offered_values(study, name, query),
        "area": area_choices(query),
    }


def register(app: dash.Dash, context: Context) -> None:
    """Keep table, feature and training in sync with the selection in the URL."""
    for part in (
        feature_card,
        feature_map,
        feature_sets,
        feature_table,
        feature_address,
        feature_training,
    ):
        part.register(app, context.study)


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register, kind="sae", named_by="sae")
