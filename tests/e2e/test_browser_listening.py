"""A listener in a real browser: nothing is answered unheard, and every answer is stored before the next page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dashboards.address import Address
from dashboards.listening.app import create_server
from tests.dashboards.served import served
from tests.workbench.listening.small import NOISES, make_small, write_table
from workbench.listening.answers import read_answers, study_id
from workbench.listening.folder import read_config
from workbench.listening.store import AnswerStore

WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of one pair."""
    table = write_table(tmp_path, items=1)
    table.write_text("".join(line for line in table.open() if "some noise" not in line))
    make_small(table, tmp_path / "study", checks=0, any_device=True)
    return tmp_path / "study"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with served(create_server(folder, Address(), is_open=True)) as address:
        yield address


def test_a_listener_hears_answers_and_comes_back(page: Page, address: str, folder: Path) -> None:
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="I agree").click()
    following = page.get_by_role("button", name="Next")
    for heading in ("Practice", "Listen and answer"):
        expect(page.get_by_role("heading")).to_have_text(heading)
        page.reload()  # as after a crash
        expect(page.get_by_role("heading")).to_have_text(heading)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.keyboard.press("p")
        expect(page.locator(".state").first).to_have_text("heard")
        expect(page.get_by_role("radio", name="No difference")).to_be_disabled()
        page.keyboard.press("p")  # now the clip that was not heard yet
        expect(page.locator(".state").last).to_have_text("heard")
        expect(following).to_be_disabled()
        page.keyboard.press("2")
        expect(page.get_by_role("radio", name="No difference")).to_be_checked()
        page.keyboard.press("Enter")
    expect(page.get_by_role("heading")).to_have_text("Thank you")
    assert faults == []
    answers = AnswerStore(folder, study_id(read_config(folder))).answers()
    assert [answer.answers for answer in answers] == [(), (1,), (1,)]
    assert all(answer.seconds >= 1 for answer in answers[1:])  # two clips of half a second
    (row,) = read_answers(folder).preferences.to_dict("records")
    assert {row["first"], row["second"]} == set(NOISES) - {"some noise"} and row["preferred"] == 0.5
