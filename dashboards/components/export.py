"""The export button of a figure: a menu of formats that downloads what `workbench export` writes."""

import io
import zipfile
from pathlib import Path
from typing import Any, get_args

import dash
from dash import ALL, MATCH, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.components.notices import notify
from dashboards.context import Context
from dashboards.export import export_figure
from dashboards.figures.specs import FigureSpec
from dashboards.formats import FileFormat

PATHS = ("compare", "published")


def figure_data(figure: str, spec: FigureSpec) -> dict[str, Any]:
    """The data that an export button needs about its figure."""
    return {"figure": figure, "options": spec.model_dump(mode="json")}


def export_button(key: str, data: dict[str, Any] | None = None) -> Component:
    """The export button of the figure `key`; `data` (see `figure_data`) may be set later by a callback."""
    formats = [
        html.Button(format.upper(), id={"type": "export", "key": key, "format": format})
        for format in get_args(FileFormat)
    ]
    return html.Div(
        [
            # Not Mantine's menu: Dash compares all that a page has with each such menu at every change of the page.
            html.Details(
                [
                    html.Summary("Export", id={"type": "export-menu", "key": key}),
                    html.Div([html.Div("Figure, CSV, LaTeX, caption, provenance"), *formats]),
                ],
                className="export",
            ),
            dcc.Store(id={"type": "figure", "key": key}, data=data),
            dcc.Download(id={"type": "download", "key": key}),
        ]
    )


def figure_options(data: dict[str, Any], context: Context) -> dict[str, Any]:
    """The options of a figure that a browser asks for; paths of files are the server's own, looked up by name."""
    options = {name: value for name, value in data["options"].items() if name not in PATHS}
    other = options.pop("other", None)
    return {**options, **context.comparisons.get(other, {})}


def zip_files(files: list[Path]) -> bytes:
    """A zip archive of `files`, by their names, without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def register(app: dash.Dash, context: Context) -> None:
    """Let every export button write its figure into the study's `figures` folder and download it as a zip."""

    @app.callback(
        Output({"type": "download", "key": MATCH}, "data"),
        Input({"type": "export", "key": MATCH, "format": ALL}, "n_clicks"),
        State({"type": "figure", "key": MATCH}, "data"),
        prevent_initial_call=True,
    )
    def export(clicks: list[int | None], data: dict[str, Any] | None) -> Any:
        pressed = ctx.triggered_id
        if not any(clicks) or not isinstance(pressed, dict):
            return no_update
        if data is None:
            notify("Nothing to export yet", "First select something for the figure to show.", "gray")
            return no_update
        try:
            options = figure_options(data, context)
            notes: list[str] = []
            files = export_figure(
                context.study, data["figure"], pressed.get("format", ""), warn=notes.append, **options
            )
        except UserError as error:
            notify("The figure was not exported", str(error), "red", stays=True)
            return no_update
        notify(
            "Exported", " ".join([f"Also written to {files[0].parent}.", *notes]), "teal", stays=bool(notes)
        )
        return dcc.send_bytes(zip_files(files), f"{files[0].stem}.zip")
