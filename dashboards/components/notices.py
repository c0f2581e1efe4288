"""Notices at the corner of the page, and what a page says of what it cannot show."""

import logging
from collections.abc import Sequence
from hashlib import sha256

import dash
import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from cache.errors import UserError

FAULT = (
    "This is a fault of the program, not of yours; what is on the page may be of the selection before. The terminal in "
    "which `workbench dashboard` runs has the traceback."
)
_log = logging.getLogger(__name__)


def notify(title: str, message: str, colour: str, stays: bool = False) -> None:
    """Show a message at the corner of the page; with `stays` until it is closed, and once however often it is sent."""
    shown: dict[str, str | bool] = {
        "id": sha256(f"{title}\n{message}".encode()).hexdigest(),
        "action": "show",
        "title": title,
        "message": message,
        "color": colour,
    }
    if stays:
        shown["autoClose"] = False
    dash.set_props("notices", {"sendNotifications": [shown]})


def report_failure(error: Exception) -> None:
    """Say on the page that a callback failed: what a person can act on as it is, anything else with its log."""
    if isinstance(error, UserError):
        notify("Something went wrong", str(error), "red", stays=True)
        return
    _log.error("A callback of the dashboard failed.", exc_info=error)
    notify("Something went wrong", FAULT, "red", stays=True)


def failed_page(error: Exception) -> Component:
    """What stands in the place of a page that could not be made."""
    if not isinstance(error, UserError):
        _log.error("A page of the dashboard failed.", exc_info=error)
    sentence = str(error) if isinstance(error, UserError) else FAULT
    return dmc.Alert(sentence, title="This page cannot be shown", color="red", variant="light")


def remarks(sentences: Sequence[str], title: str, colour: str) -> Component | None:
    """A box of sentences above a page; None when there are none."""
    if not sentences:
        return None
    lines = [html.Div(sentence) for sentence in sentences]
    return dmc.Alert(lines, title=title, color=colour, variant="light", mb="md", className="remarks")
