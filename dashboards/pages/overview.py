"""Overview: the study's settings, results, provenance and clips."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.concepts import ConceptPicker
from dashboards.components.grid import WRAPPED, headed, row_grid, selected_row
from dashboards.components.player import player
from dashboards.components.text import hint, key_values, numbers, panel, with_code
from dashboards.context import Context
from dashboards.links import address, change_query, read_query
from dashboards.names import shortened
from dashboards.pages import steering_vectors
from dashboards.pages.page import Page, Query
from dashboards.result_commands import command
from dashboards.results import is_usable, names_of_kind, other_origin, unusable, usable_names
from dashboards.truth import truth_frame
from workbench.studies.study import Study

PATH = "/"
NAME = "Overview"
SENTENCE = "What this study examines, the results it has, and the clips its model generated."
KINDS = {
    "patching": ("Patching", "/patching", "Which parts of the network put a concept into the music"),
    "probes": ("Probes", "/probes", "Where a concept can be decoded from the activations"),
    "sae": ("Features", "/features", "Features found by a sparse autoencoder"),
    "steering": ("Steering", "/steering", "What turning a concept up or down does to the music"),
    "benchmark": ("Evaluation", "/evaluation", "Methods of steering side by side, at equal distance"),
}

CLIPS_HELP = "All generated and traced clips, with their values of the concepts. Select one to hear it."
SELECT = "Select a clip to hear it and see its spectrogram."
MOST_NAMED = 12
MOST_RESULTS = 4  # of a kind, named on its card
LONGEST_LIST = 500  # characters
PICKER = ConceptPicker("clips", most=8)


def layout(context: Context, query: Query) -> Component:
    """The page."""
    study = context.study
    return dmc.Stack(
        [
            html.Div(
                [panel("Study", html.Div(_counts(study), id="study-counts")), html.Div(id="truth-table")]
            ),
            html.Div(_result_cards(study), id="result-cards"),
            panel("Clips", _clips(study, query), help=CLIPS_HELP),
            dmc.SimpleGrid(
                [
                    panel("Settings", html.Div(key_values(_settings(study)), id="study-settings")),
                    panel("Provenance", html.Div(key_values(_provenance(study)), id="study-provenance")),
                ],
                cols={"base": 1, "sm": 2},
            ),
        ],
        gap="md",
    )


def _clips(study: Study, query: Query) -> Component:
    """The table of clips, and the player of the selected one beside it."""
    search = dmc.TextInput(
        id="clip-search", label="clips", placeholder="all: type to find some", size="xs", w=220, debounce=300
    )
    concepts = _concepts(study)
    controls = dmc.Group([search, PICKER.layout(concepts, query)], gap="xl", align="end", mb="xs")
    columns, rows = _clip_columns(PICKER.picked(concepts, query)), _clip_rows(study)
    grid = row_grid("clips-grid", columns, height=380, rows=rows)
    return html.Div(
        [
            controls,
            dmc.Grid(
                [
                    dmc.GridCol(grid, span={"base": 12, "md": 8, "xl": 9}),
                    dmc.GridCol(
                        html.Div(hint(SELECT), id="clip-player"), span={"base": 12, "md": 4, "xl": 3}
                    ),
                ],
                gutter="lg",
            ),
        ]
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    clips = [str(clip) for clip in context.study.clips["clip"]]
    return {"clip": clips, **PICKER.choices(_concepts(context.study), query)}


def register(app: dash.Dash, context: Context) -> None:
    """Select and play a clip; follow the study's files; show the planted truth on request."""
    study = context.study
    PICKER.register(app, lambda _query: _concepts(study))

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("clips-grid", "selectedRows"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select_clip(rows: Any, search: str | None) -> Any:
        row = selected_row(rows)
        if row is None or row["id"] == read_query(search).get("clip"):
            return no_update
        return change_query(search, clip=row["id"])

    @app.callback(
        Output("clips-grid", "selectedRows"),
        Output("clip-player", "children"),
        Output("clip-player", "data-clip"),
        Input("url", "search"),
        State("clip-player", "data-clip"),
    )
    def show_clip(search: str | None, shown: str | None) -> tuple[Any, ...]:
        chosen = study.clips[study.clips["clip"].astype(str) == read_query(search).get("clip")]
        if chosen.empty:
            return {"ids": []}, hint(SELECT), None
        clip = chosen.iloc[0]
        name = str(clip["clip"])
        if name == shown:  # it may be playing
            return no_update, no_update, no_update
        path = study.audio_path(int(clip["clip"])).relative_to(study.path).as_posix()
        title = dmc.Text(f"Clip {name}: {clip['prompt']}", size="sm", fw=500, mb="xs")
        return {"ids": [name]}, html.Div([title, player(study, path, float(clip["duration"]))]), name

    @app.callback(
        Output("clips-grid", "columnDefs"),
        Input("clips-find", "value"),
        Input("clips-page", "value"),
        prevent_initial_call=True,
    )
    def show_labels(text: str | None, page: int | None) -> Any:
        query = {"find": text or "", "page": str(page)}
        return headed(_clip_columns(PICKER.picked(_concepts(study), query)))

    @app.callback(
        Output("clips-grid", "dashGridOptions"),
        Input("clip-search", "value"),
        State("clips-grid", "dashGridOptions"),
        prevent_initial_call=True,
    )
    def search_clips(text: str | None, options: dict[str, Any] | None) -> dict[str, Any]:
        return {**(options or {}), "quickFilterText": text or ""}

    @app.callback(
        Output("study-counts", "children"),
        Output("result-cards", "children"),
        Output("study-settings", "children"),
        Output("study-provenance", "children"),
        Output("clips-grid", "rowData"),
        Input("content", "data-version"),
        prevent_initial_call=True,
    )
    def follow_study(version: str | None) -> tuple[Any, ...]:
        del version  # only says that something has changed
        tables = [key_values(rows) for rows in (_settings(study), _provenance(study))]
        return _counts(study), _result_cards(study), *tables, _clip_rows(study)

    @app.callback(Output("truth-table", "children"), Input("truth", "checked"))
    def show_truth(on: bool | None) -> Component | None:
        if not on:
            return None
        rows = {str(row.concept): str(row.blocks) for row in truth_frame(study).itertuples()}
        help = "The blocks that were built to read each concept, outlined on the patching map."
        return html.Div(panel("Planted truth", key_values(rows), help=help), style={"marginTop": "16px"})


def _concepts(study: Study) -> list[str]:
    return list(study.spec.prompts.concepts)


def _counts(study: Study) -> Component:
    spec, concepts = study.spec, list(study.spec.prompts.concepts)
    return numbers(
        {
            "model": str(study.model.get("model", spec.model)),
            "clips": f"{len(study.clips)}",
            "prompts": f"{study.clips['prompt_id'].nunique()}",
            "seeds per prompt": f"{spec.seeds}",
            "seconds per clip": f"{spec.settings.duration:g}",
            "denoising steps": f"{spec.settings.num_steps} ({len(spec.steps)} recorded)",
            "sites": f"{len(spec.sites)}",
            "concepts": ", ".join(concepts) if len(concepts) <= MOST_NAMED else f"{len(concepts)}",
        },
        {
            "concepts": shortened(", ".join(concepts), LONGEST_LIST),
            "sites": ", ".join(spec.sites),
            "denoising steps": "Recorded steps: " + ", ".join(map(str, spec.steps)),
        },
    )


def _result_cards(study: Study) -> Component:
    return dmc.SimpleGrid([_result_card(study, kind) for kind in KINDS], cols={"base": 1, "xs": 2, "lg": 5})


def _result_card(study: Study, kind: str) -> Component:
    title, path, sentence = KINDS[kind]
    results = [] if kind == "probes" else names_of_kind(study, kind)
    state, colour = _state(study, kind)
    present = bool(results) or (kind == "probes" and kind in usable_names(study))
    badge = dmc.Badge(state, color=colour, variant="light", tt="none")
    heading = dmc.Group([dmc.Title(title, order=2, size="h4"), badge], justify="space-between")
    named = {"sae": "Sites", "patching": "Questions"}.get(kind, "Results")
    detail = f"{sentence}. {named}: {_some(results)}." if results else f"{sentence}."
    action = dmc.Anchor(f"Open {title.lower()}", href=address(path), size="sm", fw=500)
    if faults := unusable(study, kind):
        lines = [dmc.Text(with_code(fault), size="xs") for fault in faults]
        action = html.Div(lines, style={"overflowWrap": "anywhere"})
    elif not present:
        made = steering_vectors.commands(study) if kind == "steering" else command(study, kind)
        action = dmc.Code(made, block=True, className="command")
    return dmc.Paper(
        dmc.Stack([heading, dmc.Text(detail, size="sm", c="dimmed"), action], gap="xs"),
        withBorder=True,
        radius="md",
        p="md",
    )


def _some(names: list[str]) -> str:
    """The first few of the names, and how many more there are."""
    more = len(names) - MOST_RESULTS
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_RESULTS])} and {more} more"


