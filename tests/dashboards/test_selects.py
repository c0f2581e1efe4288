"""Selects that follow the URL, without a browser."""

import dash
import pytest
from dash import no_update

from dashboards.components import selects
from dashboards.components.selects import Choice, Selects
from dashboards.links import read_query
from tests.dashboards.test_pages import callback

SELECTS = Selects("page", ("result", "shown"), clears={"result": ("shown", "arm")})


@pytest.fixture
def app() -> dash.Dash:
    app = dash.Dash()
    SELECTS.register(
        app,
        lambda query: {
            "result": Choice("result", ["a", "b"], query.get("result", "a")),
            "shown": Choice("concept", ["mood", "tempo"], query.get("shown", "mood"), "arm" in query),
        },
    )
    return app


def test_a_choice_goes_into_the_url(app: dash.Dash) -> None:
    choose = callback(app, selects, "choose")
    search, *shown = choose("a", "tempo", "a", "mood", "?arm=x")
    assert read_query(search) == {"arm": "x", "shown": "tempo"}
    assert shown == [no_update, "tempo"], "a choice back is one, too"
    search, *_ = choose("b", "tempo", "a", "tempo", "?shown=tempo&arm=x&pair=1")
    assert read_query(search) == {"result": "b", "pair": "1"}


def test_a_select_that_a_callback_made_chooses_nothing(app: dash.Dash) -> None:
    """Its value is what it was made with, whatever the URL has become by the time that it is heard of."""
    choose = callback(app, selects, "choose")
    assert choose("a", "mood", "a", "mood", "?shown=tempo") is no_update
    assert choose("a", None, "a", "mood", "?shown=tempo") is no_update


def test_a_select_is_made_anew_only_if_it_shows_something_else(app: dash.Dash) -> None:
    show = callback(app, selects, "show_selects")
    select, is_hidden, value, offered = show("?shown=tempo&arm=x", "a", "mood", "", "")[4:]
    assert (select.id, select.value, select.label, is_hidden, value) == (
        "page-shown", "tempo", "concept", True, "tempo",
    )  # fmt: skip
    again = show("?shown=tempo", "a", "tempo", "", offered)[4:]
    assert again == (no_update, False, "tempo", offered)
    (holder,) = SELECTS.layout({"shown": Choice("concept", [], "tempo")}).children
    assert (holder.id, holder.children.value) == ("page-shown-holder", "tempo")


def test_a_select_of_long_names_has_a_row_of_its_own() -> None:
    choices = {
        "result": Choice("result", ["trial-" * 8], None),
        "shown": Choice("concept", [{"value": "x" * 99, "label": "x"}], None),
    }
    assert [holder.className for holder in SELECTS.layout(choices).children] == ["long-choice", None]
