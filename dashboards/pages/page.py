"""The parts of a dashboard page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dash
from dash import html
from dash.development.base_component import Component

from dashboards.components.text import page_header
from dashboards.context import Context

Query = Mapping[str, str]
"""The selection in a page's URL: names and values."""
Choices = Mapping[str, list[str] | str]
"""What a page accepts in its URL, by name: the values or, where the one in the URL is none, a phrase on which are."""


def _always(context: Context) -> bool:
    del context
    return True


@dataclass(frozen=True)
class Page:
    """A page of the dashboard: its path, its name in the navigation, a sentence that describes it, and its layout.

    `layout` makes the contents below the sentence, for the selection in the URL. `choices` gives the allowed values of
    the selection, by name. `register` adds the callbacks that keep page and URL in sync. `is_linked` says whether the
    navigation links to the page; every page can be opened by its URL. `kind` is that of the results that it shows, if
    any, and `named_by` the part of the URL that names one.
    """

    path: str
    name: str
    sentence: str
    layout: Callable[[Context, Query], Component]
    choices: Callable[[Context, Query], Choices]
    register: Callable[[dash.Dash, Context], None]
    is_linked: Callable[[Context], bool] = _always
    kind: str = ""
    named_by: str = "result"

    def show(self, context: Context, query: Query) -> Component:
        """The whole page."""
        return html.Div([page_header(self.name, self.sentence), self.layout(context, query)])
