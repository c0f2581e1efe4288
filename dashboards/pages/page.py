"""What a page of the dashboard is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dash
from dash import html
from dash.development.base_component import Component

from dashboards.components.text import page_header
from dashboards.context import Context

Query = Mapping[str, str]
"""The selection in the address of a page: names and values."""


def _always(context: Context) -> bool:
    del context
    return True


@dataclass(frozen=True)
class Page:
    """A page of the dashboard: its path, its name in the navigation, a sentence that describes it, and its layout.

    `layout` makes the contents below the sentence, for the selection in the address. `choices` gives the allowed
    selections, by name. `register` adds the callbacks that keep page and address in step. `is_linked` says whether
    the navigation links to it; every page can be opened by its address.
    """

    path: str
    name: str
    sentence: str
    layout: Callable[[Context, Query], Component]
    choices: Callable[[Context, Query], dict[str, list[str]]]
    register: Callable[[dash.Dash, Context], None]
    is_linked: Callable[[Context], bool] = _always

    def show(self, context: Context, query: Query) -> Component:
        """The whole page."""
        return html.Div([page_header(self.name, self.sentence), self.layout(context, query)])
