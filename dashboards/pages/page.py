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
    """One page: its path, its name in the navigation, the sentence that says what it shows, and how it is made.

    `layout` makes what stands below the sentence, for the selection in the address. `choices` says what an address may
    select, by name. `register` adds the callbacks that keep the page in step with the address. `is_linked` says whether
    the navigation has it; every page opens by its address.
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
