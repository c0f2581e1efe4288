"""What is no request of the dashboard's own pages gets status 400 and a sentence, and leaves no traceback."""

import json
from typing import Any

import dash
import pytest
from flask.testing import FlaskClient
from pydantic import ValidationError

from dashboards.app import create_app
from dashboards.callback_requests import PATH, _Property
from tests.dashboards.test_guard import CALLBACK
from workbench.studies.study import Study

DOWNLOAD = "export-file.data"


@pytest.fixture
def client(app: dash.Dash) -> FlaskClient:
    return app.server.test_client()


@pytest.fixture
def bare_app(bare_study: Study) -> dash.Dash:
    return create_app(bare_study.path)


@pytest.fixture
def bare_client(bare_app: dash.Dash) -> FlaskClient:
    return bare_app.server.test_client()


def export_request(data: Any, asked: Any = None) -> dict[str, Any]:
    """What the menu of the patching map's export button asks for, with the data of its figure."""
    figure = {"key": "patching", "type": "figure"}
    return {
        "output": DOWNLOAD,
        "outputs": {"id": "export-file", "property": "data"},
        "inputs": [{"id": "export-asked", "property": "data", "value": asked}],
        "state": [
            [{"id": figure, "property": "id", "value": figure}],
            [{"id": figure, "property": "data", "value": data}],
        ],
        "changedPropIds": ["export-asked.data"],
    }


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CALLBACK.items() if key != name}


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "broken": b'{"output": ',
    "binary": b"\x89\xff\0",
    "brackets": b"[" * 100_000,
    "nested": b'{"output":' * 3000 + b"1" + b"}" * 3000,
    "digits": b'{"output": ' + b"9" * 10_000 + b"}",
    **{
        name: json.dumps(body).encode()
        for name, body in {
            "a list": [],
            "a number": 1,
            "null": None,
            "empty": {},
            "no output": without("output"),
            "no inputs": without("inputs"),
            "no outputs": without("outputs"),
            "no state": without("state"),
            "unknown output": {**CALLBACK, "output": "nowhere.children"},
            "a list as output": {**CALLBACK, "output": ["page.children"]},
            "inputs of another callback": {**CALLBACK, "inputs": [{"id": "a", "property": "b"}]},
            "too many inputs": {**CALLBACK, "inputs": CALLBACK["inputs"] * 2},
            "inputs without id": {**CALLBACK, "inputs": [{"property": "pathname"}]},
            "inputs that are text": {**CALLBACK, "inputs": "url.pathname"},
            "state of numbers": {**CALLBACK, "state": [1]},
            "outputs that are a list": {**CALLBACK, "outputs": [CALLBACK["outputs"]]},
            "changes that are numbers": {**CALLBACK, "changedPropIds": [1]},
            "changes that are a mapping": {**CALLBACK, "changedPropIds": {"a": 1}},
            "an address that is a number": {
                **CALLBACK,
                "inputs": [{**one, "value": 5} for one in CALLBACK["inputs"]],
            },
            "figure options that are a list": export_request({"figure": "patching", "options": []}),
            "a figure that is a list": export_request({"figure": ["patching"], "options": {}}),
            "a figure option that is a list": export_request(
                {"figure": "patching", "options": {"other": []}}
            ),
            "half a character": {**CALLBACK, "changedPropIds": ["\ud83d"]},
            "a pattern's": {**CALLBACK, "output": DOWNLOAD},
        }.items()
    },
}


