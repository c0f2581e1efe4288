"""What people write about a feature: its label, note, star and sets, kept in the study as they are written."""

import base64
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, MATCH, ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.text import refusal
from dashboards.results import load_result, sae_names
from workbench.studies.feature_notes import (
    Entry,
    NoteField,
    Written,
    change_set,
    read_earlier,
    read_feature,
    set_names,
    sets_of,
    weights_of,
    write,
)
from workbench.studies.feature_notes_csv import MOST_BYTES, import_notes, imported_sentence, notes_csv
from workbench.studies.study import Study

NOTE_HELP = "Saved when you leave the field. Others with this study see it after their next click."
STARS = {"": "☆ Star", "1": "★ Starred"}
OTHER_WEIGHTS = (
    "Not saved: this autoencoder was trained again after the page had been opened, and its features are others. Copy "
    "what you have written, and reload the page."
)


def edited(study: Study, name: str, feature: int) -> str:
    """What an editor is for: another feature, or one of other weights, needs another editor."""
    try:
        return f"{name}/{feature}/{weights_of(study.path, name)}"
    except UserError:  # the editor says why
        return f"{name}/{feature}"


def editor(study: Study, name: str, feature: int) -> Component:
    """The fields of one feature with what is written; ids have the feature, so that a late answer meets no other."""
    try:
        fields, earlier = read_feature(study.path, name, feature), read_earlier(study.path, name, feature)
        sets, names = sets_of(study.path, name, feature), set_names(study.path)
    except UserError as error:
        return dmc.Alert(str(error), color="red", mb="xs")
    key = f"{name}/{feature}"

    def id(kind: str) -> dict[str, str]:
        return {"kind": kind, "of": key}

    label = dmc.TextInput(
        id=id("label"),
        label="Your label",
        value=fields["label"].value,
        debounce=True,
        size="xs",
        style={"flex": 1, "minWidth": 140},
    )
    tags = dmc.TagsInput(
        id=id("sets"),
        label="Sets",
        value=sets,
        data=names,
        placeholder="" if sets else "Add to a set, new or old",
        maxTags=20,
        size="xs",
        style={"flex": 1, "minWidth": 140},
    )
    star = dmc.Button(STARS[fields["star"].value], id=id("star"), variant="default", size="xs")
    note = dmc.Textarea(
        id=id("note"),
        label="Note",
        value=fields["note"].value,
        debounce=True,
        autosize=True,
        minRows=1,
        maxRows=12,
        size="xs",
        **{"aria-description": NOTE_HELP},
    )
    return html.Div(
        [
            dmc.Group([label, tags, star], align="flex-end", gap="xs"),
            note,
            html.Div(id=id("said"), className="said", role="status"),
            html.Div(id=id("said-note"), className="said", role="status"),
            html.Div(_earlier(earlier), id=id("earlier")),
            dcc.Store(id=id("read"), data={**_revisions(fields), "weights": weights_of(study.path, name)}),
        ]
    )


def exchange() -> Component:
    """Buttons that write the study's notes as CSV, and read them."""
    upload = dcc.Upload(
        dmc.Button("Import notes", variant="subtle", size="compact-xs"),
        id="notes-import",
        accept=".csv",
        max_size=MOST_BYTES,
    )
    return dmc.Group(
        [
            dmc.Button("Export notes as CSV", id="notes-export", variant="subtle", size="compact-xs"),
            upload,
            dmc.Text(id="notes-said", size="xs", c="dimmed"),
            dcc.Download(id="notes-file"),
        ],
        gap="xs",
        mt=4,
    )


