"""Overview: the study's settings, results, provenance and clips."""

import json
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.components.grid import row_grid, selected_row
from dashboards.components.player import player
from dashboards.components.text import hint, key_values, numbers, panel
from dashboards.context import Context
from dashboards.links import address, change_query, read_query
from dashboards.pages import steering_vectors
from dashboards.pages.page import Page, Query
from dashboards.results import command, names_of_kind, usable_names
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
}

BADGES = {"computed": "teal", "missing": "gray", "damaged": "red"}


def layout(context: Context, query: Query) -> Component:
    """The page."""
    del query  # the clip's callback reads the URL
    study = context.study
    return dmc.Stack(
        [
            html.Div([panel("Study", _counts(study)), html.Div(id="truth-table")]),
            dmc.SimpleGrid([_result_card(study, kind) for kind in KINDS], cols={"base": 2, "lg": 4}),
            panel(
                "Clips",
                dmc.Grid(
                    [
                        dmc.GridCol(_clip_grid(study), span=9),
                        dmc.GridCol(html.Div(id="clip-player"), span=3),
                    ],
                    gutter="lg",
                ),
                help="All generated and traced clips. Select one to hear it.",
            ),
            dmc.SimpleGrid(
                [
                    panel("Settings", key_values(_settings(study))),
                    panel("Provenance", key_values(_provenance(study))),
                ],
                cols=2,
            ),
        ],
        gap="md",
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    del query
    return {"clip": [str(clip) for clip in context.study.clips["clip"]]}


def register(app: dash.Dash, context: Context) -> None:
    """Select and play a clip; show the planted truth on request."""
    study = context.study

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

    @app.callback(Output("clip-player", "children"), Input("url", "search"))
    def show_clip(search: str | None) -> Component:
        chosen = study.clips[study.clips["clip"].astype(str) == read_query(search).get("clip")]
        if chosen.empty:
            return hint("Select a clip to hear it and see its spectrogram.")
        clip = chosen.iloc[0]
        path = study.audio_path(int(clip["clip"])).relative_to(study.path).as_posix()
        title = dmc.Text(f"Clip {clip['clip']}: {clip['prompt']}", size="sm", fw=500, mb="xs")
        return html.Div([title, player(study, path, float(clip["duration"]))])

    @app.callback(Output("truth-table", "children"), Input("truth", "checked"))
    def show_truth(on: bool | None) -> Component | None:
        if not on:
            return None
        rows = {str(row.concept): str(row.blocks) for row in truth_frame(study).itertuples()}
        help = "The blocks that were built to read each concept, outlined on the patching map."
        return html.Div(panel("Planted truth", key_values(rows), help=help), style={"marginTop": "16px"})


def _counts(study: Study) -> Component:
    spec = study.spec
    return numbers(
        {
            "model": str(study.model.get("model", spec.model)),
            "clips": f"{len(study.clips)}",
            "prompts": f"{study.clips['prompt_id'].nunique()}",
            "seeds per prompt": f"{spec.seeds}",
            "seconds per clip": f"{spec.settings.duration:g}",
            "denoising steps": f"{spec.settings.num_steps} ({len(spec.steps)} recorded)",
            "sites": f"{len(spec.sites)}",
            "concepts": ", ".join(spec.prompts.concepts),
        },
        {
            "sites": ", ".join(spec.sites),
            "denoising steps": "Recorded steps: " + ", ".join(map(str, spec.steps)),
        },
    )


def _result_card(study: Study, kind: str) -> Component:
    title, path, sentence = KINDS[kind]
    results = [] if kind == "probes" else names_of_kind(study, kind)
    present = bool(results) or (kind == "probes" and kind in usable_names(study))
    state = "computed" if present else "missing"
    if not present and any(name.partition("-")[0] == kind for name in study.result_names()):
        state = "damaged"
    badge = dmc.Badge(state, color=BADGES[state], variant="light", tt="none")
    heading = dmc.Group([dmc.Title(title, order=2, size="h4"), badge], justify="space-between")
    named = {"sae": "Sites", "patching": "Questions", "steering": "Results"}
    detail = f"{sentence}. {named[kind]}: {', '.join(results)}." if results else f"{sentence}."
    action = dmc.Anchor(f"Open {title.lower()}", href=address(path), size="sm", fw=500)
    if not present:
        made = steering_vectors.commands(study) if kind == "steering" else command(study, kind)
        action = dmc.Code(made, block=True, className="command")
    return dmc.Paper(
        dmc.Stack([heading, dmc.Text(detail, size="sm", c="dimmed"), action], gap="xs"),
        withBorder=True,
        radius="md",
        p="md",
    )


def _clip_grid(study: Study) -> Component:
    labels = [name for name in study.clips if name.startswith("label_")]
    shown = study.clips[["clip", "prompt", "seed", *labels]]
    columns = [
        {"field": "clip", "width": 64},
        {"field": "prompt", "flex": 1, "minWidth": 160, "tooltipField": "prompt"},
        {"field": "seed", "width": 64},
        *({"field": name, "headerName": name.removeprefix("label_"), "width": 108} for name in labels),
    ]
    # JavaScript integers are exact only up to 2⁵³, so seeds are sent as text.
    rows = shown.assign(id=shown["clip"].astype(str), seed=shown["seed"].astype(str)).to_dict("records")
    return row_grid("clips-grid", columns, height=330, rows=rows)


def _settings(study: Study) -> dict[str, str]:
    spec = study.spec
    return {
        **{name.replace("_", " "): str(value) for name, value in spec.settings.model_dump().items()},
        "prompt templates": "; ".join(spec.prompts.templates),
        "sites": ", ".join(spec.sites),
        "recorded steps": ", ".join(map(str, spec.steps)),
        "recorded passes": ", ".join(spec.passes),
        "first seed": str(spec.seed),
        "cache": f"{spec.cache_dtype}, {spec.clips_per_shard} clips per shard",
    }


def _provenance(study: Study) -> dict[str, str]:
    document = json.loads((study.path / "study.json").read_text(encoding="utf-8"))
    entries = {**study.model, **document["provenance"]}
    libraries = entries.pop("libraries", {})
    rows = {name.replace("_", " "): str(value) for name, value in entries.items()}
    return {**rows, "libraries": ", ".join(f"{name} {value}" for name, value in libraries.items())}


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register)
