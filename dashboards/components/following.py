"""Choices and rows that follow the study's files while a page is open."""

from collections.abc import Callable
from typing import Any

import dash
from dash import Input, Output


def follow_study(app: dash.Dash, id: str, values: Callable[[], list[Any]], part: str = "data") -> None:
    """Show the present `values` in a selector, or another `part` of a component, when a file of the study changes."""

    @app.callback(Output(id, part), Input("content", "data-version"), prevent_initial_call=True)
    def show_present(version: str | None) -> list[Any]:
        del version  # only says that something has changed
        return values()
