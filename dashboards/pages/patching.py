"""Patching: the map of impact, and the pairs and audio behind each of its cells."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.export import figure_data
from dashboards.components.graph import figure_panel
from dashboards.components.grid import number_column, row_grid, selected_row
from dashboards.components.player import player
from dashboards.components.text import empty_state, hint, numbers, page_header, panel
from dashboards.figures import FIGURES
from dashboards.frames.patching import pairs_frame
from dashboards.links import change_query, read_query
from dashboards.results import command, has_result, load_result
from dashboards.screen.patching import cell_at, patching_map
from dashboards.specs import PatchingSpec
from workbench.study import Study

PATH = "/patching"
NAME = "Patching"
SENTENCE = (
    "Which blocks put a concept into the music: each cell is a run with the corrupt prompt in which one block is given "
    "the clean prompt, and its impact is the share of the concept that comes back (0 none, 1 all)."
)
HELP = (
    "Impact = (patched − corrupt) / (clean − corrupt), in the scorer's values. Hatched: the 95 % interval contains "
    "zero. Undefined: clean and corrupt do not differ clearly. Click a cell to see its pairs and hear it."
)
MOST_BESIDE = 5  # concepts; with more the map needs the whole width
SIDES = {
    "clean": "The run with the clean prompt.",
    "corrupt": "The run with the corrupt prompt, from the same noise.",
    "patched": "The corrupt run in which the block is given the clean prompt.",
}


def layout(study: Study, query: dict[str, str]) -> Component:
    """The page, or what to do while there is no patching result."""
    del query  # the callbacks read the address
    header = page_header(NAME, SENTENCE)
    if not has_result(study, "patching"):
        then = "The map shows, for every block and concept, how much of the concept that block alone brings back."
        return html.Div(
            [header, empty_state("There is no patching result yet.", then, command(study, "patching"))]
        )
    beside = load_result(study, "patching").sizes["concept"] <= MOST_BESIDE
    map_panel = figure_panel("patching", "Impact", HELP, html.Div(id="patching-legend"))
    cell_panel = panel("Cell", _detail(), help="The numbers, pairs and audio of one cell.")
    columns = [
        dmc.GridCol(map_panel, span=9 if beside else 24),
        dmc.GridCol(cell_panel, span=15 if beside else 24),
    ]
    return html.Div([header, dmc.Grid(columns, columns=24, gutter="md")])


def _detail() -> Component:
    columns = [
        {"field": "pair", "width": 52},
        {"field": "seed", "width": 58},
        {"field": "clean_prompt", "headerName": "clean prompt", "flex": 1, "tooltipField": "clean_prompt"},
        {
            "field": "corrupt_prompt",
            "headerName": "corrupt prompt",
            "flex": 1,
            "tooltipField": "corrupt_prompt",
        },
        *({"field": side, "width": 78, **number_column(".3f", "no score")} for side in SIDES),
    ]
    grid = row_grid("pairs-grid", columns, height=190)
    return html.Div(
        [
            html.Div(
                hint("Click a cell of the map to see its numbers, its prompt pairs, and to hear them."),
                id="cell-hint",
                hidden=True,
            ),
            html.Div(
                [html.Div(id="cell-numbers"), grid, html.Div(id="cell-players")], id="cell", hidden=True
            ),
        ]
    )


def register(app: dash.Dash, study: Study) -> None:
    """Keep map, pairs and players in step with the selection in the address."""

    @app.callback(
        Output("patching-graph", "figure"),
        Output("patching-graph", "clickData"),
        Output({"type": "figure", "key": "patching"}, "data"),
        Output("patching-legend", "children"),
        Input("url", "search"),
        Input("truth", "checked"),
    )
    def draw(search: str | None, truth: bool | None) -> tuple[go.Figure, None, dict[str, Any], Component]:
        query = read_query(search)
        spec = PatchingSpec(truth=bool(truth))
        frame = FIGURES["patching"].frame(study, spec)
        picture = patching_map(frame, (query.get("concept", ""), query.get("arm", "")))
        return picture, None, figure_data("patching", spec), _legend(frame)

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("patching-graph", "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_cell(click: dict[str, Any] | None, search: str | None) -> Any:
        frame = FIGURES["patching"].frame(study, PatchingSpec())
        cell = cell_at(frame, click["points"][0]["x"], click["points"][0]["y"]) if click else None
        if cell is None:
            return no_update
        return change_query(search, concept=cell[0], arm=cell[1], pair=None, seed=None)

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
        shown = _pair_id(query["pair"], query["seed"]) if {"pair", "seed"} <= set(query) else pairs[0]["id"]
        if row["id"] == shown:
            return no_update
        return change_query(search, pair=row["pair"], seed=row["seed"])

    @app.callback(
        Output("cell", "hidden"),
        Output("cell-hint", "hidden"),
        Output("cell-numbers", "children"),
        Output("pairs-grid", "rowData"),
        Output("pairs-grid", "selectedRows"),
        Output("cell-players", "children"),
        Input("url", "search"),
    )
    def show_cell(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        frame = FIGURES["patching"].frame(study, PatchingSpec())
        cell = frame[(frame["concept"] == query.get("concept")) & (frame["arm"] == query.get("arm"))]
        if cell.empty:
            return True, False, None, [], [], None
        concept, arm = query["concept"], query["arm"]
        pairs = pairs_frame(load_result(study, "patching"), concept, arm)
        pairs["id"] = [_pair_id(pair, seed) for pair, seed in zip(pairs["pair"], pairs["seed"], strict=True)]
        chosen = pairs[pairs["id"] == _pair_id(query.get("pair"), query.get("seed"))]
        row = (pairs if chosen.empty else chosen).iloc[0]
        players = _players(study, row, arm)
        return False, True, _numbers(cell.iloc[0]), pairs.to_dict("records"), {"ids": [row["id"]]}, players


def _pair_id(pair: object, seed: object) -> str:
    return f"{pair}-{seed}"


def _legend(frame: pd.DataFrame) -> Component:
    keys = [("key-hatched", "interval contains zero")]
    if (frame["status"] == "undefined").any():
        keys.append(("key-undefined", "undefined"))
    if "planted" in frame:
        keys.append(("key-planted", "planted"))
    return html.Div([html.Span([html.I(className=name), text]) for name, text in keys], className="legend")


def _numbers(cell: pd.Series) -> Component:
    impact = cell["status"]
    if cell["status"] in ("clear", "contains zero"):
        impact = f"{cell['impact']:z.3f}  [{cell['impact_lo']:z.3f}, {cell['impact_hi']:z.3f}]"
    difference = f"{cell['denominator']:z.3f}  [{cell['denominator_lo']:z.3f}, {cell['denominator_hi']:z.3f}]"
    return numbers(
        {
            "concept": cell["concept"],
            "patched": cell["arm"],
            "impact, 95 % interval": impact,
            "clean − corrupt score": difference,
            "n": str(cell["n"]),
        },
        {
            "n": "Pairs times seeds.",
            "clean − corrupt score": "The denominator of the impact; it must lie above zero.",
        },
    )


def _players(study: Study, row: pd.Series, arm: str) -> Component:
    cards = []
    for side, told in SIDES.items():
        title = f"patched at {arm}" if side == "patched" else side
        score = "no score" if pd.isna(row[side]) else f"score {row[side]:z.3f}"
        names = [dmc.Text(title, fw=600, size="sm"), dmc.Text(score, size="xs", className="figure")]
        heading = dmc.Group(names, justify="space-between", wrap="nowrap")
        same = side == "patched" and row["patched_audio"] == row["corrupt_audio"]
        prompt = row["clean_prompt"] if side == "clean" else row["corrupt_prompt"]
        line = "Identical to the corrupt run." if same else prompt
        caption = dmc.Tooltip(
            dmc.Text(line, size="xs", c="dimmed", lineClamp=2, h=36, mb=4), label=told, openDelay=400
        )
        cards.append(
            html.Div([heading, caption, player(study, row[f"{side}_audio"], study.spec.settings.duration)])
        )
    told = f"The score says how well a clip matches “{row['text']}”."
    return html.Div(
        [
            dmc.Text(told, size="xs", c="dimmed", mt="sm", mb="xs"),
            dmc.SimpleGrid(cards, cols=3, spacing="md"),
        ]
    )
