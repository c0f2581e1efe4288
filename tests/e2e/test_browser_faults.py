"""The dashboard in a real browser below a proxy's prefix, with damaged files, and while its server is stopped."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import dash
import pytest
from playwright.sync_api import Dialog, FilePayload, Page, Route, expect

from dashboards.address import LOCAL, Address
from dashboards.app import Dashboard, create_app, make_app, open_context
from dashboards.context import Context
from dashboards.jobs import Jobs
from dashboards.server import make_server, open_socket
from dashboards.studies_app import StudiesDashboard
from tests.dashboards.served import served
from tests.dashboards.synthetic_steering import PACK
from tests.dashboards.synthetic_study import make_study
from tests.dashboards.test_lab_page import Instant
from workbench.studies.feature_notes import read_all, read_set
from workbench.studies.study import Study

SAE = "tf4.cross_attn"
STEERED = quote(json.dumps([{"kind": "steer", "pack": PACK, "strength": 1.6}]))
PREFIX = "/user/me/proxy/8050/"
PROBES = "() => JSON.stringify(document.querySelector('#probes-graph .js-plotly-plot')._fullData[0].z)"
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with a damaged result and a damaged recording."""
    study = make_study(tmp_path_factory.mktemp("faults"))
    (study.path / "results" / "patching-steps.nc").write_bytes(b"nonsense")
    study.audio_path(2).write_bytes(b"fLaC nonsense")
    return study


@contextmanager
def proxy(upstream: str, strips: bool) -> Iterator[str]:
    """A reverse proxy that offers `upstream` below `PREFIX`, and nothing else, and passes the browser's Host on."""
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            if not self.path.startswith(PREFIX):
                self.send_error(404)
                return
            path = self.path.removeprefix(PREFIX[:-1]) if strips else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(target)
            connection.request(self.command, path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("Transfer-Encoding", "Connection", "Content-Length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_POST = pass_on

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("strips", [True, False])
def test_everything_is_found_below_a_prefix(page: Page, study: Study, strips: bool) -> None:
    address = Address(prefix=PREFIX)
    outside: list[str] = []
    faults: list[str] = []
    with served(create_app(study.path, address=address), address) as upstream, proxy(upstream, strips) as url:
        page.on(
            "request",
            lambda one: outside.append(one.url) if not one.url.startswith((url, "data:", "blob:")) else None,
        )
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{url}?clip=1")
        audio = page.locator("#clip-player audio").element_handle()
        page.wait_for_function("audio => audio.readyState >= 1 && audio.duration > 1", arg=audio)
        picture = page.locator("#clip-player img.mel").element_handle()
        page.wait_for_function("image => image.complete && image.naturalWidth > 50", arg=picture)
        page.get_by_role("link", name="Patching", exact=True).click()
        # The map, not the empty graph before it.
        expect(page.locator("#patching-graph .xtick text").first).to_be_visible()
        assert page.url == f"{url}patching"
        page.locator(".export[data-key='patching'] summary").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="SVG", exact=True).click()
        assert download.value.suggested_filename == "patching-blocks.zip"
        page.reload()
        expect(page.get_by_role("heading", name="Patching", level=1)).to_be_visible()
    assert outside == []
    assert faults == []


def test_a_damaged_recording_and_result_are_explained(page: Page, study: Study) -> None:
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/?clip=2")
        faults = page.locator("#clip-player .fault")
        expect(faults.filter(has_text="00002.flac is damaged").first).to_be_visible()
        page.get_by_text("1 result of this study cannot be shown.").click()
        expect(page.get_by_text("patching-steps.nc is damaged")).to_be_visible()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.goto(f"{url}/patching?concept=nonsense")
        expect(page.locator("#remarks")).to_contain_text("There is no concept 'nonsense' here")
        expect(page.locator("#patching-graph .xtick text").first).to_be_visible()


def test_a_recording_that_could_not_be_read_is_loaded_again_and_a_damaged_one_explained(
    page: Page, study: Study
) -> None:
    """As where a browser gives up reading while it seeks; the file is whole."""
    fails = """code => {
        const audio = document.querySelector("#clip-player audio");
        window.loads = 0;
        Object.defineProperty(audio, "error", { get: () => ({ code }), configurable: true });
        audio.load = () => { window.loads += 1; delete audio.error; };
        audio.dispatchEvent(new Event("error"));
    }"""
    fault = page.locator("#clip-player .fault")
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/?clip=1")
        expect(page.locator("#clip-player audio")).to_be_attached()
        page.evaluate(fails, 2)
        page.wait_for_function("() => window.loads === 1")
        expect(fault).to_have_count(0)
        page.evaluate(fails, 3)
        expect(fault).to_have_text("This browser cannot play the recording: the file may be damaged.")
        assert page.evaluate("() => window.loads") == 0


@contextmanager
def served_again(app: dash.Dash, url: str) -> Iterator[None]:
    """Serve an app at the address at which it was served before."""
    with open_socket("127.0.0.1", int(urlsplit(url).port or 0)) as listening:
        again = make_server(app.server, listening, Address())
        threading.Thread(target=again.run, daemon=True).start()
        yield
        again.close()


def test_a_page_that_lacks_something_else_also_names_the_damaged_result(page: Page, study: Study) -> None:
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/comparison?result=steps")
        expect(page.get_by_text("Nothing to compare with yet.")).to_be_visible()
        expect(page.locator(".lost")).to_contain_text("patching-steps.nc")
        expect(page.locator(".lost .remarks")).to_be_visible()
        expect(page.locator(".lost .instead")).to_be_hidden()
        page.goto(f"{url}/patching?result=steps")
        expect(page.locator(".lost .instead")).to_be_visible()


def test_a_stopped_server_has_a_banner_that_goes_away(page: Page, study: Study) -> None:
    app = create_app(study.path, Address(again="Start “a <new> lab”."))
    with served(app) as url:
        page.goto(url)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator("#connection")).to_have_text(
        "The dashboard is not responding. Its server was stopped or the connection was lost. This page may be out of "
        "date. Start “a <new> lab”. Once it is back, this message disappears, and what you have done meanwhile is "
        "carried out."
    )
    with served_again(app, url):
        expect(page.locator("#connection")).to_have_count(0)


