"""The HTTP server: many clients are answered, idle and slow ones closed, a prefix is taken off."""

import gzip
import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import dash
import pytest

from dashboards.address import Address
from dashboards.app import create_app
from dashboards.server import (
    CONNECTIONS,
    LARGEST_REQUEST,
    STOP_SECONDS,
    TIMEOUT_SECONDS,
    Server,
    make_server,
    open_socket,
)
from tests.dashboards.served import running, served
from workbench.studies.study import Study

CLIENTS = 200
WAIT_SECONDS = 60


def test_many_clients_at_once_are_all_answered(app: dash.Dash) -> None:
    with running(app) as server, ThreadPoolExecutor(CLIENTS) as pool:
        place = ("127.0.0.1", server.effective_port)
        idle = [socket.create_connection(place) for _ in range(CLIENTS)]
        answers = list(pool.map(lambda _: _get(server, "/_dash-layout"), range(CLIENTS)))
        for one in idle:
            one.close()
    assert answers == [200] * CLIENTS


def _get(server: Server, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=WAIT_SECONDS)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def _connect(server: Server, sent: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", server.effective_port), timeout=WAIT_SECONDS)
    one.sendall(sent)
    return one


def test_idle_and_slow_connections_are_closed(app: dash.Dash) -> None:
    """One that says nothing, and one whose request never ends although bytes keep coming."""
    with running(app) as server:
        idle, slow = _connect(server, b""), _connect(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        busy = _connect(server, b"GET /_dash-layout HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert busy.recv(12) == b"HTTP/1.1 200"
        channels = {channel.addr[1]: channel for channel in list(server.active_channels.values())}
        late = time.time() + TIMEOUT_SECONDS + 1
        for one in (slow, busy):
            channels[one.getsockname()[1]].last_activity = late  # both were active just now
        server.maintenance(late)
        closing = {
            name: channels[one.getsockname()[1]].will_close
            for name, one in (("idle", idle), ("slow", slow), ("busy", busy))
        }
        assert closing == {"idle": True, "slow": True, "busy": False}
        assert (idle.recv(1), slow.recv(1)) == (b"", b"")
        for one in (idle, slow, busy):
            one.close()


def test_ctrl_c_waits_a_moment_only_for_answers_under_way(
    app: dash.Dash, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(**options: object) -> None:
        raise KeyboardInterrupt

    waited: list[float] = []
    with open_socket("127.0.0.1", 0) as listening:
        server = make_server(app.server, listening, Address())
        shutdown = server.task_dispatcher.shutdown
        monkeypatch.setattr(server.asyncore, "loop", interrupt)
        monkeypatch.setattr(server.task_dispatcher, "shutdown", lambda timeout=5: waited.append(timeout))
        server.run()
        server.close()
        shutdown()
    assert waited == [STOP_SECONDS]


def test_the_limits_are_set(app: dash.Dash) -> None:
    with running(app) as server:
        assert server.adj.connection_limit == CONNECTIONS
        assert server.adj.channel_timeout == TIMEOUT_SECONDS
        body = _connect(
            server,
            b"POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\n"
            + f"Content-Length: {LARGEST_REQUEST + 1}\r\n\r\n".encode(),
        )
        assert body.recv(12) == b"HTTP/1.1 413"
        body.close()


def test_a_page_is_found_with_the_prefix_and_without_it(study: Study) -> None:
    """Some proxies take the prefix off, some leave it."""
    address = Address(prefix="/user/m%40x/proxy/8050")
    with served(create_app(study.path, address=address), address) as url:
        for path in ("/", "/user/m%40x/proxy/8050/", "/user/m%40x/proxy/8050"):
            assert b"/user/m%40x/proxy/8050/assets/" in urlopen(url + path).read()
        for path in ("/audio/clips/00000.flac", "/user/m%40x/proxy/8050/audio/clips/00000.flac"):
            assert urlopen(url + path).read(4) == b"fLaC"


def test_text_is_compressed_and_sound_is_not(app: dash.Dash) -> None:
    client, headers = app.server.test_client(), {"Accept-Encoding": "gzip"}
    page = client.get("/_dash-layout", headers=headers)
    assert page.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(page.data)) == client.get("/_dash-layout").json
    sound = client.get("/audio/clips/00000.flac", headers={**headers, "Range": "bytes=0-3"})
    assert (sound.status_code, sound.data) == (206, b"fLaC")
    assert "Content-Encoding" not in sound.headers
