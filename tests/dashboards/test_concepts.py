"""The picker of concepts: which of many are shown, and what the URL keeps."""

import dash
from dash import no_update

from dashboards.components import concepts
from dashboards.components.concepts import ConceptPicker
from dashboards.links import read_query
from dashboards.pages import overview, probes
from tests.dashboards.test_pages import callback

NAMES = [f"concept {number}" for number in range(25)]
PICKER = ConceptPicker("maps", most=10)


def test_a_page_of_concepts_is_shown() -> None:
    assert PICKER.picked(NAMES, {}) == NAMES[:10]
    assert PICKER.picked(NAMES, {"page": "3"}) == NAMES[20:]
    assert PICKER.picked(NAMES, {"page": "4"}) == PICKER.picked(NAMES, {"page": "x"}) == NAMES[:10]
    assert PICKER.picked(NAMES, {"concept": "concept 12"}) == NAMES[10:20], "the selected one is shown"
    assert PICKER.picked(NAMES, {"concept": "concept 12", "page": "1"}) == NAMES[:10]
    assert PICKER.picked(NAMES, {"find": "T 2"}) == ["concept 2", *NAMES[20:]]
    assert PICKER.picked(NAMES, {"find": "nonsense"}) == NAMES[:10]


def test_the_url_says_what_cannot_be_found() -> None:
    assert PICKER.choices(NAMES, {"find": "t 2"}) == {"find": ["t 2"], "page": ["1"]}
    assert PICKER.choices(NAMES, {"find": "nonsense"}) == {"find": NAMES, "page": ["1", "2", "3"]}


def test_few_concepts_need_no_picker() -> None:
    assert PICKER.layout(NAMES[:10], {}).hidden is True
    assert PICKER.layout(NAMES[:11], {}).hidden is False


def test_what_is_picked_goes_into_the_url() -> None:
    app = dash.Dash()
    PICKER.register(app, lambda query: NAMES)
    pick, show = (callback(app, concepts, name) for name in ("pick", "show_picker"))
    assert read_query(pick("", 2, "?clip=1")) == {"clip": "1", "page": "2"}
    assert read_query(pick("t 2", 2, "?page=2")) == {"find": "t 2"}
    assert read_query(pick("", 1, "?find=t+2&page=1")) == {}
    for same in ("", "?page=1", "?page=9"):
        assert pick("", 1, same) is no_update
    assert show("?find=t+2")[4:] == ("1–6 of 6", False)


def test_pages_show_the_picked_concepts(app: dash.Dash) -> None:
    table = callback(app, overview, "show_labels")("DRU", 1)
    assert [column["headerName"] for column in table] == ["clip", "prompt", "seed", "drums"]
    figure = callback(app, probes, "draw")("?find=dru")[0]
    assert [note.text.split("<")[1] for note in figure.layout.annotations] == ["b>drums"]
    click = {"points": [{"x": 0.5, "y": 3.5, "curveNumber": 0}]}
    assert read_query(callback(app, probes, "select_probe")(click, "?find=dru"))["concept"] == "drums"
