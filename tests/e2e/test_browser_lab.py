"""The lab in a real browser: edit, render by a key, hear both clips, move a strength, be refused, cancel."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from analyses.lab.folder import lab_study
from analyses.lab.lab import Lab, Rendered, Report
from analyses.lab.request import LabRequest, read_request
from analyses.lab.scores import ALWAYS, Scores
from dashboards.address import LOCAL
from dashboards.app import make_app
from dashboards.context import Context
from dashboards.jobs import Jobs
from dashboards.links import read_query
from tests.dashboards.served import served
from tests.e2e import accessibility
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study

WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
PATCH = {"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": "a fast happy violin song with drums"}


def test_edit_render_and_hear(
    organism_shared: AceStep15, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyses.lab.scores.ALWAYS", ALWAYS[:1])
    study = lab_study(organism_shared, tmp_path / "lab", settings={"duration": 2.0, "num_steps": 4})
    jobs = Jobs(lab=Lab(model=organism_shared))
    with closing(jobs), served(make_app(Context(study, jobs=jobs), LOCAL)) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(WAIT_MS)
        faults: list[str] = []

        def hear(message: ConsoleMessage) -> None:
            if message.type == "error":
                faults.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{address}/lab?clip=1&edits={quote(json.dumps([PATCH]))}")
        expect(page.locator(".lab-card")).to_have_count(1)
        page.keyboard.press("g")
        expect(page.locator("#lab-players .ab-name")).to_have_text(["unedited", "patch tf3.cross_attn"])
        page.wait_for_function("() => document.querySelector('#lab-players audio').currentTime > 0")
        expect(page.locator("#lab-scores")).to_contain_text("embedded")
        expect(page.locator("#lab-difference")).to_be_visible()
        assert accessibility.faults(page) == []
        asked, _ = read_request(read_query(page.url.partition("?")[2]), LabRequest(prompt="-"))
        assert asked.edits[0].kind == "patch"

        link = page.locator("#lab-link").get_attribute("href")
        page.goto(f"{address}{link}")
        expect(page.locator("#lab-players .ab-name")).to_have_text(["unedited", "patch tf3.cross_attn"])
        expect(page.locator("#lab-scores")).to_contain_text("embedded")

        page.get_by_role("button", name="+ Ablate").press("Enter")
        card = page.locator(".lab-card").nth(1)
        expect(card.get_by_label("Ablate", exact=True)).to_be_focused()
        keep_audio(page)
        page.locator("h1").click()  # leave the button
        page.keyboard.press("Enter")
        expect(page.locator("#lab-players .ab-name")).to_have_count(3)
        assert page.evaluate("() => window.kept === document.querySelector('#lab-players audio')")
        card.get_by_label("Ablate", exact=True).click(force=True)  # off: as rendered before
        expect(page.locator('#lab-players [aria-checked="true"] .ab-name')).to_have_text(
            "patch tf3.cross_attn"
        )

        page.goto(
            f"{address}/lab?clip=1&edits={quote(json.dumps([{'kind': 'ablate', 'sites': ['tf99.mlp']}]))}"
        )
        expect(page.locator("#lab-status")).to_contain_text("Block tf99 does not exist")
        page.keyboard.press("g")
        expect(page.locator("#lab-error")).to_contain_text("Block tf99 does not exist")
        expect(page.locator("#lab-status")).to_have_text("Not rendered.")
        page.close()
        assert faults == []


def keep_audio(page: Page) -> None:
    """Remember the player's first audio, to see whether it is the same later."""
    page.evaluate("() => { window.kept = document.querySelector('#lab-players audio'); }")


class Endless:
    """Renders until it is cancelled, and counts what it was asked for."""

    def __init__(self) -> None:
        self.begun, self.never = 0, threading.Event()

    def load(self, study: Study, report: Report) -> None: ...

    def check(self, study: Study, request: LabRequest) -> None: ...

    def held(self, study: Study, request: LabRequest) -> Rendered | None:
        del study, request
        return None

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        del study, request
        self.begun += 1
        while not self.never.wait(0.01):
            report("Denoising", 0.5)
        raise AssertionError("never rendered")

    def score(self, study: Study, request: LabRequest, report: Report) -> Scores:
        raise AssertionError("never scored")