def test_a_clip_asked_for_while_the_server_is_stopped_is_asked_for_when_it_is_back(
    page: Page, study: Study
) -> None:
    app = create_app(study.path)
    with served(app) as url:
        page.goto(f"{url}/lab?clip=1")
        expect(page.locator("#lab-status")).to_contain_text("This clip has not been made yet")
    page.keyboard.press("g")
    expect(page.locator("#lab-status")).to_contain_text("will be rendered as soon as it is back")
    expect(page.locator("#connection")).to_be_visible()
    with served_again(app, url):
        page.wait_for_url("**/lab?prompt=*")
        expect(page.locator("#connection")).to_have_count(0)


@pytest.fixture
def lab(study: Study) -> Iterator[dash.Dash]:
    """A dashboard whose lab renders at once."""
    with closing(Jobs(lab=Instant())) as jobs:
        yield make_app(Context(study, jobs=jobs), LOCAL)


def test_a_strength_moved_while_the_server_is_stopped_is_rendered_when_it_is_back(
    page: Page, lab: dash.Dash
) -> None:
    status, names = page.locator("#lab-status"), page.locator("#lab-players .ab-name")
    with served(lab) as url:
        page.goto(f"{url}/lab?clip=1&edits={STEERED}")
        expect(status).to_contain_text("This clip has not been made yet")
        page.keyboard.press("g")
        expect(status).to_have_text("Ready to be heard.")
    page.locator("#lab-edits [role=slider]").press("ArrowRight")
    expect(status).to_contain_text("will be rendered as soon as it is back")
    expect(page.locator("#connection")).to_be_visible()
    with served_again(lab, url):
        expect(names).to_have_text(["unedited", f"{PACK} × 1.6", f"{PACK} × 1.7"])
        expect(status).to_have_text("Ready to be heard.")


