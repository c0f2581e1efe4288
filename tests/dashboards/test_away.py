"""A study whose folder is away: open pages are told, and wait for it; and how they say a server is started again."""

import html
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

from dashboards.address import Address
from dashboards.app import Dashboard, create_app, open_context
from dashboards.away import add_away
from dashboards.callback_requests import PATH
from tests.dashboards.test_guard import CALLBACK
from tests.e2e.cli import Workbench, workbench
from workbench.studies.study import Study

__all__ = ["workbench"]

EVIL = {"Host": "evil.example"}


@pytest.fixture
def moved(bare_study: Study, tmp_path: Path) -> Path:
    """A study that a test may move."""
    return shutil.copytree(bare_study.path, tmp_path / "study")


def test_pages_of_a_study_that_is_away_are_told_and_wait(moved: Path) -> None:
    """Its folder is gone, or empty, as that of a disk that is not mounted."""
    dashboard = Dashboard(open_context(moved), Address())
    client, first = Client(dashboard), dashboard.app
    before = client.get("/_alive").headers["Study-Version"]
    away = moved.rename(moved.with_name("away"))
    for _ in range(2):
        for answer in (
            *(client.get(path) for path in ("/", "/_alive", "/_dash-layout", "/audio/clips/00000.flac")),
            client.post(PATH, json=CALLBACK),
        ):
            assert (answer.status_code, answer.mimetype) == (503, "text/plain")
            assert answer.text == (
                f"The study {moved} is not there: its folder was moved or removed, or its disk is not mounted.\n"
            )
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert client.get("/assets/connection.js").status_code == 200
        for refused in (client.get("/", headers=EVIL), client.post(PATH, json=CALLBACK, headers=EVIL)):
            assert refused.status_code == 403
            assert str(moved) not in refused.text
        moved.mkdir(exist_ok=True)
    moved.rmdir()
    away.rename(moved)
    assert client.get("/_alive").headers["Study-Version"] == before
    assert client.post(PATH, json=CALLBACK).status_code == 200
    assert dashboard.app is first


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_a_study_goes_away_from_meanwhile_is_not_answered(method: str) -> None:
    """A callback that could not read it, and its version."""
    server, faults = Flask("test"), [""]

    def answer() -> str:
        faults[0] = "There is no study here."
        return "Something went wrong"

    server.add_url_rule("/", view_func=answer, methods=[method])
    add_away(server, lambda: faults[0])
    answered = server.test_client().open("/", method=method)
    assert (answered.status_code, answered.text) == (503, "There is no study here.\n")


def test_a_page_has_what_it_says_of_a_stopped_server(moved: Path) -> None:
    assert 'data-again="Restart it with “workbench dashboard”."' in page_of(moved, Address())
    odd = "Restart it with “workbench dashboard '<a> \"&\" {%css%}'”."
    page = page_of(moved, Address(again=odd))
    found = page.partition('data-again="')[2].partition('">')[0]
    assert html.unescape(found) == odd
    assert not set(found) & set("<>{")


def page_of(study: Path, address: Address) -> str:
    return create_app(study, address).server.test_client().get("/").text


def test_pages_name_the_command_that_serves_them(
    moved: Path, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[Address] = []

    def keep(application: Any, path: Path, address: Address, *rest: Any) -> None:
        del application, path, rest
        addresses.append(address)

    monkeypatch.setattr("dashboards.app.run", keep)
    assert workbench("dashboard", moved, "--port", "8051").code == 0
    assert workbench("dashboard", moved.parent).code == 0
    assert workbench("lab", "organism-shared", "--out", moved.parent / "my lab").code == 0
    assert workbench("lab", "organism-shared", "--port", "8052").code == 0
    assert [address.again for address in addresses] == [
        f"Restart it with “workbench dashboard {moved} --port 8051”.",
        f"Restart it with “workbench dashboard {moved.parent}”.",
        f"Restart it with “workbench lab organism-shared --out '{moved.parent}/my lab'”.",
        "If the lab has ended, its clips are gone (--out keeps them): start a new one with “workbench lab "
        "organism-shared --port 8052”.",
    ]
