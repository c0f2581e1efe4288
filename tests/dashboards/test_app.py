"""The app: pages for any study, sentences for what is missing, nothing sent anywhere."""

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import dash
import pytest
from dash import dcc
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.address import Address
from dashboards.app import create_app, serve, welcome
from dashboards.context import Context
from dashboards.pages import PAGES
from dashboards.pages.page import Page
from dashboards.shell import shell
from workbench.studies.study import Study

SELECTIONS = {
    "Overview": {"clip": "3"},
    "Patching": {
        "result": "steps",
        "scorer": "clap",
        "shown": "tempo",
        "column": "steps 2–3",
        "concept": "drums",
        "arm": "tf3",
    },
    "Probes": {"part": "mlp", "quantity": "control"},
    "Features": {"site": "tf4.cross_attn", "feature": "5"},
    "Steering": {
        "result": "tempo",
        "scorer": "clap",
        "shown": "mood",
        "strength": "2",
        "arm": "vector × 1",
        "pack": "tempo",
    },
}

OF_RESULTS = [page for page in PAGES if page.name in SELECTIONS]


def components(layout: Component) -> Iterator[Component]:
    yield layout
    yield from (part for part in layout._traverse() if isinstance(part, Component))


@pytest.mark.parametrize("page", OF_RESULTS, ids=lambda page: page.name)
def test_no_graph_can_send_its_data_away(study: Study, page: Page) -> None:
    graphs = [part for part in components(page.show(Context(study), {})) if isinstance(part, dcc.Graph)]
    assert bool(graphs) == (page.name != "Overview")
    for graph in graphs:
        assert graph.config["showSendToCloud"] is False
        assert graph.config["displaylogo"] is False


@pytest.mark.parametrize("page", OF_RESULTS, ids=lambda page: page.name)
def test_pages_open_with_a_selection_a_wrong_one_and_none(study: Study, page: Page) -> None:
    for query in ({}, SELECTIONS[page.name], dict.fromkeys(SELECTIONS[page.name], "nonsense")):
        text = str(page.show(Context(study), query))
        assert page.name in text
        assert page.sentence in text


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("Patching", "workbench patch "),
        ("Probes", "workbench probe "),
        ("Features", "workbench sae train "),
        ("Steering", "workbench steer fit "),
    ],
)
def test_a_missing_result_names_its_command(bare_study: Study, name: str, command: str) -> None:
    page = next(page for page in PAGES if name == page.name)
    assert command + str(bare_study.path) in str(page.show(Context(bare_study), {}))
    overview = str(PAGES[0].show(Context(bare_study), {}))
    assert command + str(bare_study.path) in overview


def test_the_truth_switch_needs_a_card(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _holder_of_truth(study).hidden is False
    monkeypatch.setattr(Study, "truth_card", lambda self: None)
    assert _holder_of_truth(study).hidden is True


def _holder_of_truth(study: Study) -> Component:
    return next(
        part for part in components(shell(Context(study))) if getattr(part, "id", None) == "truth-holder"
    )


def test_pages_show_nothing_planted_by_themselves(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth card is not read for any page while the switch is off."""

    def refuse(_: Study) -> None:
        raise AssertionError("the truth was read")

    monkeypatch.setattr(Study, "truth_card", refuse)
    for page in OF_RESULTS:
        page.show(Context(study), SELECTIONS[page.name])


def test_the_page_loads_from_this_server_only(app: dash.Dash) -> None:
    page = app.server.test_client().get("/").text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", page)


def test_a_folder_that_is_no_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study"):
        create_app(tmp_path)


def test_a_port_in_use_is_told(study: Study) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}.*--port"):
            serve(study.path, address=Address(port=port))


def test_a_folder_name_is_text_on_the_page(study: Study, tmp_path: Path) -> None:
    """Dash puts the title into its page as it is."""
    nested = tmp_path / "a<b"
    shutil.copytree(study.path, nested, ignore=shutil.ignore_patterns("audio", "activations.zarr"))
    page = create_app(nested).server.test_client().get("/").text
    assert "<title>a&lt;b · workbench</title>" in page


def test_a_dashboard_that_others_reach_says_so(study: Study) -> None:
    assert len(welcome(study.path, Address(), 8050)) == 1
    assert "http://[::1]:8050/" in welcome(study.path, Address("::1"), 8050)[0]
    (told, warned) = welcome(study.path, Address("0.0.0.0", prefix="/a/b"), 8050)
    assert "http://0.0.0.0:8050/a/b/" in told
    assert "has no password" in warned


@pytest.mark.parametrize(
    "path",
    [
        "dash/nope.js",
        "dash/../../../etc/passwd",
        "dash/deps/polyfill@7.v3m1.js",
        "nothing/nope.js",
        "%00/nope.js",
        "dash_ag_grid/%00.js.map",
    ],
)
def test_scripts_that_there_are_not_are_not_found(
    app: dash.Dash, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = app.server.test_client().get(f"/_dash-component-suites/{path}")
    assert (answer.status_code, answer.data) == (404, b"")
    assert not [record for record in caplog.records if record.exc_info]
