"""The page of a listening study: what it asks, stores, refuses, and does not tell."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from cache.errors import UserError
from dashboards.address import Address
from dashboards.listening import app
from dashboards.listening.app import create_server, serve
from dashboards.listening.links import write_links
from tests.workbench.listening.small import NOISES, make_small, write_table
from workbench.listening.answers import study_id
from workbench.listening.config import ListeningConfig
from workbench.listening.folder import read_config
from workbench.listening.store import AnswerStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    make_small(write_table(folder, items=2), folder / "study", items=2, title="Tones & <noise>", checks=1)
    return folder / "study"


@pytest.fixture
def folder(made: Path) -> Iterator[Path]:
    """A study that nobody has answered."""
    yield made
    for file in (*made.glob("answers*"), *made.glob("links*")):
        file.unlink()


@pytest.fixture
def config(folder: Path) -> ListeningConfig:
    return read_config(folder)


@pytest.fixture
def client(folder: Path) -> FlaskClient:
    return create_server(folder, Address(), is_open=True).test_client()


def begin(client: FlaskClient) -> str:
    """Start as a listener; return the address of the listener's page."""
    return "/" + client.post("/begin").get_json()["address"]


def answer(client: FlaskClient, page: str, shown: dict[str, Any], place: int = 0) -> Any:
    """Answer what is shown, with the option or number `place` everywhere."""
    form = shown["form"]
    given = {
        "step": shown["step"],
        "answers": [place] * len(form["fields"]),
        "heard": list(range(len(form["clips"]))),
    }
    return client.post(f"{page}answers", json=given)


def stored(folder: Path) -> list[tuple[int, int, tuple[int, ...]]]:
    store = AnswerStore(folder, study_id(read_config(folder)))
    return [(each.listener, each.step, each.answers) for each in store.answers()]


def test_a_listener_answers_everything_and_comes_back_where_it_stopped(
    client: FlaskClient, folder: Path
) -> None:
    page = begin(client)
    shown = client.get(f"{page}step").get_json()
    count = 0
    while shown["form"]["button"]:
        assert shown["step"] == count
        # A browser that was killed shows the same page again, from another process.
        other = create_server(folder, Address(), is_open=True).test_client() if count == 3 else client
        assert other.get(f"{page}step").get_json() == shown
        shown = answer(other, page, shown).get_json()
        count += 1
        assert len(stored(folder)) == count
    assert count == shown["of"] == 2 + 6 + 1 + 6 + 1
    assert answer(client, page, shown).status_code == 400  # nothing is left to answer


def test_an_answer_that_is_sent_twice_counts_once(client: FlaskClient, folder: Path) -> None:
    page = begin(client)
    shown = client.get(f"{page}step").get_json()
    first = answer(client, page, shown).get_json()
    assert answer(client, page, shown).get_json() == first
    volume = answer(client, page, first).get_json()
    assert answer(client, page, volume, 1).status_code == 200
    assert answer(client, page, volume, 2).status_code == 200  # the first answer stays
    assert stored(folder) == [(0, 0, ()), (0, 1, ()), (0, 2, (1,))]


def test_two_listeners_do_not_see_each_other(client: FlaskClient, folder: Path) -> None:
    pages = [begin(client), begin(client)]
    shown = [client.get(f"{page}step").get_json() for page in pages]
    for _ in range(10):
        for place, page in enumerate(pages):
            shown[place] = answer(client, page, shown[place]).get_json()
    assert [each["step"] for each in shown] == [10, 10]
    assert shown[0]["form"] != shown[1]["form"]  # another order
    assert [row[0] for row in stored(folder)] == [0] * 10 + [1] * 10


def test_nothing_tells_the_condition(client: FlaskClient, config: ListeningConfig) -> None:
    page = begin(client)
    shown = client.get(f"{page}step").get_json()
    seen: list[Any] = []
    while shown["form"]["button"]:
        seen.append(shown)
        shown = answer(client, page, shown).get_json()
    tokens = {clip["token"] for each in seen for clip in each["form"]["clips"]}
    assert tokens <= set(config.by_token)
    headers = [client.get(f"{page}audio/{token}.wav").headers for token in sorted(tokens)]
    told = json.dumps(seen) + client.get(page).text + "".join(str(each) for each in headers)
    assert not any(word in told for word in (*NOISES, "tune 0", "check 0", "expected", "condition"))
    assert not any(
        {"ETag", "Last-Modified", "Content-Disposition", "Set-Cookie"} & set(each.keys()) for each in headers
    )