class Opened(NamedTuple):
    """A page of a lab, opened for a song that has not been made, and what makes it."""

    page: Page
    address: str
    lab: Endless
    jobs: Jobs


@pytest.fixture
def opened(organism_shared: AceStep15, page: Page, tmp_path: Path) -> Iterator[Opened]:
    study, lab = lab_study(organism_shared, tmp_path / "lab"), Endless()
    jobs = Jobs(lab=lab)
    with closing(jobs), served(make_app(Context(study, jobs=jobs), LOCAL)) as address:
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{address}/lab?prompt=a+song")
        expect(page.locator("#lab-status")).to_contain_text("has not been made yet")
        yield Opened(page, address, lab, jobs)


def test_a_page_has_one_clip_however_often_it_is_asked_for(opened: Opened, browser: Browser) -> None:
    page, other = opened.page, browser.new_page()
    status, elsewhere = page.locator("#lab-status"), other.locator("#lab-status")
    ending = page.locator("#lab-cancel")
    for _ in range(2):
        for _ in range(15):
            page.keyboard.press("g")
        expect(status).to_have_text("Denoising.")
        ending.click()
        expect(status).to_have_text("Cancelled.")
    assert opened.lab.begun == 2
    page.keyboard.press("g")
    expect(status).to_have_text("Denoising.")
    other.goto(f"{opened.address}/lab?prompt=another+song")
    expect(elsewhere).to_contain_text("has not been made yet")
    other.keyboard.press("g")
    expect(elsewhere).to_have_text("Waiting: 1 clip is rendered first.")
    ending.click()
    expect(elsewhere).to_have_text("Denoising.")
    other.close()


def test_a_copy_of_a_tab_has_a_clip_of_its_own(opened: Opened) -> None:
    """Browsers copy what a tab keeps; a page that is loaded again has its clip still, also after another site."""
    page, status = opened.page, opened.page.locator("#lab-status")
    with page.expect_popup() as copied:
        page.evaluate("() => { window.open(location.href); }")
    copy = copied.value
    elsewhere = copy.locator("#lab-status")
    expect(elsewhere).to_contain_text("has not been made yet")
    page.keyboard.press("g")
    expect(status).to_have_text("Denoising.")
    copy.locator("#lab-prompt").fill("another song")
    copy.locator("#lab-render").click()
    expect(elsewhere).to_have_text("Waiting: 1 clip is rendered first.")
    expect(status).to_have_text("Denoising.")
    page.goto("about:blank")
    page.go_back()
    expect(status).to_have_text("Denoising.")
    page.locator("#lab-cancel").click()
    expect(elsewhere).to_have_text("Denoising.")
    assert len({name for job in opened.jobs._jobs.values() for name in job.pages}) == 2


def test_a_clip_that_is_being_made_is_taken_over_by_whoever_opens_its_address(
    opened: Opened, browser: Browser
) -> None:
    page, other = opened.page, browser.new_page()
    status, elsewhere = page.locator("#lab-status"), other.locator("#lab-status")
    page.keyboard.press("g")
    expect(status).to_have_text("Denoising.")
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    page.go_back()
    expect(status).to_have_text("Denoising.")
    page.reload()
    expect(status).to_have_text("Denoising.")
    other.goto(page.url)
    expect(elsewhere).to_have_text("Denoising.")
    page.locator("#lab-prompt").fill("another song")
    page.locator("#lab-render").click()
    expect(status).to_have_text("Waiting: 1 clip is rendered first.")
    other.reload()
    expect(elsewhere).to_have_text("Denoising.")
    other.locator("#lab-cancel").click()
    expect(elsewhere).to_have_text("Cancelled.")
    expect(status).to_have_text("Denoising.")
    assert opened.lab.begun == 2
    other.close()