def test_a_strength_moved_back_while_the_server_is_stopped_is_not_waited_for(
    page: Page, lab: dash.Dash
) -> None:
    status, slider = page.locator("#lab-status"), page.locator("#lab-edits [role=slider]")
    with served(lab) as url:
        page.goto(f"{url}/lab?prompt=held&edits={STEERED}")
        expect(status).to_have_text("Ready to be heard.")
    slider.press("ArrowRight")
    expect(status).to_contain_text("will be rendered as soon as it is back")
    slider.press("ArrowLeft")
    expect(page.locator("#connection")).to_be_visible()
    with served_again(lab, url):
        expect(page.locator("#connection")).to_have_count(0)
        expect(status).to_have_text("Ready to be heard.")


def test_what_is_chosen_while_the_server_is_stopped_is_shown_when_it_is_back(
    page: Page, study: Study
) -> None:
    """A control, a row and a search; the page is then as if it had been opened so."""
    app, features = create_app(study.path), page.context.new_page()
    with served(app) as url:
        page.goto(f"{url}/probes")
        expect(page.locator("#probes-graph .heatmaplayer").first).to_be_visible()
        before = page.evaluate(PROBES)
        features.goto(f"{url}/features?sae={SAE}&feature=5")
        expect(features.get_by_label("Your label")).to_be_visible()
        row = features.locator("#features-grid .ag-row[row-id='8']").first
        expect(row).to_be_visible()
    page.locator("#probes-quantity").click()
    page.get_by_role("option", name="control").click()
    row.click()
    features.locator("#feature-search").fill("piano")
    for each in (page, features):
        expect(each.locator("#connection")).to_be_visible()
    with served_again(app, url):
        expect(features.locator("#feature-numbers")).to_contain_text("feature8")
        expect(features.locator("#features-count")).to_contain_text(" of 48")
        expect(page.locator("#connection")).to_have_count(0)
        page.wait_for_function(f"before => ({PROBES})() !== before", arg=before)
        after = page.evaluate(PROBES)
        page.reload()
        expect(page.locator("#probes-graph .heatmaplayer").first).to_be_visible()
        expect(page.locator("#probes-quantity")).to_have_value("control")
        assert page.evaluate(PROBES) == after


@pytest.mark.parametrize("failures", [1, 2])
def test_a_request_that_fails_while_the_server_responds_is_repeated_once(
    page: Page, study: Study, failures: int
) -> None:
    asked = 0

    def fail_first(route: Route) -> None:
        nonlocal asked
        if '"changedPropIds":["probes-quantity.value"]' not in (route.request.post_data or ""):
            route.continue_()
            return
        asked += 1
        if asked <= failures:
            route.abort("internetdisconnected")
        else:
            route.continue_()

    with served(create_app(study.path)) as url:
        page.goto(f"{url}/probes")
        expect(page.locator("#probes-graph .heatmaplayer").first).to_be_visible()
        before = page.evaluate(PROBES)
        page.route("**/_dash-update-component*", fail_first)
        page.locator("#probes-quantity").click()
        page.get_by_role("option", name="control").click()
        # One is asked for by the page whenever a request has failed, the others by its clock.
        for _ in range(4):
            page.wait_for_event("response", lambda response: response.url.endswith("_alive"))
        assert asked == 2
        assert (page.evaluate(PROBES) == before) == (failures == 2)
        expect(page.locator("#connection")).to_have_count(0)


def test_what_is_written_while_the_server_is_stopped_is_saved_when_it_is_back(
    page: Page, study: Study
) -> None:
    app = create_app(study.path)
    with served(app) as url:
        page.goto(f"{url}/features?sae={SAE}&feature=9")
        expect(page.get_by_label("Your label")).to_be_visible()
    page.get_by_label("Your label").fill("snare")
    page.keyboard.press("Tab")
    page.get_by_role("textbox", name="Sets").fill("late")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Note").fill("loud")
    page.keyboard.press("Tab")
    page.get_by_text("Star", exact=True).click()
    for field in ("label", "note", "sets", "star"):
        expect(
            page.get_by_text(f"Not saved: The dashboard is not responding. The {field} will")
        ).to_be_visible()
    expect(page.locator("#connection")).to_be_visible()
    with served_again(app, url):
        for field in ("Label", "Note", "Sets", "Star"):
            expect(page.get_by_text(f"{field} saved.", exact=True)).to_be_visible()
        expect(page.get_by_text("Not saved")).to_have_count(0)
        assert read_all(study.path, SAE)[9] == {"label": "snare", "note": "loud", "star": "1"}
        assert read_set(study.path, "late", SAE) == [9]


