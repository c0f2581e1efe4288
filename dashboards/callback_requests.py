"""Validate callback requests: anything the dashboard's own pages would not send is refused before Dash parses it."""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any

import dash
from dash.exceptions import InvalidCallbackReturnValue
from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dashboards.tables.paging import RowsRequest
from workbench.documents import parse_document

_log = logging.getLogger(__name__)
PATH = "/_dash-update-component"
ALL = '["ALL"]'  # in the name of an output that stands for all components that match a pattern
MULTIPLE = ".."  # prefix of the name of multiple outputs, which are joined by three dots


class _Row(BaseModel):
    id: str
    pair: int | None = None
    seed: int | None = None


class _WayRow(_Row):
    """A row of the table of methods."""

    way: str


class _RowIds(BaseModel):
    """Rows as callbacks select them."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = []


Position = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Point(BaseModel):
    x: Position
    y: Position
    curveNumber: Annotated[int, Field(strict=True, ge=0)]
    customdata: Annotated[list[Any], Field(min_length=2)] | None = None


class _Click(BaseModel):
    points: Annotated[list[_Point], Field(min_length=1)]
    timestamp: Annotated[int, Field(strict=True, ge=0)] = 0


class _Figure(BaseModel):
    """The data of an export button."""

    figure: str
    options: dict[str, str | int | float | bool | None]


class _Export(BaseModel):
    """What a menu of an export button asks for: the format of a figure's file, and when (ms)."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(max_length=200)]
    format: Annotated[str, Field(max_length=8)]
    at: Annotated[int, Field(strict=True, ge=0)]


class _Read(BaseModel):
    """What a page has read of a feature's label, note, star or sets, and its autoencoder's weights."""

    model_config = ConfigDict(extra="forbid", strict=True)

    revision: int = 0
    value: str | list[str] = ""
    saved: int = 0
    weights: str = ""
    card: Annotated[str, Field(max_length=32)] = ""


class _Asked(BaseModel):
    """The data of the lab's store: the page's latest jobs, and the address of what it asked for last."""

    model_config = ConfigDict(extra="forbid")

    jobs: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=16)]
    query: Annotated[str, Field(max_length=500_000)]


_Number = Annotated[float, Field(strict=True)]
# The form of each property's values; those of other properties, which no callback takes, are not checked.
_VALUES: dict[str, TypeAdapter[Any]] = {
    "pathname": TypeAdapter(str | None),
    "search": TypeAdapter(str | None),
    "data-clip": TypeAdapter(str | None),
    "data-asked": TypeAdapter(str | None),
    "data-view": TypeAdapter(str | None),
    "data-version": TypeAdapter(str | None),
    "data-of": TypeAdapter(str | None),
    "data-shown": TypeAdapter(str | None),
    "data-offered": TypeAdapter(str | None),
    "contents": TypeAdapter(str | None),
    "children": TypeAdapter(str | None),
    "checked": TypeAdapter(bool | None),
    "n_clicks": TypeAdapter(int | None),
    "value": TypeAdapter(str | None),
    "selectedRows": TypeAdapter(list[_Row] | _RowIds | None),
    "rowData": TypeAdapter(list[_Row] | None),
    "clickData": TypeAdapter(_Click | None),
    "getRowsRequest": TypeAdapter(RowsRequest | None),
    "dashGridOptions": TypeAdapter(dict[str, Any] | None),
    "id": TypeAdapter(dict[str, str]),
    "n_intervals": TypeAdapter(int | None),
    "data": TypeAdapter(None),
}
_number: TypeAdapter[Any] = TypeAdapter(str | _Number | None)
# Where it depends on the component: by its id or, for components that match a pattern, by the kind in theirs.
_OF_COMPONENTS: dict[tuple[str, str], TypeAdapter[Any]] = {
    ("figure", "data"): TypeAdapter(_Figure | None),
    ("export-asked", "data"): TypeAdapter(_Export | None),
    ("lab-asked", "data"): TypeAdapter(_Asked | None),
    ("lab-page", "data"): TypeAdapter(Annotated[str, Field(max_length=32)] | None),
    **{(f"read-{kind}", "data"): TypeAdapter(_Read | None) for kind in ("label", "note", "star", "sets")},
    ("evaluation-grid", "selectedRows"): TypeAdapter(list[_WayRow] | None),
    ("lab-field", "value"): TypeAdapter(str | _Number | list[str] | None),
    ("sets", "value"): TypeAdapter(list[str] | None),
    **{(name, "value"): _number for name in ("imported-threshold", "firing-number", "firing-second")},
}
PAGE = "-page"
"""What the ids of paginations end with, whose value is a number."""


