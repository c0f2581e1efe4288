"""One cell of a patching map: its numbers, its effect in each pair, and the pairs' audio side by side."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from dash import Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from analyses.statistics import too_few_pairs
from dashboards.components.ab import ab_player
from dashboards.components.export import export_button, figure_data
from dashboards.components.graph import clicked_point, graph
from dashboards.components.grid import WRAPPED, kept_selection, number_column, row_grid, selected_row
from dashboards.components.notices import notify
from dashboards.components.patching_clips import SIDES, cell_sides
from dashboards.components.player import Recording, players, recordings_data
from dashboards.components.text import details, numbers, panel
from dashboards.differences import in_brackets
from dashboards.figures import patching_pairs
from dashboards.figures.patching_pairs import PatchingPairsSpec
from dashboards.links import change_query, read_query
from dashboards.numbers import fixed, p_value
from dashboards.pages.site_links import cell_links
from dashboards.results import load_result, name_to_show
from dashboards.standalone import export_page
from dashboards.tables.patching import ALL, SCREENED_OUT, UNTESTED, arms_frame, cells_frame, pairs_frame
from dashboards.wording import interval
from workbench.studies.study import Study

SELECTION = ("concept", "arm", "pair", "seed", "arms")
SHOWN_ARMS = 3  # names shown of arms that share a recording; the rest are counted


def layout() -> Component:
    """The panel, empty until a cell is selected."""
    columns = [
        {"field": "pair", "width": 42},
        {"field": "seed", "width": 46},
        {"field": "noise_seed", "headerName": "noise", "width": 94, **WRAPPED},
        *({"field": side, "width": 66, **number_column(".3f", "no score")} for side in SIDES),
        {
            "field": "values",
            "flex": 1,
            "minWidth": 90,
            "tooltipField": "prompts",
            "getQuickFilterText": {"function": "params.data.prompts + ' ' + params.value"},
            **WRAPPED,
        },
    ]
    all_arms = dmc.Button("", id="all-arms", variant="default", size="compact-sm", fw=500, mt="md")
    search = dmc.TextInput(
        id="pairs-filter", placeholder="Filter pairs by prompt, value or number", size="xs", mb=6
    )
    body = details(
        "cell",
        "Click a cell of the map to see its numbers and prompt pairs, and to hear the clips.",
        [
            html.Div(id="cell-numbers"),
            html.Div(id="cell-links"),
            graph("patching-pairs-graph"),
            search,
            row_grid("pairs-grid", columns, height=240),
            ab_player("cell-players"),
            all_arms,
            html.Div(players("cell-arms"), className="recordings"),
        ],
    )
    help = "Numbers, pairs and audio of one cell. Each dot is one pair and seed; click it to hear the clips."
    page = dmc.Button("Page with audio", id="cell-page", variant="default", size="compact-sm", fw=500)
    sent = dcc.Download(id="cell-page-download")
    return panel("Cell", body, help=help, actions=[page, sent, export_button("patching-pairs")])


def choices(result: xr.Dataset) -> dict[str, list[str]]:
    """The values that the panel accepts in the page's URL."""
    return {
        "concept": [str(name) for name in result["concept"].values],
        "arm": [str(name) for name in result["arm"].values[result["role"].values != "run"]],
        "pair": [str(pair) for pair in result["pair"].values],
        "seed": [str(seed) for seed in result["seed"].values],
        "arms": [ALL],
    }


