"""Notifications in the corner of the page, and alerts about what a page cannot show."""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Output, html
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.components.text import with_code
from dashboards.results import LostResult
from workbench.studies.result_files import DamagedResult

FAULT = (
    "This is a bug in the workbench. The page may still show the previous selection. The traceback is in the terminal "
    "that runs the dashboard."
)
_log = logging.getLogger(__name__)


def notify(title: str, message: str, colour: str, stays: bool = False) -> None:
    """Show a message in the corner of the page, only once if sent repeatedly; with `stays` until it is closed."""
    shown: dict[str, Any] = {
        "id": sha256(f"{title}\n{message}".encode()).hexdigest(),
        "action": "show",
        "title": title,
        "message": with_code(message),
        "color": colour,
    }
    if stays:
        shown["autoClose"] = False
    dash.set_props("notices", {"sendNotifications": [shown]})


def report_failure(error: Exception) -> None:
    """Report a failed callback on the page: user errors as they are, anything else as a bug, with a log entry.

    Of a lost result, which all callbacks of a page miss at once, the frame tells above the page.
    """
    if isinstance(error, LostResult | DamagedResult):
        return
    if isinstance(error, UserError):
        notify("Something went wrong", str(error), "red", stays=True)
        return
    _log.error("A dashboard callback failed.", exc_info=error)
    notify("Something went wrong", FAULT, "red", stays=True)


def failed_page(error: Exception) -> Component:
    """An alert in place of a page that could not be rendered."""
    if not isinstance(error, UserError):
        _log.error("A dashboard page failed.", exc_info=error)
    sentence = str(error) if isinstance(error, UserError) else FAULT
    return dmc.Alert(with_code(sentence), title="This page cannot be shown", color="red", variant="light")


def remarks(sentences: Sequence[str], title: str, colour: str) -> Component | None:
    """An alert above a page, one line per sentence; None if there are none."""
    if not sentences:
        return None
    lines = [html.Div(with_code(sentence)) for sentence in sentences]
    return dmc.Alert(lines, title=title, color=colour, variant="light", mb="md", className="remarks")


def folded_remarks(id: str, colour: str) -> Component:
    """A line above all pages that opens a list of sentences; hidden until `folded` gives it some.

    Its parts are changed one by one, so that it stays open.
    """
    parts = [
        html.Summary(id=f"{id}-summary"),
        html.Div(id=f"{id}-sentences", className="sentences", tabIndex=0),
    ]
    return html.Details(parts, id=id, hidden=True, className=f"folded {colour}")


def folded_outputs(id: str) -> list[Output]:
    """What a callback sets with the values of `folded`."""
    return [
        Output(id, "hidden"),
        Output(f"{id}-summary", "children"),
        Output(f"{id}-sentences", "children"),
    ]


def folded(summary: str, sentences: Sequence[str]) -> list[Any]:
    """Values of `folded_outputs`: whether there are no sentences, the line that says what they are about, and them."""
    return [
        not sentences,
        summary if sentences else "",
        [html.Div(with_code(sentence)) for sentence in sentences],
    ]