def register(app: dash.Dash, study: Study) -> None:
    """Write what is changed, and say what somebody else had written meanwhile."""

    @app.callback(
        Output({"kind": "said", "of": MATCH}, "children"),
        Output({"kind": "said-note", "of": MATCH}, "children"),
        Output({"kind": "read", "of": MATCH}, "data"),
        Output({"kind": "note", "of": MATCH}, "value"),
        Output({"kind": "star", "of": MATCH}, "children"),
        Output({"kind": "earlier", "of": MATCH}, "children"),
        Input({"kind": "label", "of": MATCH}, "value"),
        Input({"kind": "note", "of": MATCH}, "value"),
        Input({"kind": "star", "of": MATCH}, "n_clicks"),
        State({"kind": "read", "of": MATCH}, "data"),
        prevent_initial_call=True,
    )
    def save(
        label: str | None, note: str | None, _clicks: int | None, read: dict[str, Any] | None
    ) -> tuple[Any, ...]:
        field, name, feature = _asked(study, ctx.triggered_id, ctx.triggered)
        if _has_other_weights(study, name, read):
            return (*_lines(field, refusal(OTHER_WEIGHTS)), *[no_update] * 4)
        shown = read_feature(study.path, name, feature)
        value = {"label": label, "note": note, "star": "" if shown["star"].value else "1"}[field] or ""
        try:
            written = write(study.path, name, feature, field, value, (read or {}).get(field))
        except UserError as error:
            return (*_lines(field, refusal(f"Not saved: {error}")), *[no_update] * 4)
        if written.entry == shown[field]:
            raise PreventUpdate
        return (
            *_lines(field, _said(field, written)),
            # Only the field that was written has been read: what others wrote in the rest is not on the page.
            {**_revisions(shown), **(read or {}), field: written.entry.revision, "saved": 1},
            written.entry.value if field == "note" and written.unread else no_update,
            STARS[written.entry.value] if field == "star" else no_update,
            _earlier(read_earlier(study.path, name, feature)),
        )

    @app.callback(
        Output({"kind": "said", "of": MATCH}, "children", allow_duplicate=True),
        Input({"kind": "sets", "of": MATCH}, "value"),
        State({"kind": "read", "of": MATCH}, "data"),
        prevent_initial_call=True,
    )
    def save_sets(names: list[str] | None, read: dict[str, Any] | None) -> Any:
        _, name, feature = _asked(study, ctx.triggered_id, ctx.triggered)
        if _has_other_weights(study, name, read):
            return refusal(OTHER_WEIGHTS)
        wanted, had = {each.strip() for each in names or []}, set(sets_of(study.path, name, feature))
        try:
            for each in sorted(wanted - had):
                change_set(study.path, each, name, add=[feature])
            for each in had - wanted:
                change_set(study.path, each, name, remove=[feature])
        except UserError as error:
            return refusal(f"Not saved: {error}")
        return "Sets saved." if wanted != had else no_update

    @app.callback(
        Output("notes-file", "data"),
        Output("notes-said", "children"),
        Input("notes-export", "n_clicks"),
        prevent_initial_call=True,
    )
    def export(clicks: int | None) -> tuple[Any, Any]:
        if not clicks:
            raise PreventUpdate
        try:
            return {"content": notes_csv(study.path), "filename": "notes.csv", "type": "text/csv"}, ""
        except UserError as error:
            return no_update, refusal(str(error))

    @app.callback(
        Output("notes-said", "children", allow_duplicate=True),
        Output("notes-import", "contents"),
        Input("notes-import", "contents"),
        prevent_initial_call=True,
    )
    def read_file(contents: str | None) -> tuple[Any, None]:
        if not contents:
            raise PreventUpdate
        try:
            content = base64.b64decode(contents.partition(",")[2], validate=True)
            imported = import_notes(study.path, content, sae_names(study))
        except (UserError, ValueError) as error:
            said = str(error) if isinstance(error, UserError) else "The file could not be read."
            return refusal(f"Nothing imported: {said}"), None
        return f"Imported: {imported_sentence(imported)}", None

    app.clientside_callback(
        ClientsideFunction("features", "refresh"),
        Output("notes-import", "className"),
        Input("notes-said", "children"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "renew"),
        Output("features-count", "title"),
        Input({"kind": "read", "of": ALL}, "data"),
        prevent_initial_call=True,
    )


def _asked(study: Study, id: Any, triggered: Any) -> tuple[Any, str, int]:
    """The kind, autoencoder and feature of a component; nothing happens for one that the study does not have."""
    if not triggered or not isinstance(id, dict):
        raise PreventUpdate
    name, _, number = str(id.get("of", "")).rpartition("/")
    is_number = number.isascii() and number.isdigit() and len(number) < 11
    if name not in sae_names(study) or not is_number:
        raise PreventUpdate
    if int(number) not in load_result(study, f"sae-{name}").indexes["feature"]:
        raise PreventUpdate
    return id["kind"], name, int(number)


def _has_other_weights(study: Study, name: str, read: dict[str, Any] | None) -> bool:
    """Whether the page shows the feature of an autoencoder that has been trained again since."""
    return read is not None and read.get("weights") != weights_of(study.path, name)


def _revisions(fields: dict[NoteField, Entry]) -> dict[str, int]:
    return {field: entry.revision for field, entry in fields.items()}


def _lines(field: NoteField, sentence: str | Component) -> tuple[Any, Any]:
    """The lines about the label and star, and about the note: what was refused stays until it is mended."""
    return (no_update, sentence) if field == "note" else (sentence, no_update)


def _said(field: NoteField, written: Written) -> str:
    saved, other = f"{field.capitalize()} saved.", written.unread
    if other is None:
        return saved
    if field == "note":
        return f"{saved} Somebody else had changed it meanwhile ({other.changed}): both are kept."
    return (
        f"{saved} It replaces “{other.value}”, which somebody else had written meanwhile ({other.changed})."
    )


def _earlier(earlier: list[tuple[NoteField, Entry]]) -> Component | None:
    if not earlier:
        return None
    lines = [html.Li(f"{field}, written {entry.changed}: {entry.value}") for field, entry in earlier]
    summary = html.Summary(f"{len(lines)} earlier {'value' if len(lines) == 1 else 'values'}")
    return html.Details([summary, html.Ul(lines, className="notes earlier")], className="earlier-notes")
