"""The study's steering vectors: what each is, and how far its direction can be trusted."""

import shlex
from typing import Any

import dash
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.steering.pack_summary import pack_facts, pack_line
from cache.errors import UserError
from dashboards.components.export import export_button, figure_data
from dashboards.components.following import follow_study
from dashboards.components.graph import graph
from dashboards.components.grid import WRAPPED, kept_selection, row_grid, selected_row
from dashboards.components.notices import remarks
from dashboards.components.selects import Choice, Selects
from dashboards.components.text import key_values, panel
from dashboards.figures import vector_reliability
from dashboards.figures.vector_reliability import VectorReliabilitySpec
from dashboards.links import change_query, read_query
from dashboards.packs import load_pack, pack_names, readable_packs
from dashboards.pages.page import Query
from dashboards.pages.site_links import map_link
from workbench.studies.study import Study

HELP = (
    "Cosines compare directions that were computed from disjoint sets of pairs: near 1, other pairs would have given "
    "the same direction. The judge was asked on other prompts whether + raises its score. Select a row to see a vector."
)
SELECTS = Selects("vector", ("site",))


def layout(study: Study) -> Component:
    """The panel; a sentence for each vector that cannot be read."""
    rows, faults = _lines(study)
    columns = [
        {"field": name, "flex": 1, "minWidth": 80, "tooltipField": name, **WRAPPED}
        for name in ("name", "concept", "+ is", "− is", "method", "sites", "split-half cosine", "judge")
    ]
    body = [
        remarks(faults, "Some vectors cannot be shown", "red"),
        row_grid("vectors-grid", columns, height=min(240, 64 + 34 * len(rows)), rows=rows),
        html.Div(
            [
                html.Div(SELECTS.layout(_sites(study, {})), className="one-select"),
                html.Div(graph("vector-reliability-graph"), className="scroll"),
                html.Div(id="vector-facts"),
                html.Div(id="vector-links"),
            ],
            id="vector",
            hidden=True,
        ),
    ]
    return panel(
        "Vectors",
        *(part for part in body if part is not None),
        help=HELP,
        actions=[export_button("vector-reliability")],
    )


def _lines(study: Study) -> tuple[list[dict[str, str]], list[str]]:
    """A line for each vector of the study, and a sentence for each that cannot be read."""
    rows, faults = [], []
    for name in pack_names(study):
        try:
            rows.append({**pack_line(name, load_pack(study, name)), "id": name})
        except UserError as error:
            faults.append(str(error))
    return rows, faults


def choices(study: Study, query: Query) -> dict[str, list[str]]:
    """The values that the panel accepts in the page's URL."""
    names = readable_packs(study)
    if not names:
        return {"pack": names}
    return {"pack": names, "site": list(load_pack(study, _chosen(query, names)).directions)}


def _chosen(query: Query, names: list[str]) -> str:
    return query["pack"] if query.get("pack") in names else names[0]


def commands(study: Study) -> str:
    """The commands that make a vector and try it, one line each."""
    folder, names = shlex.quote(str(study.path)), readable_packs(study)
    concept = shlex.quote(next(iter(study.spec.prompts.concepts)))
    fit = [] if names else [f"workbench steer fit {folder} --concept {concept}"]
    pack = shlex.quote(names[0]) if names else concept
    return "\n".join([*fit, f"workbench steer apply {folder} --pack {pack}"])


def register(app: dash.Dash, study: Study) -> None:
    """Keep the table, the figure and the facts in sync with the vector selected in the URL."""
    follow_study(app, "vectors-grid", lambda: _lines(study)[0], "rowData")

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("vectors-grid", "selectedRows"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_vector(rows: Any, search: str | None) -> Any:
        row, names = selected_row(rows), readable_packs(study)
        if row is None or not names or row["id"] == _chosen(read_query(search), names):
            return no_update
        return change_query(search, pack=row["id"], site=None)

    SELECTS.register(app, lambda query: _sites(study, query))

    @app.callback(
        Output("vector", "hidden"),
        Output("vectors-grid", "selectedRows"),
        Output("vector-reliability-graph", "figure"),
        Output("vector-facts", "children"),
        Output("vector-links", "children"),
        Output({"type": "figure", "key": "vector-reliability"}, "data"),
        Input("url", "search"),
        State("vectors-grid", "selectedRows"),
    )
    def show_vector(search: str | None, rows: Any) -> tuple[Any, ...]:
        query = read_query(search)
        known = choices(study, query)
        if not known["pack"]:
            raise PreventUpdate
        name = _chosen(query, known["pack"])
        site = _site(query, known["site"])
        spec = VectorReliabilitySpec(pack=name, site=site)
        table = vector_reliability.make_table(study, spec)
        pack = load_pack(study, name)
        facts = {label: text for label, text in pack_facts(pack).items() if text}
        picture = vector_reliability.draw_screen(table)
        data = figure_data("vector-reliability", spec)
        link = map_link(study, pack.concept, site)
        return False, kept_selection(rows, name), picture, key_values(facts), link, data


def _sites(study: Study, query: Query) -> dict[str, Choice]:
    sites = choices(study, query).get("site", [])
    return {"site": Choice("site", sites, _site(query, sites) if sites else None)}


def _site(query: Query, sites: list[str]) -> str:
    return query["site"] if query.get("site") in sites else sites[0]
