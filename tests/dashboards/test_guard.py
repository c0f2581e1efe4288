"""A dashboard answers its own pages under its own names, and nobody else."""

import socket

import dash
import pytest
from flask.testing import FlaskClient

from cache.errors import UserError
from dashboards.address import Address
from dashboards.app import create_app
from dashboards.media import audio_url, spectrogram_url
from workbench.studies.study import Study

CLIP = "audio/clips/00003.flac"
ADDRESSES = ("/", "/_dash-layout", audio_url(CLIP), spectrogram_url(CLIP), "/audio/none.flac")
CALLBACK = {
    "output": "page.children",
    "outputs": {"id": "page", "property": "children"},
    "inputs": [{"id": "url", "property": "pathname", "value": "/"}],
    "state": [{"id": "url", "property": "search", "value": ""}],
    "changedPropIds": ["url.pathname"],
}


@pytest.fixture
def client(app: dash.Dash) -> FlaskClient:
    return app.server.test_client()


@pytest.fixture
def behind_proxy(study: Study) -> FlaskClient:
    """A dashboard that a proxy offers as https://hub.example."""
    return create_app(study.path, address=Address(names=("hub.example",))).server.test_client()


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:8050",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "evil@127.0.0.1",
        "10.0.0.1",
        "",
        "http://[",
        "[::1",
        "[",
        "[]:8050",
        "localhost:port",
    ],
)
def test_a_name_that_was_bound_to_this_machine_reads_nothing(client: FlaskClient, host: str) -> None:
    """DNS rebinding: the stranger's page is of the same origin, but the Host header says which."""
    for address in ADDRESSES:
        answer = client.get(address, headers={"Host": host})
        assert answer.status_code == 403
        assert answer.mimetype == "text/plain"
    answer = client.post("/_dash-update-component", json=CALLBACK, headers={"Host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost", "LOCALHOST:9000", "[::1]:8050", "[::1]"])
def test_its_own_names_on_any_port_are_answered(client: FlaskClient, host: str) -> None:
    """On any port, for tunnels such as `ssh -L 9000:localhost:8050`."""
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_a_refusal_says_what_to_do_and_is_no_page(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Host": "hub.example:443"})
    assert "--allow-host hub.example" in answer.text
    assert answer.mimetype == "text/plain"


def test_a_proxy_s_name_is_answered_when_it_was_given(behind_proxy: FlaskClient) -> None:
    for headers in (
        {"Host": "hub.example", "Origin": "https://hub.example"},
        {"Host": "127.0.0.1:8050", "Origin": "https://hub.example"},  # nginx without proxy_set_header
    ):
        assert behind_proxy.post("/_dash-update-component", json=CALLBACK, headers=headers).status_code == 200
    assert behind_proxy.get("/", headers={"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.com",
        "http://localhost:3000",
        "http://localhost.evil.com",
        "null",
        "",
        "http://127.0.0.1",
        "file://",
        "http://[",
        "http://[::1",
        "http://]",
        "//localhost:8050",
        "http://localhost:8050/",
        "http://a@localhost:8050",
    ],
)
def test_other_pages_call_nothing(client: FlaskClient, origin: str) -> None:
    headers = {"Host": "localhost:8050", "Origin": origin}
    assert client.post("/_dash-update-component", json=CALLBACK, headers=headers).status_code == 403
    assert client.get(audio_url(CLIP), headers=headers).status_code == 403
    assert client.options("/_dash-update-component", headers=headers).status_code == 403


def test_its_own_page_calls(client: FlaskClient) -> None:
    headers = {"Host": "localhost:8050", "Origin": "http://localhost:8050", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/_dash-update-component", json=CALLBACK, headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_embed_nothing_but_may_link(client: FlaskClient, site: str) -> None:
    for address in ADDRESSES:
        answer = client.get(address, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
        assert answer.status_code == 403
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client.get("/patching", headers=link).status_code == 200
    assert client.post("/_dash-update-component", json=CALLBACK, headers=link).status_code == 403
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=typed).status_code == 200


def test_every_answer_keeps_the_browser_on_this_machine(client: FlaskClient) -> None:
    for address in ADDRESSES:
        answer = client.get(address)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; script-src 'self' 'sha256-")
        assert "http" not in policy
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.split("; ")[1]
        assert policy.endswith("frame-ancestors 'none'")
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_frames_are_for_pages_of_the_same_origin_when_asked_for(study: Study) -> None:
    client = create_app(study.path, address=Address(frames=True)).server.test_client()
    answer = client.get("/")
    assert answer.headers["Content-Security-Policy"].endswith("frame-ancestors 'self'")
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_on_all_addresses_numbers_and_the_machine_s_name_are_answered() -> None:
    everywhere = Address("0.0.0.0")
    for host in ("192.168.1.5:8050", "[2001:db8::1]:8050", socket.gethostname(), "localhost:8050"):
        assert everywhere.answers_to(host)
    assert not everywhere.answers_to("evil.com")
    one = Address("192.168.1.5")
    assert one.answers_to("192.168.1.5:8050")
    assert not one.answers_to("192.168.1.6")


@pytest.mark.parametrize("name", ["https://hub.example", "hub.example:443", "hub.example/path", "", "a b"])
def test_what_is_no_host_name_is_refused(study: Study, name: str) -> None:
    with pytest.raises(UserError, match="--allow-host"):
        create_app(study.path, address=Address(names=(name,)))


@pytest.mark.parametrize("prefix", ["/a/../b/", "/a b/", '/"><script>/', "https://hub.example/x/", "/a?b/"])
def test_what_is_no_prefix_is_refused(study: Study, prefix: str) -> None:
    with pytest.raises(UserError, match="--url-prefix"):
        create_app(study.path, address=Address(prefix=prefix))


@pytest.mark.parametrize("given", ["/user/me", "user/me/", "/user/me/", "//user/me//"])
def test_a_prefix_begins_and_ends_with_one_slash(given: str) -> None:
    assert Address(prefix=given).url_prefix == "/user/me/"
