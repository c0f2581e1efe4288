"""The lab in a real browser: edit, render by a key, hear both clips, move a strength, be refused, cancel."""

import json
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from analyses.lab.folder import lab_study
from analyses.lab.lab import Lab
from analyses.lab.request import LabRequest, read_request
from analyses.lab.scores import ALWAYS
from dashboards.address import LOCAL
from dashboards.app import make_app
from dashboards.context import Context
from dashboards.jobs import Jobs
from dashboards.links import read_query
from tests.dashboards.served import served
from tests.e2e import accessibility
from workbench.models.ace_step import AceStep15

WAIT_MS = 30_000
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
        expect(page.locator(".lab-card")).to_have_count(1)
        page.keyboard.press("g")
        expect(page.locator("#lab-error")).to_contain_text("Block tf99 does not exist")
        page.close()
        assert faults == []


def keep_audio(page: Page) -> None:
    """Remember the player's first audio, to see whether it is the same later."""
    page.evaluate("() => { window.kept = document.querySelector('#lab-players audio'); }")