def register(app: dash.Dash, study: Study) -> None:
    """Show the cell and the pair selected in the URL."""

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("pairs-grid", "selectedRows"),
        State("pairs-grid", "rowData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_pair(rows: Any, pairs: list[dict[str, Any]], search: str | None) -> Any:
        query, row = read_query(search), selected_row(rows)
        if row is None:
            return no_update
        first = pairs[0]["id"] if pairs else None
        shown = _pair_id(query["pair"], query["seed"]) if {"pair", "seed"} <= set(query) else first
        if row["id"] == shown:
            return no_update
        return change_query(search, pair=row.get("pair"), seed=row.get("seed"))

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("patching-pairs-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_dot(click: dict[str, Any] | None, search: str | None) -> Any:
        run = (clicked_point(click) or {}).get("customdata")
        return change_query(search, pair=run[0], seed=run[1]) if isinstance(run, list) else no_update

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("all-arms", "n_clicks"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def toggle_arms(clicks: int | None, search: str | None) -> Any:
        if not clicks:
            return no_update
        return change_query(search, arms=None if read_query(search).get("arms") == "all" else "all")

    @app.callback(
        Output("cell-page-download", "data"),
        Input("cell-page", "n_clicks"),
        State({"type": "figure", "key": "patching-pairs"}, "data"),
        prevent_initial_call=True,
    )
    def send_page(clicks: int | None, data: dict[str, Any] | None) -> Any:
        """Write the cell with its recordings as one HTML file, and send it."""
        if not clicks:
            return no_update
        if data is None:
            notify("Nothing to send yet", "First select a cell.", "gray")
            return no_update
        said: list[str] = []
        file = export_page(study, "patching-pairs", warn=said.append, **data["options"])
        notify("Exported", " ".join([f"Also written to {file.parent}.", *said]), "teal")
        return dcc.send_file(file)

    @app.callback(
        Output("pairs-grid", "dashGridOptions"),
        Input("pairs-filter", "value"),
        State("pairs-grid", "dashGridOptions"),
        prevent_initial_call=True,
    )
    def filter_pairs(text: str | None, options: dict[str, Any] | None) -> dict[str, Any]:
        return {**(options or {}), "quickFilterText": text or ""}

    @app.callback(
        Output("cell", "hidden"),
        Output("cell-hint", "hidden"),
        Output("cell-numbers", "children"),
        Output("cell-links", "children"),
        Output("patching-pairs-graph", "figure"),
        Output({"type": "figure", "key": "patching-pairs"}, "data"),
        Output("pairs-grid", "rowData"),
        Output("pairs-grid", "selectedRows"),
        Output("cell-players", "data-sides"),
        Output("all-arms", "children"),
        Output("cell-arms", "data-recordings"),
        Input("url", "search"),
        State("pairs-grid", "selectedRows"),
    )
    def show_cell(search: str | None, rows: Any) -> tuple[Any, ...]:
        query = read_query(search)
        name = name_to_show(study, "patching", query.get("result", ""))
        result = load_result(study, f"patching-{name}")
        scorer = query["scorer"] if query.get("scorer") in result["scorer"].values else ""
        cells = cells_frame(result, scorer)
        cell = cells[(cells["concept"] == query.get("concept")) & (cells["arm"] == query.get("arm"))]
        nothing: tuple[Any, ...] = (True, False, None, None, go.Figure(), None, [], [], "{}", "", "[]")
        if cell.empty:
            return nothing
        spec = PatchingPairsSpec(name=name, scorer=scorer, concept=query["concept"], arm=query["arm"])
        pairs = pairs_frame(result, spec.concept, spec.arm, scorer)
        if pairs.empty:  # its pairs cannot be compared, or were left out
            return nothing
        pairs["noise_seed"] = pairs["noise_seed"].astype(str)  # JavaScript integers are exact up to 2⁵³
        pairs["values"] = pairs["clean_value"] + " → " + pairs["corrupt_value"]
        pairs["prompts"] = [
            f"clean: {in_brackets(clean, corrupt)}; corrupt: {in_brackets(corrupt, clean)}"
            for clean, corrupt in zip(pairs["clean_prompt"], pairs["corrupt_prompt"], strict=True)
        ]
        pairs["id"] = [_pair_id(pair, seed) for pair, seed in zip(pairs["pair"], pairs["seed"], strict=True)]
        chosen = pairs[pairs["id"] == _pair_id(query.get("pair"), query.get("seed"))]
        row = (pairs if chosen.empty else chosen).iloc[0]
        pair, seed = int(row["pair"]), int(row["seed"])
        picture = patching_pairs.draw_screen(patching_pairs.make_table(study, spec), (pair, seed))
        recordings = arms_frame(result, spec.concept, pair, seed, scorer)
        open_arms = query.get("arms") == "all"
        label = f"{'Hide' if open_arms else 'Show'} all arms of this pair ({len(recordings)} recordings)"
        return (
            False,
            True,
            _numbers(cell.iloc[0]),
            cell_links(study, result, cell.iloc[0], row),
            picture,
            figure_data("patching-pairs", spec),
            pairs.astype(object).where(pairs.notna(), None).to_dict("records"),
            kept_selection(rows, row["id"]),
            cell_sides(study, row, cell.iloc[0]),
            label,
            _arms(study, recordings) if open_arms else "[]",
        )


def _pair_id(pair: object, seed: object) -> str:
    return f"{pair}-{seed}"


def _numbers(cell: pd.Series) -> Component:
    impact = cell["status"] if pd.isna(cell["impact"]) else interval(cell, "impact", 3)
    shown = {
        "concept": cell["concept"],
        "patched": cell["arm"],
        f"{cell['direction'] or 'impact'}, 95 % interval": impact,
        "p, adjusted": f"{p_value(cell['p'])}, {p_value(cell['p_adjusted'])}",
        "clean − corrupt score": interval(cell, "denominator", 3),
        "n": f"{cell['n']:.0f} from {cell['n_pairs']:.0f} pairs",
    }
    if cell["status"] not in ("clear", "undefined", "no score", SCREENED_OUT):
        few = cell["status"] == UNTESTED
        shown["verdict"] = too_few_pairs(int(cell["n_pairs"])) if few else cell["status"]
    return numbers(
        shown,
        {
            "n": "(Pair, seed) combinations with scores, and pairs.",
            "p, adjusted": "Sign-flip test over pairs; then corrected over the cells of all concepts. "
            "Null arms are not corrected.",
            "clean − corrupt score": "The denominator of the impact; it must be clearly above zero.",
        },
    )


def _arms(study: Study, recordings: pd.DataFrame) -> str:
    return recordings_data(
        study,
        [
            Recording(
                path=row.audio,
                seconds=study.spec.settings.duration,
                title=_arm_names(row.arms),
                hover=", ".join(row.arms),
                detail="no score" if pd.isna(row.score) else fixed(row.score, 3),
            )
            for row in recordings.itertuples()
        ],
    )


def _arm_names(arms: list[str]) -> str:
    more = len(arms) - SHOWN_ARMS
    names = ", ".join(arms[:SHOWN_ARMS])
    return f"{names} and {more} more" if more > 0 else names