class _Property(BaseModel):
    id: str | dict[str, Any]
    property: str
    value: Any = None

    @model_validator(mode="after")
    def _has_valid_value(self) -> "_Property":
        _check_value(self.id, self.property, self.value)
        return self


def _check_value(id: str | dict[str, Any], property: str, value: Any) -> None:
    """Raise ValidationError for a value that a component's property cannot have."""
    name = id if isinstance(id, str) else str(id.get("type", id.get("kind")))
    if property == "value" and name.endswith(PAGE):
        _number.validate_python(value)
    elif form := _OF_COMPONENTS.get((name, property), _VALUES.get(property)):
        form.validate_python(value)


Entry = _Property | list[_Property]


class _Request(BaseModel):
    """A callback request as Dash's renderer sends it."""

    output: str
    outputs: Entry | list[Entry] = []
    inputs: list[Entry]
    state: list[Entry] = []
    changedPropIds: list[str] = []


def add_check(server: Flask, app: dash.Dash) -> None:
    """Answer invalid callback requests with an explanation and status 400."""

    def refuse() -> Response | None:
        if request.path != PATH or request.method != "POST":
            return None
        fault = (
            "it is not sent as JSON"
            if not request.is_json
            else fault_of(request.get_data(), app.callback_map)
        )
        if fault is None:
            return None
        return _refusal(fault)

    def refuse_outputs(error: Exception) -> Response:
        _log.warning("A callback request was refused: it asks for other outputs than there are.")
        del error
        return _refusal("its 'outputs' do not match the output")

    server.before_request(refuse)
    server.register_error_handler(InvalidCallbackReturnValue, refuse_outputs)


def _refusal(fault: str) -> Response:
    return Response(
        f"This request is not from a page of this dashboard: {fault}.\n", 400, mimetype="text/plain"
    )


def fault_of(content: bytes, callbacks: dict[str, Any]) -> str | None:
    """Why a request body is not valid for these callbacks (Dash's `callback_map`); None if it is valid."""
    try:
        document = parse_document(content)
        json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate is not valid text
        body = _Request.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"][:2])
        return f"its '{where[:40]}' is missing or has the wrong form"
    except UnicodeEncodeError:
        return "its content has an incomplete character"
    except ValueError:
        return "its content is not a JSON object"
    if "callback" not in callbacks.get(body.output, {}):  # those of scripts have none
        return "it asks for an unknown output"
    callback = callbacks[body.output]
    for name, given in (("inputs", body.inputs), ("state", body.state)):
        asked = [(one["id"], one["property"]) for one in callback[name]]
        if not _are_of(given, asked):
            return f"its '{name}' do not match the output"
    if not all(map(_is_reference, body.changedPropIds)):
        return "its 'changedPropIds' are not those of components"
    is_multiple = body.output.startswith(MULTIPLE)
    parts = (
        body.output.removeprefix(MULTIPLE).removesuffix(MULTIPLE).split("...")
        if is_multiple
        else [body.output]
    )
    outputs = body.outputs if is_multiple else [body.outputs]
    named = [(id, name) for id, _, name in (part.rpartition(".") for part in parts)]
    is_whole = isinstance(outputs, list) and _are_of(outputs, named)
    return None if is_whole else "its 'outputs' do not match the output"


def _are_of(entries: Sequence[Any], asked: Sequence[tuple[str, str]]) -> bool:
    """Whether entries refer to these components' properties, one by one."""
    return len(entries) == len(asked) and all(
        _is_of(entry, id, name) for entry, (id, name) in zip(entries, asked, strict=True)
    )


def _is_of(entry: Entry, id: str, name: str) -> bool:
    """Whether an entry refers to a property of a component or, if its id stands for several, is a list of such."""
    if isinstance(entry, list) != (ALL in id):
        return False
    pattern = json.loads(id) if id.startswith("{") else id
    return all(
        _bare(one.property) == _bare(name) and _fits(one.id, pattern)
        for one in (entry if isinstance(entry, list) else [entry])
    )


def _bare(name: str) -> str:
    """A property's name without the mark of outputs that several callbacks have."""
    return name.partition("@")[0]


def _fits(id: str | dict[str, Any], pattern: str | dict[str, Any]) -> bool:
    """Whether a component's id matches a pattern, whose lists stand for any value."""
    if isinstance(id, str) or isinstance(pattern, str):
        return id == pattern
    return id.keys() == pattern.keys() and all(
        isinstance(id[key], str | int | float) if isinstance(value, list) else id[key] == value
        for key, value in pattern.items()
    )


def _is_reference(changed: str) -> bool:
    """Whether a text may be the id and property of a component."""
    try:
        return not changed.startswith("{") or isinstance(json.loads(changed.rpartition(".")[0]), dict)
    except ValueError:
        return False
