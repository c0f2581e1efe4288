"""What people write about a feature: its label, note, star and sets, kept in the study as they are written."""

import base64
from threading import Lock
from typing import Any
from uuid import uuid4

import dash
import dash_mantine_components as dmc
from dash import ALL, MATCH, ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update, set_props
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from cache.errors import UserError
from dashboards.components.text import refusal
from dashboards.pages.feature_sets import set_choices
from dashboards.results import load_result, sae_names
from workbench.studies.feature_notes import (
    FIELDS,
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
KINDS = ("label", "note", "sets", "star")  # as in assets/notes.js
MOST_OWN = 10_000  # revisions, of those written last
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
    key, weights, card = f"{name}/{feature}", weights_of(study.path, name), uuid4().hex

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
    star = dmc.Chip(
        "Star", id=id("star"), checked=bool(fields["star"].value), icon="★", variant="outline", size="xs"
    )
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
            html.Div(
                [html.Div(id=id(f"said-{kind}"), role="status") for kind in (*FIELDS, "sets")],
                className="said",
            ),
            html.Div(_earlier(earlier), id=id("earlier")),
            *(
                dcc.Store(id=id(f"read-{field}"), data=_read(weights, card, entry))
                for field, entry in fields.items()
            ),
            dcc.Store(id=id("read-sets"), data={"weights": weights, "value": sets}),
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
    writing = Lock()
    own: dict[tuple[str, str], int] = {}  # the last revision of a field that a card itself wrote

    # A callback for each field: an answer about one does not replace what is said or known about another.
    @app.callback(*_parts("label"), prevent_initial_call=True)
    def save_label(label: str | None, read: dict[str, Any] | None) -> tuple[Any, ...]:
        return save("label", label, read)

    @app.callback(*_parts("note"), prevent_initial_call=True)
    def save_note(note: str | None, read: dict[str, Any] | None) -> tuple[Any, ...]:
        return save("note", note, read)

    @app.callback(*_parts("star"), prevent_initial_call=True)
    def save_star(is_starred: bool | None, read: dict[str, Any] | None) -> tuple[Any, ...]:
        return save("star", "1" if is_starred else "", read)

    def save(field: NoteField, value: str | None, read: dict[str, Any] | None) -> tuple[Any, ...]:
        """Write a field; return what is said, what the page has read, what the field shows, and earlier values."""
        _, name, feature = _asked(study, ctx.triggered_id, ctx.triggered)
        if _has_other_weights(study, name, read):
            return refusal(OTHER_WEIGHTS), *[no_update] * 3
        shown, read = read_feature(study.path, name, feature)[field], read or {}
        try:
            written = write_on(read, name, feature, field, value or "")
        except UserError as error:
            return refusal(f"Not saved: {error}"), *[no_update] * 3
        now = {**_read(weights_of(study.path, name), read.get("card", ""), written.entry), "saved": 1}
        if written.entry == shown:
            return no_update, now, no_update, no_update
        return (
            _said(field, written),
            now,
            written.entry.value if field == "note" and written.unread else no_update,
            _earlier(read_earlier(study.path, name, feature)),
        )

    def write_on(read: dict[str, Any], name: str, feature: int, field: NoteField, value: str) -> Written:
        """Write a field on a card, which may not have been told yet of the revision that it wrote itself."""
        at = (read.get("card", ""), field)
        with writing:
            written = write(study.path, name, feature, field, value, own.get(at, read.get("revision")))
            own.pop(at, None)
            if read.get("card"):
                own[at] = written.entry.revision
            if len(own) > MOST_OWN:
                del own[next(iter(own))]
        return written

    @app.callback(
        Output({"kind": "said-sets", "of": MATCH}, "children"),
        Output({"kind": "read-sets", "of": MATCH}, "data"),
        Output({"kind": "sets", "of": MATCH}, "value"),
        Input({"kind": "sets", "of": MATCH}, "value"),
        State({"kind": "read-sets", "of": MATCH}, "data"),
        prevent_initial_call=True,
    )
    def save_sets(names: list[str] | None, read: dict[str, Any] | None) -> tuple[Any, Any, Any]:
        _, name, feature = _asked(study, ctx.triggered_id, ctx.triggered)
        if _has_other_weights(study, name, read):
            return refusal(OTHER_WEIGHTS), *[no_update] * 2
        wanted, had = {each.strip() for each in names or []}, set(sets_of(study.path, name, feature))
        shown = set((read or {}).get("value", []))
        try:
            for each in sorted(wanted - had):
                change_set(study.path, each, name, add=[feature])
            for each in (had & shown) - wanted:
                change_set(study.path, each, name, remove=[feature])
        except UserError as error:
            return refusal(f"Not saved: {error}"), *[no_update] * 2
        now = sorted(had - shown | wanted)  # with those that somebody else has added meanwhile
        read = {"weights": weights_of(study.path, name), "value": now}
        if set(now) == had:
            return no_update, read, no_update if had == wanted else now
        set_props("feature-set", {"data": set_choices(study)})
        return "Sets saved.", {**read, "saved": 1}, no_update if set(now) == wanted else now

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
        Output("feature-notes", "children", allow_duplicate=True),
        Input("notes-import", "contents"),
        State({"kind": "read-label", "of": ALL}, "id"),
        prevent_initial_call=True,
    )
    def read_file(contents: str | None, cards: list[dict[str, str]]) -> tuple[Any, None, Any]:
        if not contents:
            raise PreventUpdate
        try:
            content = base64.b64decode(contents.partition(",")[2], validate=True)
            saes = {name: load_result(study, f"sae-{name}").sizes["feature"] for name in sae_names(study)}
            imported = import_notes(study.path, content, saes)
        except (UserError, ValueError) as error:
            said = str(error) if isinstance(error, UserError) else "The file could not be read."
            return refusal(f"Nothing imported: {said}"), None, no_update
        set_props("feature-set", {"data": set_choices(study)})
        return f"Imported: {imported_sentence(imported)}", None, _anew(study, cards)

    app.clientside_callback(
        ClientsideFunction("features", "refresh"),
        Output("notes-import", "className"),
        Input("notes-said", "children"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("features", "renew"),
        Output("features-count", "title"),
        *(Input({"kind": f"read-{kind}", "of": ALL}, "data") for kind in KINDS),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("notes", "left"),
        Output("notes-export", "title"),
        *(Input({"kind": kind, "of": ALL}, _value_of(kind)) for kind in KINDS),
        *(Input({"kind": f"read-{kind}", "of": ALL}, "data") for kind in KINDS),
        *(State({"kind": f"said-{kind}", "of": ALL}, "children") for kind in KINDS),
        prevent_initial_call=True,
    )


def _value_of(kind: str) -> str:
    """The property of a field's component that has what was written."""
    return "checked" if kind == "star" else "value"


def _parts(field: NoteField) -> tuple[Output | Input | State, ...]:
    """What the callback that saves a field changes and is given."""

    def id(kind: str) -> dict[str, Any]:
        return {"kind": kind, "of": MATCH}

    return (
        Output(id(f"said-{field}"), "children"),
        Output(id(f"read-{field}"), "data"),
        Output(id(field), _value_of(field)),
        Output(id("earlier"), "children", allow_duplicate=True),
        Input(id(field), _value_of(field)),
        State(id(f"read-{field}"), "data"),
    )


def _anew(study: Study, cards: list[dict[str, str]]) -> Any:
    """The fields of the feature whose card is open, with what is written now."""
    if not cards:
        return no_update
    _, name, feature = _feature_of(study, cards[0])
    return editor(study, name, feature)


def _asked(study: Study, id: Any, triggered: Any) -> tuple[Any, str, int]:
    """The kind, autoencoder and feature of a component; nothing happens for one that the study does not have."""
    if not triggered or not isinstance(id, dict):
        raise PreventUpdate
    return _feature_of(study, id)


def _feature_of(study: Study, id: dict[str, Any]) -> tuple[Any, str, int]:
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


def _read(weights: str, card: str, entry: Entry) -> dict[str, Any]:
    """What a card, which has a name of its own, keeps of a field that it shows."""
    return {"weights": weights, "card": card, "revision": entry.revision, "value": entry.value}


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