@pytest.fixture
def two(study: Study, tmp_path: Path) -> Path:
    """A study in a folder of its own, from which it can be moved away."""
    return shutil.copytree(study.path, tmp_path / "studies" / "two")


@pytest.fixture(params=["study", "folder of studies"])
def home(request: pytest.FixtureRequest, two: Path) -> Iterator[str]:
    """The address of that study, which is served by itself or among the studies of its folder."""
    if request.param == "study":
        with served(Dashboard(open_context(two), LOCAL)) as url:
            yield f"{url}/"
    else:
        with served(StudiesDashboard(two.parent, LOCAL)) as url:
            yield f"{url}/study/two/"


STATE = "1 result of this study cannot be shown."
"""What the frame says once the server has answered all that a page asks for as it is opened."""


def test_what_is_written_while_a_study_is_away_is_saved_when_it_is_back(
    page: Page, home: str, two: Path, tmp_path: Path
) -> None:
    said, banner = page.locator(".said", has_text="Not saved"), page.locator("#connection")
    page.goto(f"{home}features?sae={SAE}&feature=3")
    expect(page.get_by_label("Your label")).to_be_visible()
    expect(page.locator("#features-grid .ag-row[row-id='3']").first).to_be_visible()
    expect(page.get_by_text(STATE)).to_be_visible()
    two.rename(tmp_path / "away")
    page.get_by_label("Your label").fill("snare")
    page.keyboard.press("Tab")
    expect(said).to_contain_text("two")
    expect(said).to_contain_text(str(two.parent))
    expect(said).to_contain_text("The label will be saved as soon as it is back.")
    expect(said).not_to_contain_text("not responding")
    expect(banner).to_contain_text(str(two.parent))
    expect(banner).to_contain_text(
        "Once it is back, this message disappears, and what you have done meanwhile"
    )
    expect(page.get_by_label("Your label")).to_have_value("snare")
    picture = page.locator(".player img").first
    picture.scroll_into_view_if_needed()
    with page.expect_response(lambda answer: answer.url.endswith("?again")):
        picture.evaluate("image => { image.src += '?again'; }")
    page.wait_for_event("response", lambda answer: answer.url.endswith("_alive"))
    expect(page.locator(".player .fault")).to_have_count(0)  # the banner says it
    (tmp_path / "away").rename(two)
    expect(page.get_by_text("Label saved.", exact=True)).to_be_visible()
    expect(banner).to_have_count(0)
    assert read_all(two, SAE)[3] == {"label": "snare"}


def test_what_is_chosen_while_a_study_is_away_is_shown_when_it_is_back(
    page: Page, home: str, two: Path, tmp_path: Path
) -> None:
    """A row, a search, and another page; meanwhile, everything stays as it was."""
    turned = page.context.new_page()
    for each in (page, turned):
        each.goto(f"{home}features?sae={SAE}&feature=5")
        expect(each.locator("#feature-numbers")).to_contain_text("feature5")
        expect(each.locator("#features-grid .ag-row[row-id='8']").first).to_be_visible()
        expect(each.get_by_text(STATE)).to_be_visible()
    two.rename(tmp_path / "away")
    page.locator("#features-grid .ag-row[row-id='8']").first.click()
    page.locator("#feature-search").fill("piano")
    turned.get_by_role("link", name="Probes", exact=True).click()
    for each in (page, turned):
        expect(each.locator("#connection")).to_contain_text(str(two.parent))
        expect(each.get_by_role("heading", name="Features", level=1)).to_be_visible()
        expect(each.locator("#feature-numbers")).to_contain_text("feature5")
        expect(each.get_by_role("alert")).to_have_count(1)
    assert turned.url == f"{home}probes"
    (tmp_path / "away").rename(two)
    expect(page.locator("#feature-numbers")).to_contain_text("feature8")
    expect(page.locator("#features-count")).to_contain_text(" of 48")
    expect(page.locator("#features-grid .ag-row[row-id]").first).to_contain_text("piano")
    expect(turned.get_by_role("heading", name="Probes", level=1)).to_be_visible()
    expect(turned.locator("#probes-graph .heatmaplayer").first).to_be_visible()
    for each in (page, turned):
        expect(each.get_by_role("alert")).to_have_count(0)


