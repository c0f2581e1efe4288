"""The features of the table ranked by what they carry of the difference between two concept values."""

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from dashboards.feature_browser import scored_values
from dashboards.pages.page import Query
from workbench.studies.study import Study

SELECTORS = {"value": "Rank for a concept value", "against": "… against another"}
"""What chooses the two values, by their names in the URL."""


def selectors(study: Study, name: str, query: Query) -> list[Component]:
    """The two selectors of concept values."""
    return [
        dmc.Select(
            id=f"feature-{key}",
            data=offered,
            value=query.get(key),
            placeholder=SELECTORS[key],
            clearable=True,
            disabled=not offered,
            size="xs",
            **{"aria-label": SELECTORS[key]},
        )
        for key, offered in offered_values(study, name, query).items()
    ]


def offered_values(study: Study, name: str, query: Query) -> dict[str, list[str]]:
    """The values that features have scores for, and those that the one in the URL can be compared with."""
    values = scored_values(study, name)
    return {"value": values, "against": [each for each in values if is_comparable(query.get("value"), each)]}


def is_comparable(value: str | None, against: str | None) -> bool:
    """Whether features can be ranked for a value against another one: both are of one concept."""
    concept, other = ((each or "").partition("=")[0] for each in (value, against))
    return bool(value) and value != against and concept == other


def line(query: Query) -> Component:
    """A line above the table while it is ranked."""
    return html.Div(ranked_by(query), id="features-ranked", className="ranked")


def ranked_by(query: Query) -> str:
    """What the order of the table means, if it is ranked by a concept value."""
    if not query.get("value"):
        return ""
    others = query.get("against") or "another value"
    return (
        f"Ranked by the part that a feature carries of the difference between all clips with {query['value']} and all "
        f"with {others}, at this site. A cell of a patching map leads here by the values of its pair; the runs of the "
        "cell itself are not used."
    )
