"""What is no request of the dashboard's own pages gets status 400 and a sentence, and leaves no traceback."""

import json
from typing import Any

import dash
import pytest
from flask.testing import FlaskClient

from dashboards.app import create_app
from dashboards.callback_requests import PATH
from tests.dashboards.test_guard import CALLBACK
from workbench.studies.study import Study

DOWNLOAD = '{"key":["MATCH"],"type":"download"}.data'


@pytest.fixture
def client(app: dash.Dash) -> FlaskClient:
    return app.server.test_client()


@pytest.fixture
def bare_app(bare_study: Study) -> dash.Dash:
    return create_app(bare_study.path)


@pytest.fixture
def bare_client(bare_app: dash.Dash) -> FlaskClient:
    return bare_app.server.test_client()


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
    key = {"key": "patching"}
    clicked = {
        "output": DOWNLOAD,
        "outputs": {"id": {**key, "type": "download"}, "property": "data"},
        "inputs": [
            [{"id": {**key, "type": "export", "format": "pdf"}, "property": "n_clicks", "value": None}]
        ],
        "state": [{"id": {**key, "type": "figure"}, "property": "data", "value": None}],
        "changedPropIds": [],
    }
    assert client.post(PATH, json=clicked).status_code == 200


@pytest.mark.parametrize("begin", ["..imported-notes", "..compare-other"])
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
        "changedPropIds": ["url.search"],
    }
    assert bare_client.post(PATH, json=body).status_code == 204
    assert not [record for record in caplog.records if record.exc_info]
