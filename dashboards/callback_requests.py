"""Validate callback requests: anything the dashboard's own pages would not send is refused before Dash parses it."""

import json
from typing import Annotated, Any

import dash
from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dashboards.tables.paging import RowsRequest
from workbench.documents import parse_document

PATH = "/_dash-update-component"
ALL = '["ALL"]'  # in the name of an output that stands for all components that match a pattern
MULTIPLE = ".."  # prefix of the name of multiple outputs, which are joined by three dots


class _Row(BaseModel):
    id: str
    pair: int | None = None
    seed: int | None = None


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


class _Read(BaseModel):
    """The revisions of a feature's label, note and star that a page shows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: int
    note: int
    star: int
    saved: int = 0


class _Asked(BaseModel):
    """The data of the lab's store: the page's latest jobs, and the address of what it asked for last."""

    model_config = ConfigDict(extra="forbid")

    jobs: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=16)]
    query: Annotated[str, Field(max_length=500_000)]


# The form of each property's values; those of other properties, which no callback takes, are not checked.
_VALUES: dict[str, TypeAdapter[Any]] = {
    "pathname": TypeAdapter(str | None),
    "search": TypeAdapter(str | None),
    "data-clip": TypeAdapter(str | None),
    "data-asked": TypeAdapter(str | None),
    "data-version": TypeAdapter(str | None),
    "data-shown": TypeAdapter(str | None),
    "data-offered": TypeAdapter(str | None),
    "contents": TypeAdapter(str | None),
    "checked": TypeAdapter(bool | None),
    "n_clicks": TypeAdapter(int | None),
    "value": TypeAdapter(str | int | float | list[str] | None),
    "selectedRows": TypeAdapter(list[_Row] | _RowIds | None),
    "rowData": TypeAdapter(list[_Row] | None),
    "clickData": TypeAdapter(_Click | None),
    "getRowsRequest": TypeAdapter(RowsRequest | None),
    "dashGridOptions": TypeAdapter(dict[str, Any] | None),
    "id": TypeAdapter(str | dict[str, str]),
    "n_intervals": TypeAdapter(int | None),
    "data": TypeAdapter(_Figure | _Asked | _Read | None),
}


class _Property(BaseModel):
    id: str | dict[str, Any]
    property: str
    value: Any = None

    @model_validator(mode="after")
    def _has_valid_value(self) -> "_Property":
        if self.property in _VALUES:
            _VALUES[self.property].validate_python(self.value)
        return self


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
        return Response(
            f"This request is not from a page of this dashboard: {fault}.\n", 400, mimetype="text/plain"
        )

    server.before_request(refuse)


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
        asked = [one["property"] for one in callback[name]]
        if len(given) != len(asked) or not all(map(_is_of, given, asked)):
            return f"its '{name}' do not match the output"
    parts = body.output.split("...") if body.output.startswith(MULTIPLE) else None
    is_whole = (
        isinstance(body.outputs, list) and len(body.outputs) == len(parts)
        if parts
        else isinstance(body.outputs, list if ALL in body.output else _Property)
    )
    return None if is_whole else "its 'outputs' do not match the output"


def _is_of(entry: Entry, name: str) -> bool:
    """Whether an entry refers to this property, of one component or of all that match a pattern."""
    return all(one.property == name for one in (entry if isinstance(entry, list) else [entry]))