def _state(study: Study, kind: str) -> tuple[str, str]:
    """What the badge of a kind of result says, as the lines above the page do, and its colour."""
    names = [name for name in study.result_names() if name.partition("-")[0] == kind]
    damaged = [name for name in names if not is_usable(study, name)]
    outdated = [name for name in names if name not in damaged and other_origin(study, name)]
    for word, found, colour in (("damaged", damaged, "red"), ("out of date", outdated, "yellow")):
        if found:
            return (word if len(found) == len(names) else f"{len(found)} of {len(names)} {word}"), colour
    return ("computed", "teal") if names else ("missing", "gray")


def _clip_columns(concepts: list[str]) -> list[dict[str, Any]]:
    """The columns of the table of clips, with the labels of these concepts."""
    return [
        {"field": "clip", "width": 64},
        {"field": "prompt", "flex": 1, "minWidth": 260, **WRAPPED},
        {"field": "seed", "width": 64},
        *({"field": f"label_{name}", "headerName": name, "width": 108} for name in concepts),
    ]


def _clip_rows(study: Study) -> list[dict[str, Any]]:
    labels = [name for name in study.clips if name.startswith("label_")]
    shown = study.clips[["clip", "prompt", "seed", *labels]]
    # JavaScript integers are exact only up to 2⁵³, so seeds are sent as text.
    return shown.assign(id=shown["clip"].astype(str), seed=shown["seed"].astype(str)).to_dict("records")


def _settings(study: Study) -> dict[str, str]:
    spec = study.spec
    return {
        **{name.replace("_", " "): str(value) for name, value in spec.settings.model_dump().items()},
        "prompt templates": shortened("; ".join(spec.prompts.templates), LONGEST_LIST),
        "sites": ", ".join(spec.sites),
        "recorded steps": ", ".join(map(str, spec.steps)),
        "recorded passes": ", ".join(spec.passes),
        "first seed": str(spec.seed),
        "cache": f"{spec.cache_dtype}, {spec.clips_per_shard} clips per shard",
    }


def _provenance(study: Study) -> dict[str, str]:
    entries = {**study.model, **study.provenance}
    libraries = entries.pop("libraries", {})
    rows = {name.replace("_", " "): str(value) for name, value in entries.items()}
    return {**rows, "libraries": ", ".join(f"{name} {value}" for name, value in libraries.items())}


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register)
