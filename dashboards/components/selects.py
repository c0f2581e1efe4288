"""Selects that follow the URL: a choice changes the URL, and the URL changes what they show.

A `dmc.Select` whose `value` or `data` a callback sets sends its value back a moment later. That looks like a choice of
the user, and undoes what was clicked in between. So a callback here replaces a select that shows something else than
the URL; a new one sends nothing until somebody chooses.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.links import change_query, read_query

MANY = 12  # choices of a select that can be searched
LONG = 26  # characters of a choice that needs a row of its own
SHOWN, OFFERED = "data-shown", "data-offered"
"""What a select shows and offers, as attributes of the element around it; the first is its value."""


@dataclass(frozen=True)
class Choice:
    """What a select offers and shows: its label, its choices, and the selected value."""

    label: str
    data: list[Any]
    value: str | None
    is_hidden: bool = False

    @property
    def offered(self) -> str:
        """Label and choices, as text."""
        return json.dumps([self.label, self.data])

    @property
    def longest(self) -> int:
        """Characters of the longest choice."""
        return max((len(one["label"] if isinstance(one, dict) else one) for one in self.data), default=0)


Choices = Mapping[str, Choice]
"""The choices of the selects by field, in their order."""


@dataclass(frozen=True)
class Selects:
    """The selects of a page, one for each of the `fields` of its URL; `key` begins their ids.

    A choice of a field of `clears` takes the parts that it names out of the URL.
    """

    key: str
    fields: tuple[str, ...]
    clears: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts_of: Callable[[dict[str, str | None]], dict[str, str | None]] = dict
    """The changes of the URL that a choice makes, from the chosen values by field; by default these."""

    def layout(self, choices: Choices) -> Component:
        """The selects, side by side."""
        holders = [
            html.Div(
                self._select(name, choice),
                id=self._holder(name),
                hidden=choice.is_hidden,
                className="long-choice" if choice.longest > LONG else None,
                **{SHOWN: choice.value, OFFERED: choice.offered},
            )
            for name, choice in choices.items()
        ]
        return html.Div(holders, className="controls")

    def register(self, app: dash.Dash, choices_of: Callable[[Mapping[str, str]], Choices]) -> None:
        """Keep selects and URL in sync; `choices_of` gives the choices of what a URL shows, of every field."""
        values = [f"{self.key}-{name}" for name in self.fields]
        holders = [self._holder(name) for name in self.fields]

        @app.callback(
            Output("url", "search", allow_duplicate=True),
            *(Output(id, SHOWN, allow_duplicate=True) for id in holders),
            *(Input(id, "value") for id in values),
            *(State(id, SHOWN) for id in holders),
            State("url", "search"),
            prevent_initial_call=True,
        )
        def choose(*given: str | None) -> Any:
            *texts, search = given
            now, before = texts[: len(values)], texts[len(values) :]
            chosen: dict[str, str | None] = {
                name: value
                for name, value, shown in zip(self.fields, now, before, strict=True)
                if value and value != shown
            }
            for name in self.clears.keys() & chosen.keys():
                chosen = {**dict.fromkeys(self.clears[name]), name: chosen[name]}
            if not chosen:
                return no_update
            shown_now = (chosen.get(name) or no_update for name in self.fields)
            return change_query(search, **self.parts_of(chosen)), *shown_now

        @app.callback(
            *(Output(id, part) for id in holders for part in ("children", "hidden", SHOWN, OFFERED)),
            Input("url", "search"),
            *(State(id, "value") for id in values),
            *(State(id, OFFERED) for id in holders),
        )
        def show_selects(search: str | None, *given: str | None) -> tuple[Any, ...]:
            choices = choices_of(read_query(search))
            now, before = given[: len(values)], given[len(values) :]
            parts: list[Any] = []
            for name, value, offered in zip(self.fields, now, before, strict=True):
                choice = choices[name]
                is_same = (value, offered) == (choice.value, choice.offered)
                select = no_update if is_same else self._select(name, choice)
                parts += [select, choice.is_hidden, choice.value, choice.offered]
            return tuple(parts)

    def _holder(self, name: str) -> str:
        return f"{self.key}-{name}-holder"

    def _select(self, name: str, choice: Choice) -> Component:
        return dmc.Select(
            id=f"{self.key}-{name}",
            label=choice.label,
            data=choice.data,
            value=choice.value,
            allowDeselect=False,
            searchable=len(choice.data) > MANY,
            size="xs",
        )