def test_a_refused_label_is_said_until_it_is_mended(page: Page, study: Study) -> None:
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/features?sae={SAE}&feature=8")
        page.get_by_label("Your label").fill("x" * 300)
        page.keyboard.press("Tab")
        refused = page.get_by_text("Not saved: A label has at most 200 characters")
        expect(refused).to_be_visible()
        page.get_by_text("Star", exact=True).click()
        expect(page.get_by_text("Star saved.")).to_be_visible()
        expect(refused).to_be_visible()
        page.get_by_label("Your label").fill("")
        page.keyboard.press("Tab")
        expect(refused).to_have_count(0)


def test_text_that_was_not_left_is_asked_about_before_the_page_goes(page: Page, study: Study) -> None:
    asked: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", dismiss)
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/features?sae={SAE}&feature=7")
        page.get_by_label("Your label").fill("snare")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Label saved.")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Your label")).to_have_value("snare")
        assert asked == []
        page.get_by_role("textbox", name="Note").press_sequentially("loud")
        page.reload()
        expect(page.get_by_role("textbox", name="Note")).to_have_value("")
        assert asked == ["beforeunload"]


@pytest.mark.parametrize(("start", "steps"), [("probes", 2), (f"features?sae={SAE}&feature=10", 1)])
def test_what_is_being_written_is_saved_when_one_goes_back(
    page: Page, study: Study, start: str, steps: int
) -> None:
    note = page.get_by_role("textbox", name="Note")
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/{start}")
        if start == "probes":
            page.get_by_role("link", name="Features", exact=True).click()
        page.locator("#features-grid .ag-row[row-id='11']").first.click()
        expect(page.locator("#feature-numbers")).to_contain_text("feature11")
        note.press_sequentially(text := f"written {steps} steps on")
        page.evaluate("steps => history.go(-steps)", steps)
        expect(page.locator("#probes-graph .main-svg, #feature-numbers:has-text('10')").first).to_be_visible()
        page.evaluate("steps => history.go(steps)", steps)
        expect(note).to_have_value(text)
        note.fill("")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Note saved.", exact=True)).to_be_visible()


def test_a_set_that_a_card_begins_or_ends_is_offered_and_followed_by_the_table(
    page: Page, study: Study
) -> None:
    sets, count = page.get_by_role("textbox", name="Sets"), page.locator("#features-count")
    offered = page.get_by_role("textbox", name="Set of features")
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/features?sae={SAE}&feature=12")
        for name in ("begun", "other"):
            sets.fill(name)
            page.keyboard.press("Enter")
            expect(page.get_by_text("Sets saved.", exact=True)).to_be_visible()
        offered.click()
        page.get_by_role("option", name="begun", exact=True).click()
        expect(count).to_contain_text("1 of 48 features")
        page.goto(f"{url}/features?sae={SAE}&feature=13&set=begun")
        sets.fill("begun")
        page.keyboard.press("Enter")
        expect(count).to_contain_text("2 of 48 features")
        sets.press("Backspace")
        expect(count).to_contain_text("1 of 48 features")


def test_an_open_card_shows_what_is_imported(page: Page, study: Study) -> None:
    with served(create_app(study.path)) as url:
        page.goto(f"{url}/features?sae={SAE}&feature=6")
        expect(page.get_by_label("Your label")).to_have_value("")
        rows = f"sae,feature,label,note\n{SAE},6,tom,deep\n".encode()
        file: FilePayload = {"name": "notes.csv", "mimeType": "text/csv", "buffer": rows}
        page.locator("#notes-import input[type=file]").set_input_files(file)
        expect(page.get_by_label("Your label")).to_have_value("tom")
        expect(page.get_by_role("textbox", name="Note")).to_have_value("deep")
        page.get_by_role("textbox", name="Note").fill("deeper")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Note saved.", exact=True)).to_be_visible()