def test_audio_comes_in_ranges_and_to_listeners_only(
    client: FlaskClient, folder: Path, config: ListeningConfig
) -> None:
    page, token = begin(client), config.stimuli[0].token
    whole = client.get(f"{page}audio/{token}.wav")
    content = (folder / "audio" / f"{token}.wav").read_bytes()
    assert (whole.data, whole.mimetype) == (content, "audio/wav")
    part = client.get(f"{page}audio/{token}.wav", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, content[10:20])
    for address in (
        f"{page}audio/{'0' * 20}.wav",
        f"{page}audio/..%2Fstudy.json.wav",
        f"/listener/stranger/audio/{token}.wav",
        "/listener/stranger/step",
        "/study.json",
    ):
        assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"step": 2, "answers": [3], "heard": [0]}',  # no such option
        b'{"step": 2, "answers": [-1], "heard": [0]}',
        b'{"step": 2, "answers": [true], "heard": [0]}',
        b'{"step": 2, "answers": [0.0], "heard": [0]}',
        b'{"step": 2, "answers": ["0"], "heard": [0]}',
        b'{"step": 2, "answers": [], "heard": [0]}',
        b'{"step": 2, "answers": [0, 0], "heard": [0]}',
        b'{"step": 2, "answers": [0], "heard": []}',  # not listened
        b'{"step": 2, "answers": [0], "heard": [0], "more": 1}',
        b'{"step": 1e99, "answers": [0], "heard": [0]}',
        b'{"step": 2, "answers": [' + b"[" * 5000 + b"]}",
        b'{"step": 2, "answers": [0], "heard": [0], "x": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_hostile_answers_are_refused(client: FlaskClient, folder: Path, body: bytes) -> None:
    page = begin(client)
    shown = client.get(f"{page}step").get_json()
    for _ in range(2):
        shown = answer(client, page, shown).get_json()
    sent = client.post(f"{page}answers", data=body, content_type="application/json")
    assert sent.status_code in (400, 413)
    assert len(stored(folder)) == 2


def test_pages_that_come_later_cannot_be_answered_now(client: FlaskClient, folder: Path) -> None:
    page = begin(client)
    sent = client.post(f"{page}answers", json={"step": 5, "answers": [0], "heard": [0]})
    assert sent.status_code == 409
    assert client.post(f"{page}answers", data="{}", content_type="text/plain").status_code == 400
    assert stored(folder) == []


def test_other_sites_can_neither_read_nor_answer(client: FlaskClient) -> None:
    page = begin(client)
    for headers in ({"Host": "evil.com"}, {"Origin": "http://evil.com"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.get(f"{page}step", headers=headers).status_code == 403
        assert client.post("/begin", headers=headers).status_code == 403
    answered = client.get("/")
    policy = answered.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "style-src 'self';" in policy and "unsafe" not in policy
    assert answered.headers["Cache-Control"] == "no-store"
    assert "<title>Tones &amp; &lt;noise&gt;</title>" in answered.text


def test_with_links_nobody_starts_without_one(folder: Path, config: ListeningConfig) -> None:
    client = create_server(folder, Address(), is_open=False).test_client()
    assert client.get("/").status_code == client.post("/begin").status_code == 404
    store = AnswerStore(folder, study_id(config))
    file = write_links(folder, config, store, 3, "http://here/")
    lines = file.read_text().splitlines()
    assert lines[0] == "listener,link,finished" and len(lines) == 4
    assert file.stat().st_mode & 0o077 == 0
    for line in lines[1:]:
        link, finished = line.partition("http://here")[2].split(",")
        assert client.get(link).status_code == 200 and finished == "no"
    for place in range(len(store.listeners()[1].steps) - 1):
        store.save(1, place, [])
    lines[2] = lines[2].removesuffix("no") + "yes"
    assert (
        write_links(folder, config, store, 2, "http://here/").read_text().splitlines() == lines
    )  # they stay


@pytest.mark.parametrize("address", [Address(host="0.0.0.0"), Address(names=("lab.example",))])
def test_others_can_reach_it_only_with_links(folder: Path, address: Address) -> None:
    with pytest.raises(UserError, match="--listeners"):
        serve(folder, address)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address(), "http://127.0.0.1:8060/"),
        (Address(host="::1"), "http://[::1]:8060/"),
        (Address(names=("lab.example",), prefix="/listen"), "https://lab.example/listen/"),
    ],
)
def test_links_lead_to_the_server_or_its_proxy(address: Address, url: str) -> None:
    assert app._url(address, 8060) == url


def test_the_log_has_nothing_of_listeners(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page = begin(client)

    def fail(*given: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(app, "form_of", fail)
    with caplog.at_level(logging.DEBUG):
        assert client.get(f"{page}step").status_code == 500
    token = re.search(r"listener/([^/]+)/", page)
    assert token and "broken" in caplog.text and token[1] not in caplog.text


def test_a_full_disk_is_told_and_the_page_can_try_again(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = begin(client)
    shown = client.get(f"{page}step").get_json()

    def full(*given: object) -> None:
        raise UserError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(AnswerStore, "save", full)
        assert answer(client, page, shown).status_code == 503
    assert answer(client, page, shown).get_json()["step"] == 1
