"""The export button of a figure: a menu of formats that downloads what `workbench export` writes."""

import io
import zipfile
from pathlib import Path
from typing import Any, get_args

import dash
from dash import ALL, Input, Output, State, dcc, html, no_update
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
    """The export button of the figure `key`; `data` (see `figure_data`) may be set later by a callback.

    A script makes its menu (`export.js`): Dash looks at every component at each change of a page, and a page may have
    many of these buttons.
    """
    menu = html.Div(className="export", **{"data-key": key, "data-formats": " ".join(get_args(FileFormat))})
    return html.Div([menu, dcc.Store(id={"type": "figure", "key": key}, data=data)])


def exchange() -> list[Component]:
    """What the menus of all buttons put what they ask for into, and what downloads the answer; once on a page."""
    return [dcc.Store(id="export-asked"), dcc.Download(id="export-file")]


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
        Output("export-file", "data"),
        Input("export-asked", "data"),
        State({"type": "figure", "key": ALL}, "id"),
        State({"type": "figure", "key": ALL}, "data"),
        prevent_initial_call=True,
    )
    def export(asked: dict[str, Any] | None, ids: list[dict[str, str]], figures: list[Any]) -> Any:
        if not asked:
            return no_update
        keys = [id["key"] for id in ids]
        data = dict(zip(keys, figures, strict=True)).get(asked["key"])
        if data is None:
            notify("Nothing to export yet", "First select something for the figure to show.", "gray")
            return no_update
        try:
            options = figure_options(data, context)
            notes: list[str] = []
            files = export_figure(
                context.study, data["figure"], asked["format"], warn=notes.append, **options
            )
        except UserError as error:
            notify("The figure was not exported", str(error), "red", stays=True)
            return no_update
        notify(
            "Exported", " ".join([f"Also written to {files[0].parent}.", *notes]), "teal", stays=bool(notes)
        )
        return dcc.send_bytes(zip_files(files), f"{files[0].stem}.zip")