@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES)
def test_malformed_requests_are_refused(
    client: FlaskClient, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post(PATH, data=content, content_type="application/json")
    assert answer.status_code == 400
    assert answer.mimetype == "text/plain"
    assert answer.text.count("\n") == 1
    assert "not from a page of this dashboard" in answer.text
    assert not [record for record in caplog.records if record.exc_info]


def test_other_types_of_content_are_refused(client: FlaskClient) -> None:
    answer = client.post(PATH, data=json.dumps(CALLBACK), content_type="text/plain")
    assert answer.status_code == 400
    assert "JSON" in answer.text


def test_what_a_page_sends_is_answered(client: FlaskClient) -> None:
    assert client.post(PATH, json=CALLBACK).status_code == 200
    assert client.post(PATH, json=export_request(None)).status_code == 200


def test_outputs_have_no_values(client: FlaskClient) -> None:
    """Nor need the state: a table that has not asked for rows yet has neither request nor search."""
    body = {
        "output": "features-place.data",
        "outputs": {"id": "features-place", "property": "data"},
        "inputs": [
            {"id": "features-sought", "property": "data-asked", "value": "?sae=tf3.cross_attn&feature=5"}
        ],
        "state": [
            {"id": "features-grid", "property": "getRowsRequest"},
            {"id": "feature-search", "property": "value"},
        ],
        "changedPropIds": ["url.search"],
    }
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200
    assert '"feature":"5"' in answer.text


@pytest.mark.parametrize(
    "asked",
    [None, {"key": "nothing", "format": "pdf", "at": 1}, {"key": "patching", "format": "gif", "at": 1}],
)
def test_an_export_that_no_button_asked_for_leaves_no_traceback(
    client: FlaskClient, asked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post(PATH, json=export_request({"figure": "patching", "options": {}}, asked))
    assert answer.status_code in (200, 204)
    assert not [record for record in caplog.records if record.exc_info]


def test_values_of_the_wrong_form_are_refused(app: dash.Dash) -> None:
    """A value of each property that callbacks take, in any place."""
    taken: dict[str, tuple[list[Any], list[Any]]] = {
        "search": ([None, "", "?clip=3"], [5, [], {}]),
        "pathname": ([None, "/patching"], [5, [], {}]),
        "checked": ([None, True], [[], {}, "maybe"]),
        "n_clicks": ([None, 1], [[], {}, "often"]),
        "value": ([None, "tf3"], [5, 0.5, True, ["a"], {}]),
        "contents": ([None, "data:text/csv;base64,YQ=="], [5, [], {}]),
        "id": ([{"type": "lab-card", "edit": "1f"}], [None, 5, [], "lab", {"edit": {}}]),
        "n_intervals": ([None, 1], [[], {}, "often"]),
        "selectedRows": (
            [None, [], {"ids": []}, [{"id": "1-0", "pair": 1, "seed": 0, "clean": 0.5}]],
            ["a", 5, [1], [{"pair": 1}], [{"id": 5}], {"points": []}],
        ),
        "rowData": ([None, [], [{"id": "1-0"}]], [5, {}, [1], [{}]]),
        "clickData": (
            [None, {"points": [{"x": 1, "y": 0.5, "curveNumber": 2, "customdata": ["a", "b"], "z": 1}]}],
            [
                *([], 5, {}, {"points": []}, {"points": [{}]}, {"points": [1]}),
                *({"points": [{"x": x, "y": 1, "curveNumber": 0}]} for x in ("a", "1", None, [])),
                {"points": [{"x": 1, "y": 1, "curveNumber": "first"}]},
                {"points": [{"x": 1, "y": 1, "curveNumber": 0, "customdata": [1]}]},
                {"points": [{"x": 1, "y": 1, "curveNumber": 0}], "timestamp": "late"},
            ],
        ),
        "getRowsRequest": (
            [None, {"startRow": 0, "endRow": 100, "sortModel": [], "filterModel": {}, "context": {}}],
            [[], 5, {}, {"startRow": 0, "endRow": "all"}, {"startRow": 0, "endRow": 1, "filterModel": []}],
        ),
        "dashGridOptions": ([None, {}], [[], 5]),
        "data-asked": ([None, "?feature=3"], [3, []]),
        "children": ([None, "Ranked"], [3, []]),
        "data-view": ([None, "?view=map"], [3, []]),
        "data-clip": ([None, "3"], [3, []]),
        "data-of": ([None, "3"], [3, []]),
        "data-version": ([None, "a1"], [1, []]),
        "data-shown": ([None, "tempo"], [1, []]),
        "data-offered": ([None, "[]"], [1, []]),
        "data": ([None], [5, [], {}, "a"]),
    }
    properties = {
        one["property"]
        for callback in app.callback_map.values()
        if "callback" in callback  # the others run in the browser
        for one in (*callback["inputs"], *callback["state"])
    }
    assert properties == set(taken), "each has a form"
    for name, (right, wrong) in taken.items():
        for value in right:
            _Property(id="a", property=name, value=value)
        for value in wrong:
            with pytest.raises(ValidationError):
                _Property(id="a", property=name, value=value)


def test_values_of_some_components_have_their_own_form() -> None:
    figure = {"type": "figure", "key": "patching"}
    forms: list[tuple[Any, str, list[Any], list[Any]]] = [
        (
            figure,
            "data",
            [None, {"figure": "patching", "options": {"name": "blocks", "truth": True}}],
            [
                *([], 5, "patching", {}, {"figure": "patching"}, {"options": {}}, {"jobs": [], "query": ""}),
                *({"figure": "patching", "options": options} for options in ([], 5, {"other": []})),
                {"figure": ["patching"], "options": {}},
            ],
        ),
        (
            "export-asked",
            "data",
            [None, {"key": "patching", "format": "pdf", "at": 5}],
            [{}, {"key": "patching", "format": "pdf"}, {"key": "a" * 201, "format": "pdf", "at": 5}, 5],
        ),
        (
            "lab-asked",
            "data",
            [None, {"jobs": ["1f"], "query": "?seed=1"}],
            [
                *({"jobs": jobs, "query": ""} for jobs in ("a", [1], ["a" * 33], ["a"] * 17)),
                {"jobs": [], "query": "a", "path": "b"},
                {"figure": "patching", "options": {}},
            ],
        ),
        ("lab-page", "data", [None, "1f"], ["a" * 33, 5, ["1f"]]),
        (
            {"kind": "read-note", "of": "3"},
            "data",
            [None, {"revision": 2, "value": "a", "weights": "a1", "saved": 1}],
            [{"revision": "two", "value": "a"}, {"value": 5}, {"label": 0}],
        ),
        (
            {"kind": "read-sets", "of": "3"},
            "data",
            [None, {"value": ["loud"], "weights": "a1"}],
            [{"value": [5]}, {"value": {}}],
        ),
        ({"type": "lab-field", "edit": "1", "field": "x"}, "value", ["a", 0.5, 3, ["tf3.mlp"], None], [[5], {}, True]),
        ({"kind": "sets", "of": "3"}, "value", [None, ["loud", "late"]], ["loud", 5, [5]]),
        *((name, "value", [None, "", 3, 0.5], [[], {}, True]) for name in ("firing-number", "clips-page")),
        (
            "evaluation-grid",
            "selectedRows",
            [None, [], [{"id": "1", "way": "caa"}]],
            [[{"id": "1"}], [{"id": "1", "way": 5}]],
        ),
    ]  # fmt: skip
    for id, name, right, wrong in forms:
        for value in right:
            _Property(id=id, property=name, value=value)
        for value in wrong:
            with pytest.raises(ValidationError):
                _Property(id=id, property=name, value=value)


NAV: list[Any] = [{"id": {"type": "nav", "page": "/"}, "property": "style"}]
ADD: dict[str, Any] = {
    "output": "lab-edits.children",
    "outputs": {"id": "lab-edits", "property": "children"},
    "inputs": [[{"id": {"type": "lab-add", "kind": "patch"}, "property": "n_clicks", "value": 1}]],
    "state": [
        {"id": "lab-prompt", "property": "value", "value": "x"},
        [{"id": {"type": "lab-card", "edit": "1"}, "property": "id", "value": {"type": "lab-card", "edit": "1"}}],
    ],
    "changedPropIds": ['{"kind":"patch","type":"lab-add"}.n_clicks'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outputs": {"id": "page", "property": "style"}}, "outputs"),
        ({"outputs": {"id": "nowhere", "property": "children"}}, "outputs"),
        ({"outputs": {"id": {"type": "page"}, "property": "children"}}, "outputs"),
        ({"outputs": "lab-edits.children"}, "outputs"),
        ({"inputs": [[{"id": {"type": "lab-add", "kind": {}}, "property": "n_clicks"}]]}, "inputs"),
        ({"inputs": [[{"id": {"type": "nav", "kind": "patch"}, "property": "n_clicks"}]]}, "inputs"),
        ({"inputs": [{"id": "lab-add", "property": "n_clicks"}]}, "inputs"),
        ({"state": [{**ADD["state"][0], "value": 5}, ADD["state"][1]]}, "state"),
        ({"state": [{**ADD["state"][0], "id": "lab-lyrics"}, ADD["state"][1]]}, "state"),
        ({"state": [ADD["state"][0], [{**ADD["state"][1][0], "value": "1"}]]}, "state"),
        ({"changedPropIds": ['{"kind":.n_clicks']}, "changedPropIds"),
    ],
)
def test_what_does_not_belong_to_the_callback_is_refused(
    app: dash.Dash, client: FlaskClient, change: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = next(name for name in app.callback_map if name.startswith("lab-edits.children@"))
    body = {**ADD, "output": name}
    assert client.post(PATH, json=body).status_code == 200
    answer = client.post(PATH, json={**body, **change})
    assert (answer.status_code, said in answer.text, answer.text.count("\n")) == (400, True, 1)
    assert not caplog.records


def test_another_number_of_outputs_than_the_page_has_is_refused(
    app: dash.Dash, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    name = '{"page":["ALL"],"type":"nav"}.style'
    inputs, state = (
        [{**one, "value": ""} for one in app.callback_map[name][part]] for part in ("inputs", "state")
    )
    body = {"output": name, "inputs": inputs, "state": state, "changedPropIds": ["url.search"]}
    answer = client.post(PATH, json={**body, "outputs": NAV})
    assert (answer.status_code, "'outputs' do not match" in answer.text) == (400, True)
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize(
    "begin",
    ["..imported-notes", "..compare-other"],
)
def test_pages_that_a_study_does_not_have_are_left_as_they_are(
    bare_client: FlaskClient, bare_app: dash.Dash, begin: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = next(name for name in bare_app.callback_map if name.startswith(begin))
    parts = [part.rpartition(".") for part in output.strip(".").split("...")]
    body = {
        "output": output,
        "outputs": [
            {"id": json.loads(id) if id[0] == "{" else id, "property": name} for id, _, name in parts
        ],
        "inputs": [{"id": "url", "property": "search", "value": "?a=b"}],
        "state": bare_app.callback_map[output]["state"],
        "changedPropIds": ["url.search"],
    }
    assert bare_client.post(PATH, json=body).status_code == 204
    assert not [record for record in caplog.records if record.exc_info]
