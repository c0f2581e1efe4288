"""A picker of concepts for pages that show many: those whose names contain a text, a few at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboards.links import change_query, read_query

TYPING_MS = 300
MOST_SUGGESTED = 50


@dataclass(frozen=True)
class ConceptPicker:
    """The concepts that a page shows, at most `most` at a time; `key` begins the ids of its components.

    The URL has them as `find` (a text in the names of all of them) and `page` (from 1); without `page`, the page of the
    selected `concept` is shown. The picker is hidden if all concepts fit.
    """

    key: str
    most: int

    def picked(self, concepts: Sequence[str], query: Mapping[str, str]) -> list[str]:
        """The concepts to show of all, in their order."""
        found = self._found(concepts, query)
        first = (self._page(found, query) - 1) * self.most
        return found[first : first + self.most]

    def choices(self, concepts: Sequence[str], query: Mapping[str, str]) -> dict[str, list[str]]:
        """The values that the picker accepts in the URL, for a page's `choices`."""
        found = self._found(concepts, query)
        text = query.get("find", "")
        pages = [str(page + 1) for page in range(self._pages(found))]
        return {"find": [text] if _containing(text, concepts) else list(concepts), "page": pages}

    def layout(self, concepts: Sequence[str], query: Mapping[str, str]) -> Component:
        """The picker; `register` keeps it in sync with the URL."""
        text, suggested, page, pages, note, is_hidden = self._state(concepts, query)
        find = dmc.Autocomplete(
            id=f"{self.key}-find",
            label="concepts",
            placeholder="all: type to find some",
            data=suggested,
            value=text,
            limit=MOST_SUGGESTED,
            clearable=True,
            clearButtonProps={"aria-label": "show all concepts"},
            debounce=TYPING_MS,
            size="xs",
            w=220,
        )
        turn = dmc.Pagination(
            id=f"{self.key}-page", value=page, total=pages, siblings=1, size="sm", withControls=False
        )
        shown = dmc.Text(note, id=f"{self.key}-shown", size="xs", c="dimmed")
        return html.Div(
            dmc.Group([find, turn, shown], gap="md", align="end"),
            id=f"{self.key}-picker",
            hidden=is_hidden,
            className="picker",
        )

    def register(self, app: dash.Dash, concepts_of: Callable[[Mapping[str, str]], list[str]]) -> None:
        """Keep the picker in sync with the URL; `concepts_of` gives all concepts of what a URL shows."""

        @app.callback(
            Output("url", "search", allow_duplicate=True),
            Input(f"{self.key}-find", "value"),
            Input(f"{self.key}-page", "value"),
            State("url", "search"),
            prevent_initial_call=True,
        )
        def pick(text: str | None, page: int | None, search: str | None) -> Any:
            query = read_query(search)
            if (text or "") != query.get("find", ""):
                return change_query(search, find=text, page=None)
            now = self._page(self._found(concepts_of(query), query), query)
            return no_update if page in (None, now) else change_query(search, page=page)

        @app.callback(
            *(Output(f"{self.key}-find", part) for part in ("value", "data")),
            *(Output(f"{self.key}-page", part) for part in ("value", "total")),
            Output(f"{self.key}-shown", "children"),
            Output(f"{self.key}-picker", "hidden"),
            Input("url", "search"),
            prevent_initial_call=True,
        )
        def show_picker(search: str | None) -> tuple[Any, ...]:
            query = read_query(search)
            return self._state(concepts_of(query), query)

    def _state(
        self, concepts: Sequence[str], query: Mapping[str, str]
    ) -> tuple[str, list[str], int, int, str, bool]:
        """The text, its suggestions, the page, the number of pages, what is shown in words, and whether all fits."""
        found = self._found(concepts, query)
        page = self._page(found, query)
        first, last = (page - 1) * self.most + 1, min(page * self.most, len(found))
        note = f"{first}–{last} of {len(found)}"
        all_fit = len(concepts) <= self.most
        return query.get("find", ""), list(concepts), page, self._pages(found), note, all_fit

    def _found(self, concepts: Sequence[str], query: Mapping[str, str]) -> list[str]:
        """The concepts that contain the text of the URL; all if none does."""
        return _containing(query.get("find", ""), concepts) or list(concepts)

    def _pages(self, found: Sequence[str]) -> int:
        return max(1, -(-len(found) // self.most))

    def _page(self, found: Sequence[str], query: Mapping[str, str]) -> int:
        """The page that a URL shows: the one it names, or the one of its concept, or the first."""
        pages = {str(page + 1): page + 1 for page in range(self._pages(found))}
        selected = query.get("concept", "")
        own = found.index(selected) // self.most + 1 if selected in found else 1
        return pages.get(query.get("page", ""), own)


def _containing(text: str, concepts: Sequence[str]) -> list[str]:
    return [concept for concept in concepts if text.casefold() in concept.casefold()]
