"""The dashboard as a person uses it, in a real browser."""

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from dashboards.address import Address
from dashboards.app import create_app
from dashboards.pages import PAGES
from dashboards.studies_app import StudiesDashboard
from dashboards.tables.patching import TEXTS
from tests.dashboards.served import served
from tests.dashboards.synthetic_study import SAE_SITES, make_study, save_changed
from tests.e2e.accessibility import CONTRAST, faults
from workbench.studies.feature_notes import change_set, write
from workbench.studies.study import Study

WAIT_MS = 30_000
EVIL = "<x-evil>lo.fi</x-evil> & $$ [red] %{x}"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study to look at, with names and notes that a browser could take for a part of the page."""
    study = make_study(tmp_path_factory.mktemp("browser"))
    result = study.result("patching-blocks")
    texts = {text: (result[text].dims, np.full(result[text].shape, EVIL)) for text in TEXTS}
    named = result.assign_coords(concept=[EVIL, *result["concept"].values[1:]]).assign(texts)
    named.to_netcdf(study.path / "results" / "patching-named.nc", engine="h5netcdf")
    for field in ("label", "note"):
        write(study.path, SAE_SITES[0], 16, field, EVIL)
    change_set(study.path, EVIL, SAE_SITES[0], [16])
    return study


@pytest.fixture(scope="module")
def compared(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What its maps stand beside: another study, and a published table of a deeper network."""
    folder = shutil.copytree(study.path, tmp_path_factory.mktemp("other") / "other")
    save_changed(Study.open(folder), "patching-blocks", 0.5)
    rows = [f"deep,{concept},tf{block},0.1" for concept in ("tempo", "jazz") for block in range(12)]
    table = folder.parent / "paper.csv"
    table.write_text("\n".join(["model,concept,block,impact", *rows]), encoding="utf-8")
    return {"compare": folder, "published": table}


@pytest.fixture(scope="module")
def address(study: Study, compared: dict[str, Path]) -> Iterator[str]:
    """Its dashboard, served until the tests are over."""
    with served(create_app(study.path, **compared)) as address:
        yield address


@pytest.fixture(scope="module")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """What the pages share: the cache of scripts, which take longest to load."""
    profile = browser.new_context(viewport={"width": 1440, "height": 900})
    profile.set_default_timeout(WAIT_MS)
    yield profile
    profile.close()


@pytest.fixture
def page(profile: BrowserContext) -> Iterator[Page]:
    """A page that must end without a fault in its console and without having asked any other machine."""
    page = profile.new_page()
    faults: list[str] = []
    hosts: set[str | None] = set()

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    yield page
    page.close()
    assert faults == []
    assert hosts <= {"127.0.0.1", None}  # None: data and blob addresses


def click_cell(page: Page, graph: str, x: float, y: float, axes: str = "") -> None:
    """Click a heatmap at a place in axis units, with the mouse."""
    page.locator(f"#{graph} .heatmaplayer image").first.scroll_into_view_if_needed()
    place = page.evaluate(
        """([graph, x, y, axes]) => {
            const plot = document.querySelector(`#${graph} .js-plotly-plot`);
            const xaxis = plot._fullLayout["xaxis" + axes], yaxis = plot._fullLayout["yaxis" + axes];
            const box = plot.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.l2p(x), box.top + yaxis._offset + yaxis.l2p(y)];
        }""",
        [graph, x, y, axes],
    )
    page.mouse.move(*place)
    page.mouse.click(*place)


def selection(page: Page) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(page.url).query))


def expect_playable(players: Locator, count: int) -> None:
    """Each player has sound with a duration and a drawn spectrogram."""
    expect(players).to_have_count(count)
    for player in players.all():
        audio = player.locator("audio").element_handle()
        picture = player.locator("img.mel").element_handle()
        player.page.wait_for_function("audio => audio.readyState >= 1 && audio.duration > 1", arg=audio)
        player.page.wait_for_function("image => image.complete && image.naturalWidth > 50", arg=picture)


def test_what_a_page_needs_first_is_asked_for_at_once_and_only_once(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.goto(address)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    renderer = next(place for place, path in enumerate(asked) if "dash_renderer" in path)
    for needed in ("/_dash-layout", "/_dash-dependencies"):
        assert asked.count(needed) == 1
        assert asked.index(needed) < renderer


def test_pages_are_reached_from_the_first(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    for name, shown in (
        ("Patching", "#patching-graph .main-svg"),
        ("Probes", "#probes-graph .main-svg"),
        ("Features", "#features-grid .ag-row"),
        ("Steering", "#ladder-graph .main-svg"),
    ):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        expect(page.locator(shown).first).to_be_visible()


SELECTED = {
    "/": ("clip=2", "#clips-grid .ag-row-selected"),
    "/patching": (f"result=named&concept={quote(EVIL)}&arm=tf3", "#cell-players .ab-side"),
    "/probes": ("concept=drums&site=tf3.cross_attn&step=4", "#probe-folds-graph .bars path"),
    "/features": ("feature=16", "#feature-clips .player"),
    "/clip": ("clip=2", "#firing-features a"),
    "/steering": ("arm=vector+×+2", "#steered-players .ab-side"),
    "/evaluation": ("", "#alignment-preservation-graph .main-svg"),
    "/comparison": ("", "#patching-compare-graph .main-svg"),
}
"""What the pages show, by path, and the last of it that appears."""


def test_all_pages_are_accessible_and_take_any_name_for_text(page: Page, address: str) -> None:
    """In light and in dark colours, nothing is hard to read or without a name; names and notes become no elements."""
    page.goto(address)
    page.locator("#page h1").wait_for()
    found = []
    for path in (one.path for one in PAGES):
        query, shown = SELECTED.get(path, ("", "#page h1"))
        page.evaluate(
            "([pathname, search]) => dash_clientside.set_props('url', { pathname, search })",
            [path, f"?{query}"],  # quicker than to load each page anew
        )
        page.locator(shown).first.wait_for()
        found += [f"{path}, light: {fault}" for fault in faults(page)]
        page.emulate_media(color_scheme="dark")
        expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
        found += [f"{path}, dark: {fault}" for fault in faults(page, CONTRAST)]
        page.emulate_media(color_scheme="light")
        expect(page.locator("x-evil")).to_have_count(0)
        if path == "/patching":
            expect(page.locator("#patching-graph .xtick text").first).to_have_text(EVIL)
            expect(page.locator("#patching-facts")).to_contain_text(EVIL)
        if path == "/features":
            expect(page.get_by_label("note")).to_have_value(EVIL)
    assert found == []


def test_colours_are_the_systems_until_the_switch_is_used(page: Page, address: str) -> None:
    """From the first thing that is drawn on, so that no page flashes."""
    page.add_init_script(
        """new MutationObserver(() => {
            if (document.body && !window.first) {
                window.first = document.documentElement.dataset.mantineColorScheme;
            }
        }).observe(document, { childList: true, subtree: true });"""
    )
    light, dark = "rgb(247, 248, 250)", "rgb(26, 27, 30)"
    page.emulate_media(color_scheme="dark")
    page.goto(address)
    assert page.evaluate("window.first") == "dark"
    expect(page.locator("html")).to_have_css("background-color", dark)
    page.get_by_role("button", name="light or dark colours").click()
    expect(page.locator("html")).to_have_css("background-color", light)
    page.reload()
    assert page.evaluate("window.first") == "light"
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator("html")).to_have_css("background-color", light)
    page.evaluate("localStorage.clear()")  # which other tests share


def test_studies_of_a_folder_are_opened_and_followed(
    profile: BrowserContext, study: Study, tmp_path: Path
) -> None:
    odd, moved, damaged = (tmp_path / name for name in ("b <i>", "moved", "damaged"))
    for folder in (tmp_path / "a", odd):
        shutil.copytree(study.path, folder, ignore=shutil.ignore_patterns("activations.zarr", "sae", "audio"))
    damaged.mkdir()
    (damaged / "study.json").write_text("{")
    page = profile.new_page()
    with served(StudiesDashboard(tmp_path, Address())) as url:
        page.goto(url)
        rows = page.locator("#studies tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.nth(2)).to_contain_text("study.json is damaged")
        page.get_by_role("link", name="b <i>").click()
        expect(page).to_have_title("Overview · b <i>")
        page.locator(".study-switch summary").click()
        page.get_by_role("link", name="a", exact=True).click()
        expect(page).to_have_title("Overview · a")
        page.go_back()
        expect(page).to_have_title("Overview · b <i>")
        (odd / "study.json").write_text("{")
        expect(page.get_by_role("alert").filter(has_text="study.json is damaged").first).to_be_visible()
        odd.rename(moved)
        expect(page.locator("#connection")).to_contain_text("There is no study 'b <i>' in")
        page.go_back()
        expect(rows.nth(2)).to_contain_text("moved")
        shutil.copy(tmp_path / "a" / "study.json", moved)
        expect(page.get_by_role("link", name="moved")).to_be_visible()
        page.get_by_role("link", name="moved").click()
        expect(page).to_have_title("Overview · moved")
    page.close()


def test_a_clip_is_heard_from_the_overview(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#clips-grid .ag-row[row-id='2']").click()
    expect_playable(page.locator("#clip-player .player"), 1)
    assert selection(page) == {"clip": "2"}


def test_pages_follow_the_study_while_a_clip_plays(page: Page, address: str, study: Study) -> None:
    """A result that appears or goes is noticed, and nothing that plays is stopped."""
    page.goto(f"{address}/?clip=2")
    cards = page.locator("#result-cards .mantine-Paper-root")
    expect(cards.nth(1)).to_contain_text("computed")
    audio = page.locator("#clip-player audio").element_handle()
    page.wait_for_function("audio => audio.readyState >= 1", arg=audio)
    audio.evaluate("audio => { audio.loop = true; return audio.play(); }")
    page.wait_for_function("audio => audio.played.length", arg=audio)
    result = study.path / "results" / "probes.nc"
    aside = result.rename(result.with_suffix(".aside"))
    try:
        expect(cards.nth(1)).to_contain_text("missing")
        assert audio.evaluate("audio => audio.isConnected && !audio.paused && audio.played.length > 0")
        waiting = page.context.new_page()
        waiting.goto(f"{address}/probes")
        expect(waiting.get_by_text("No probe results yet.")).to_be_visible()
    finally:
        aside.rename(result)
    expect(waiting.locator("#probes-graph .main-svg").first).to_be_visible()
    waiting.close()
    expect(cards.nth(1)).to_contain_text("computed")
    assert audio.evaluate("audio => audio.isConnected && !audio.paused")


def test_selections_are_remembered_and_named(page: Page, address: str) -> None:
    """A link leads back to what its page showed last; back and forward show it, too, in table and player."""
    page.goto(f"{address}/?clip=2")
    expect(page).to_have_title("Overview · clip 2 · study")
    page.locator("#clips-grid .ag-row[row-id='3']").click()
    expect(page).to_have_title("Overview · clip 3 · study")
    page.get_by_role("link", name="Probes", exact=True).click()
    expect(page).to_have_title("Probes · study")
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.locator("#clip-player")).to_contain_text("Clip 3")
    expect(page.locator("#clips-grid .ag-row[row-id='3']")).to_have_attribute("aria-selected", "true")
    assert selection(page) == {"clip": "3"}
    page.go_back()
    page.go_back()
    page.go_back()
    expect(page.locator("#clip-player")).to_contain_text("Clip 2")
    expect(page.locator("#clips-grid .ag-row[row-id='2']")).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.locator("#clip-player")).to_contain_text("Clip 3")
    assert selection(page) == {"clip": "3"}


def test_the_navigation_opens_by_a_button_on_a_small_screen(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/probes")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    link = page.get_by_role("link", name="Patching", exact=True)
    expect(link).not_to_be_in_viewport()
    page.get_by_role("button", name="navigation").click()
    link.click()
    expect(page.get_by_role("heading", name="Patching", level=1)).to_be_visible()
    expect(link).not_to_be_in_viewport()
    expect(page.locator("#patching-graph .xtick text").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_cell_of_the_patching_map_tells_its_numbers_and_plays_three_runs(page: Page, address: str) -> None:
    page.goto(f"{address}/patching")
    expect(page.locator("#patching-graph")).to_contain_text("undefined")
    for words in (
        "12 × 2 (n = 24)",
        "0.93 [0.81, 0.98]",
        "[−0.05, 0.07]",
        "over the 60 cells",
        "Stopped after 2 of 3",
    ):
        expect(page.locator("#patching-facts")).to_contain_text(words)
    click_cell(page, "patching-graph", 0.5, 3.5)
    expect(page.locator("#cell-numbers")).to_contain_text("0.680 [0.620, 0.730]")
    expect(page.locator("#cell-numbers")).to_contain_text("0.002, 0.003")
    assert selection(page) == {"concept": "instrument", "arm": "tf3"}
    expect_playable(page.locator("#cell-players .ab-side"), 3)
    sources = [audio.get_attribute("src") for audio in page.locator("#cell-players audio").all()]
    assert sources == [
        f"/audio/patching/blocks/instrument/000-0/{arm}.flac" for arm in ("clean", "corrupt", "tf3")
    ]

    page.locator("#pairs-grid .ag-row[row-id='1-1']").click()
    expect(page.locator("#cell-players audio").first).to_have_attribute(
        "src", "/audio/patching/blocks/instrument/001-1/clean.flac"
    )
    assert (selection(page)["pair"], selection(page)["seed"]) == ("1", "1")
    expect(page.locator("#pairs-grid .ag-center-cols-container .ag-row")).to_have_count(4)


def test_a_dot_of_the_distribution_chooses_its_pair(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3")
    dots = page.locator("#patching-pairs-graph .scatterlayer .point")
    expect(dots).to_have_count(2 * 4)
    expect_playable(page.locator("#cell-players .ab-side"), 3)  # their pictures move the dots as they come
    page.locator("#patching-pairs-graph").scroll_into_view_if_needed()
    box = dots.nth(3).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#patching-pairs-graph .hoverlayer")).to_contain_text("pair 1, seed 1 (noise 103)")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#cell-players audio").first).to_have_attribute(
        "src", "/audio/patching/blocks/drums/001-1/clean.flac"
    )
    assert (selection(page)["pair"], selection(page)["seed"]) == ("1", "1")


# Moves the mouse from one point of a graph to another that is near it and clicks, faster than Plotly looks; returns
# what the clicked point is about.
FAST_CLICK = """
(id) => {
  const graph = document.getElementById(id), { plotOf, targets } = window.workbench.maps;
  const away = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
  const pairs = targets(graph).flatMap((a, n, all) => all.slice(n + 1).map((b) => [a, b]));
  const [from, to] = pairs.find(([a, b]) => away(a, b) > a.radius + 1 && away(a, b) < 11);
  const layer = graph.querySelector(".nsewdrag"), box = plotOf(graph).getBoundingClientRect();
  const at = (one) => ({ bubbles: true, clientX: box.left + one.x, clientY: box.top + one.y });
  layer.dispatchEvent(new MouseEvent("mousemove", at(from)));
  layer.dispatchEvent(new MouseEvent("mousemove", at(to)));
  layer.dispatchEvent(new PointerEvent("pointerdown", at(to)));
  layer.dispatchEvent(new MouseEvent("mousedown", at(to)));
  document.dispatchEvent(new PointerEvent("pointerup", at(to)));
  document.dispatchEvent(new MouseEvent("mouseup", at(to)));
  return to.place.customdata.slice(0, 2).map(String);
}
"""


def test_a_fast_click_beside_the_point_before_gives_its_own_point(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3")
    expect_playable(page.locator("#cell-players .ab-side"), 3)
    page.locator("#patching-pairs-graph .scatterlayer .point").first.wait_for()
    pair, seed = page.evaluate(FAST_CLICK, "patching-pairs-graph")
    page.wait_for_function("(asked) => new URLSearchParams(location.search).get('seed') === asked", arg=seed)
    assert (selection(page)["pair"], selection(page)["seed"]) == (pair, seed)


def test_a_cell_is_reached_and_chosen_by_keyboard(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3")
    page.locator("#patching-graph .heatmaplayer image").first.wait_for()
    expect_playable(page.locator("#cell-players .ab-side"), 3)
    page.locator("#patching-graph").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".map-cursor")).to_be_visible()
    expect(page.locator(".map-live")).to_contain_text("tempo · tf3, sufficiency impact 0.930 [0.870, 0.980]")
    page.keyboard.press("Enter")
    expect(page.locator("#cell-numbers")).to_contain_text("0.930 [0.870, 0.980]")
    assert selection(page) == {"concept": "tempo", "arm": "tf3"}
    expect(page.locator("#patching-graph")).to_be_focused()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the way to the player
    expect(page.get_by_role("button", name="play", exact=True)).to_be_focused()


def test_another_question_concept_and_scorer_are_chosen(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3")
    expect(page.locator("#cell")).to_be_visible()
    page.locator("#patching-result").click()
    page.get_by_role("option", name="At which steps?").click()
    expect(page.locator("#patching-graph")).to_contain_text("steps 2–3")
    expect(page.locator("#cell")).to_be_hidden()
    expect(page.locator("#patching-column")).to_be_hidden()  # all columns of a concept are shown
    assert selection(page) == {"result": "steps"}
    page.locator("#patching-shown").click()
    page.get_by_role("option", name="all concepts").click()
    expect(page.locator("#patching-graph")).to_contain_text("undefined")
    page.locator("#patching-column").click()
    page.get_by_role("option", name="steps 2–3").click()
    page.locator("#patching-scorer").click()
    page.get_by_role("option", name="clap").click()
    expect(page.locator("#patching-facts")).to_contain_text("agreement with embedded")
    click_cell(page, "patching-graph", 3.5, 3.5)
    expect(page.locator("#cell-numbers")).to_contain_text("0.392")
    assert selection(page) == {
        "result": "steps", "shown": "all", "column": "steps 2–3", "scorer": "clap",
        "concept": "drums", "arm": "tf3 steps 2–3",
    }  # fmt: skip


def playback(page: Page) -> dict[str, Any]:
    """Which recording sounds, where it and the others are, and whether it plays."""
    return page.evaluate(
        """() => {
            const audios = [...document.querySelectorAll("#cell-players audio")];
            return {
                sounding: audios.map((audio, place) => (audio.muted ? -1 : place)).filter((place) => place >= 0),
                places: audios.map((audio) => audio.currentTime),
                playing: audios.map((audio) => !audio.paused),
            };
        }"""
    )


def test_a_switch_keeps_the_position(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3%2Btf4")
    expect_playable(page.locator("#cell-players .ab-side"), 3)
    page.locator("#cell-players .picture").first.click()  # its middle
    page.wait_for_function(
        "() => [...document.querySelectorAll('#cell-players audio')].every((a) => Math.abs(a.currentTime - 1) < 0.05)"
    )
    page.get_by_role("radio", name="play corrupt").click()
    assert playback(page)["sounding"] == [1]
    assert playback(page)["places"] == pytest.approx([1, 1, 1], abs=0.06)
    expect(page.get_by_role("radio", name="play corrupt")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("radio", name="play clean")).to_have_attribute("aria-checked", "false")
    expect(page.locator("#cell-players .ab-time")).to_contain_text("1.0 / 2.0 s")

    page.get_by_role("slider", name="position").press("Home")
    page.get_by_role("slider", name="position").press(" ")
    page.wait_for_function("() => document.querySelectorAll('#cell-players audio')[1].currentTime > 0.3")
    page.keyboard.press("3")
    state = playback(page)
    assert state["sounding"] == [2]
    assert state["playing"] == [True, True, True]
    assert 0.3 <= state["places"][2] < 1.9
    assert state["places"][2] == pytest.approx(state["places"][1], abs=0.1)
    page.get_by_role("button", name="pause").click()
    assert playback(page)["playing"] == [False, False, False]
    stopped = playback(page)["places"][2]
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "place => Math.abs(document.querySelectorAll('#cell-players audio')[2].currentTime - place) < 0.03",
        arg=max(0.0, stopped - 0.1),
    )


def test_sound_goes_on_while_the_page_changes(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?concept=drums&arm=tf3&pair=1&seed=1")
    expect_playable(page.locator("#cell-players .ab-side"), 3)
    page.locator("#cell-players audio").evaluate_all(
        "all => all.forEach((one) => { one.dataset.mark = 'old'; })"
    )
    page.get_by_role("button", name="Loop").click()
    page.get_by_role("button", name="Match levels").click()
    expect(page.locator(".ab-gains")).to_contain_text("corrupt 0.0, patched −0.2 dB (all at −20.0 LUFS)")
    page.keyboard.press("2")  # wherever the focus is
    page.keyboard.press(" ")
    # What has played, not the position: a loop is at 0 for a while at each start.
    goes_on = """() => [...document.querySelectorAll("#cell-players audio")].every(
        (one, place) => one.dataset.mark && !one.paused && one.muted === (place !== 1) && one.played.length)"""
    page.wait_for_function(goes_on)
    page.locator("#all-arms").click()
    expect(page.locator("#cell-arms .player")).to_have_count(28)
    assert page.evaluate(goes_on)
    click_cell(page, "patching-graph", 0.5, 3.5)
    expect(page.locator("#cell-players audio").first).to_have_attribute(
        "src", "/audio/patching/blocks/instrument/001-1/clean.flac"
    )
    page.wait_for_function(goes_on)

    page.get_by_role("button", name="Blind test").click()
    expect(page.locator(".ab-result")).to_have_text("Trial 1 of 12.")
    for _ in range(12):
        page.keyboard.press("3")
        page.keyboard.press("a")
    expect(page.locator(".ab-result")).to_have_text(
        re.compile(r"\d+ of 12 right, p [=<] 0\.\d+ \(binomial, one-sided\)")
    )
    assert page.evaluate("[10, 6, 0].map((right) => workbench.ab.chance(right, 12))") == pytest.approx(
        [79 / 4096, 2510 / 4096, 1]
    )


def test_all_arms_of_a_pair_are_heard(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?result=steps&concept=drums&arm=tf3%20steps%200%E2%80%931")
    button = page.locator("#all-arms")
    expect(button).to_contain_text("Show all arms of this pair (8 recordings)")
    button.click()
    expect_playable(page.locator("#cell-arms .player"), 8)
    expect(page.locator("#cell-arms")).to_contain_text("corrupt, tf0 steps 0–1")
    audio = page.locator("#cell-arms audio").first
    audio.evaluate("audio => audio.play()")
    page.get_by_role("button", name="play", exact=True).first.click()
    assert audio.evaluate("audio => audio.paused"), "one thing sounds at a time"
    page.get_by_role("button", name="pause").first.click()
    button.click()
    expect(page.locator("#cell-arms .player")).to_have_count(0)
    assert "arms" not in selection(page)


def test_an_undefined_cell_has_no_number(page: Page, address: str) -> None:
    page.goto(f"{address}/patching")
    click_cell(page, "patching-graph", 2.5, 4.5)
    expect(page.locator("#cell-numbers")).to_contain_text("undefined")
    assert selection(page) == {"concept": "mood", "arm": "tf4"}


def test_planted_cells_are_outlined_when_asked_and_stay_so(page: Page, address: str) -> None:
    page.goto(f"{address}/patching")
    expect(page.locator("#patching-legend")).to_contain_text("not significant, or inside the null band")
    expect(page.locator("#patching-legend")).not_to_contain_text("planted")
    page.locator("#truth").check()
    expect(page.locator("#patching-legend")).to_contain_text("planted")
    expect(page.locator("#patching-graph .shapelayer path")).to_have_count(10)
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.locator("#truth-table")).to_contain_text("tf3, tf4")


def test_two_maps_are_compared(page: Page, address: str) -> None:
    page.goto(f"{address}/comparison")
    agreement = "8 single blocks (sets of blocks are left out) over the common concepts: 1.00"
    expect(page.locator("#compare-numbers")).to_contain_text(agreement)
    expect(page.locator("#compare-numbers")).to_contain_text("significant or not, 3 are the same: tf3, tf4")
    expect(page.locator("#patching-compare-graph")).to_contain_text("0.93")
    expect(page.locator("#compare-scatter .scatterlayer .trace")).to_have_count(4)
    page.locator("#compare-other").click()
    page.get_by_role("option", name="paper, deep").click()
    expect(page.locator("#compare-notes")).to_contain_text("study has 8 blocks and paper, deep has 12")
    expect(page.locator("#compare-matched")).to_be_hidden()
    page.locator("#compare-result").click()
    page.get_by_role("option", name="steps").click()
    expect(page.locator("#compare-notes")).to_contain_text("compare a result of the question 'blocks'")


@pytest.mark.parametrize(
    "view",
    ["/patching?concept=tempo&arm=tf3", "/patching?result=steps", "/steering?arm=vector+×+2", "/comparison"],
)
def test_nothing_is_wider_than_the_window(page: Page, address: str, view: str) -> None:
    page.set_viewport_size({"width": 1000, "height": 900})
    page.goto(f"{address}{view}")
    expect(page.locator(".graph .main-svg").first).to_be_visible()
    for width in (1000, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_long_sentence_among_a_cells_numbers_is_wrapped(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/patching?concept=tempo&arm=tf3")
    expect(page.locator(".graph .main-svg").first).to_be_visible()
    # Plots may be wider at first. The page's policy forbids scripts that look at it again and again.
    expect(page.locator("html")).to_have_js_property("scrollWidth", 1280)
    number = page.locator("#cell-numbers .number").last
    number.evaluate("element => { element.textContent = 'smallest possible p is 0.25; '.repeat(8); }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_what_is_chosen_and_scored_is_not_cut(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/patching?concept=tempo&arm=tf3")
    expect(page.locator("#patching-column")).to_have_value("both directions")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".controls input")].every((box) => box.scrollWidth <= box.clientWidth)"""
    )
    expect(
        page.locator("#pairs-grid .ag-header-cell[col-id='patched']")
    ).to_be_visible()  # the cell's part comes later
    page.wait_for_function(
        """() => {
            const right = (name) => document.querySelector(name).getBoundingClientRect().right;
            return right("#pairs-grid .ag-header-cell[col-id='patched']") <= right("#pairs-grid");
        }"""
    )


def test_no_text_of_a_feature_lies_over_another(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/features?sae=tf3.cross_attn&feature=16")
    expect(page.locator("#feature-graph .bars path").first).to_be_visible()
    assert (
        page.locator("#feature-graph text:visible").evaluate_all(
            """texts => {
            const boxes = texts.filter((one) => one.textContent).map((one) => one.getBoundingClientRect());
            const graph = document.querySelector("#feature-graph").getBoundingClientRect();
            const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3
                && b.top < a.bottom - 3;
            return texts.filter((one) => one.textContent).flatMap((one, place) => [
                ...boxes.slice(place + 1).filter((box) => over(boxes[place], box)).map(() => one.textContent),
                ...(boxes[place].right > graph.right + 1 ? [one.textContent] : []),
            ]);
        }"""
        )
        == []
    )


def test_a_probe_shows_its_folds(page: Page, address: str) -> None:
    page.goto(f"{address}/probes")
    click_cell(page, "probes-graph", 2.5, 3.5, axes="4")  # the fourth map: drums at tf3, third step
    expect(page.locator("#probe-numbers")).to_contain_text("drums at tf3.cross_attn, step 4")
    expect(page.locator("#probe-folds-graph .bars path")).to_have_count(10)
    assert selection(page) == {"concept": "drums", "site": "tf3.cross_attn", "step": "4"}
    page.locator("#probes-quantity").click()
    page.get_by_role("option", name="selectivity").click()
    expect(page.locator("#probes-graph")).to_contain_text("selectivity")
    assert selection(page)["quantity"] == "selectivity"


def test_a_feature_is_found_heard_and_drawn(page: Page, address: str) -> None:
    page.goto(f"{address}/features")
    page.locator(".help").first.focus()
    expect(page.get_by_role("tooltip")).to_contain_text("density, the fraction of tokens")
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_have_count(0)
    page.locator("#feature-search").fill("trumpet")
    rows = page.locator("#features-grid .ag-center-cols-container .ag-row")
    expect(rows).to_have_count(4)
    page.locator("#features-grid .ag-row[row-id='16']").click()
    expect(page.locator("#feature-label")).to_contain_text(
        "(highest: instrument=trumpet, AUROC 0.97 [0.92, 0.99]"
    )
    expect(page.locator("#feature-graph .bars path").first).to_be_visible()
    expect_playable(page.locator("#feature-clips .player"), 5)
    for name in ("overlay", "strip"):
        picture = page.locator(f"#feature-clips img.{name}").first.element_handle()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture)
    page.locator("#feature-quantiles").click()
    expect_playable(page.locator("#feature-samples .player"), 3)
    assert selection(page) == {"sae": "tf3.cross_attn", "feature": "16"}
    page.get_by_role("tab", name="Training and quality").click()
    expect(page.locator("#sae-training-graph .scatterlayer .trace")).to_have_count(4)
    expect(page.locator("#sae-quality-graph .scatterlayer .trace")).to_have_count(4)
    page.go_back()
    selected = page.locator("#features-grid .ag-row-selected").first
    expect(selected).to_have_attribute("row-id", "16")
    selected.click()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#feature-numbers")).to_contain_text("29")
    expect(selected).to_have_attribute("row-id", "29")
    page.go_back()
    expect(page.locator("#feature-numbers")).to_contain_text("16")
    expect(selected).to_have_attribute("row-id", "16")
    page.locator("#feature-search").fill("no feature has this")
    expect(rows).to_have_count(0)
    page.locator("#feature-search").fill("")
    expect(rows).not_to_have_count(0)
    page.locator("#feature-neighbours a").first.focus()
    page.keyboard.press("/")
    expect(page.locator("#feature-search")).to_be_focused()


def test_prints_name_the_study_and_the_selection_and_cut_nothing(
    page: Page, address: str, study: Study
) -> None:
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 without its margins
    page.emulate_media(media="print", color_scheme="dark")
    for view, chosen, shown in (
        ("/features?feature=16", "#sae-name", "#feature-clips .clip"),
        ("/clip?clip=2&second=0.5&step=4", "#firing-step", "#firing-features td"),
        ("/lab?clip=2", "#lab-prompt", "#lab-status"),
    ):
        page.goto(f"{address}{view}")
        expect(page.locator(".print-only")).to_have_text(f"Study: {study.path.name}")
        expect(page.locator(chosen)).to_be_visible()
        expect(page.locator(chosen)).to_have_css("background-color", "rgb(255, 255, 255)")
        expect(page.locator(shown).first).to_be_visible()
        page.wait_for_function(
            """() => {
                const right = (one) => one.getBoundingClientRect().right;
                const parts = [...document.querySelectorAll("#page :is(table, .clip, .controls)")];
                return parts.every((one) => right(one) <= right(one.closest(".mantine-Paper-root")));
            }"""
        )


def test_all_columns_of_the_features_fit_beside_the_card(page: Page, address: str) -> None:
    page.goto(f"{address}/features")
    expect(page.locator("#features-grid .ag-center-cols-container .ag-row").first).to_be_visible()
    for value in (None, "mood=sad"):
        if value:
            page.locator("#feature-value").click()
            page.get_by_role("option", name=value).click()
            expect(page.locator("#features-grid .ag-header-cell[col-id='share']").first).to_be_visible()
        page.wait_for_function(
            """() => {
                const room = document.querySelector("#features-grid .ag-center-cols-viewport");
                const heads = [...document.querySelectorAll("#features-grid .ag-header-cell-text")];
                return room.scrollWidth <= room.clientWidth && heads.every((one) => one.scrollWidth <= one.clientWidth);
            }"""
        )


def test_values_that_cannot_be_compared_stay_in_the_address_and_are_named(page: Page, address: str) -> None:
    page.goto(f"{address}/features?value=mood%3Dsad&against=drums%3Dwith+drums")
    expect(page.locator("#remarks")).to_contain_text("There is no against 'drums=with drums' here")
    assert selection(page) == {"value": "mood=sad", "against": "drums=with drums"}
    page.locator("#feature-value").click()
    page.get_by_role("option", name="drums=without drums").click()
    expect(page.locator("#features-ranked")).to_contain_text("and all with drums=with drums")
    assert selection(page) == {"value": "drums=without drums", "against": "drums=with drums"}


def test_features_selected_as_fast_as_keys_repeat_are_not_undone(page: Page, address: str) -> None:
    page.goto(f"{address}/features")
    rows = "#features-grid .ag-center-cols-container .ag-row"
    sought: list[str] = []  # what the server was asked to find in the table, which has it selected already
    page.on(
        "request",
        lambda request: (
            sought.append(request.url) if '"features-place' in (request.post_data or "") else None
        ),
    )
    page.locator(f'{rows}[row-index="0"]').click()
    expect(page.locator("#feature-numbers")).to_contain_text("density")
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    row = page.locator(f'{rows}[row-index="20"]')
    expect(row).to_have_class(re.compile("ag-row-selected"))
    page.wait_for_function(
        "(feature) => new URLSearchParams(location.search).get('feature') === feature",
        arg=row.get_attribute("row-id"),
    )
    assert sought == []


def test_a_selected_feature_stays_on_its_card_outside_of_an_area_of_the_map(page: Page, address: str) -> None:
    page.goto(f"{address}/features?sae=tf3.cross_attn&feature=16&view=map")
    drawn = page.locator("#map-graph .nsewdrag")
    expect(page.locator("#map-graph .scatterlayer .trace").first).to_be_visible()
    box = drawn.bounding_box()
    assert box is not None
    outside = page.locator("#features-outside")
    # All axes of these decoders are alike, so that it depends on the processor in which half the feature is.
    is_right = page.evaluate(
        """() => {
            const { plotOf, targets } = workbench.maps, graph = document.getElementById("map-graph");
            const { _fullData: traces, _fullLayout: layout } = plotOf(graph);
            const one = targets(graph).find(({ curve, number }) => String((traces[curve].text || [])[number]) === "16");
            return one.x > layout.xaxis._offset + layout.xaxis._length / 2;
        }"""
    )
    page.mouse.move(box["x"] + (2 if is_right else box["width"] - 2), box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2, steps=5)
    page.mouse.up()
    expect(page.locator("#area-said")).to_contain_text("features in an area of the map")
    assert selection(page)["feature"] == "16"
    expect(page.locator("#feature-numbers")).to_contain_text("16")
    expect(outside).to_have_text("Feature 16, which the card shows, is not among them.")
    page.locator("#area-clear").click()
    expect(outside).to_have_text("")
    expect(page.locator("#features-grid .ag-row-selected").first).to_have_attribute("row-id", "16")
    page.locator("#feature-search").fill("tempo")
    expect(outside).to_have_text("Feature 16, which the card shows, is not among them.")
    page.locator("#features-grid .ag-center-cols-container .ag-row").first.click()
    expect(outside).to_have_text("")


def test_the_second_and_step_of_a_clip_are_chosen_by_key_and_click_and_marked(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/clip?clip=2")
    steps, chosen = page.locator("#firing-steps"), page.locator("#firing-chosen")
    picture = page.locator("#firing-picture .picture")
    mark = "element => getComputedStyle(element, '::after').display"
    expect(chosen).to_contain_text("Marked: all seconds, all steps.")
    assert (steps.evaluate(mark), picture.evaluate(mark)) == ("none", "none")
    steps.focus()
    for key in ["ArrowRight"] * 4 + ["ArrowDown"] * 2:  # as fast as keys repeat
        page.keyboard.press(key)
    expect(chosen).to_contain_text("Marked: 0.28 s, step 2.")
    assert selection(page) == {"clip": "2", "second": "0.28", "step": "2"}
    assert (steps.evaluate(mark), picture.evaluate(mark)) == ("block", "block")
    box = steps.bounding_box()
    assert box is not None
    steps.click(position={"x": 0.5 * box["width"], "y": 0.9 * box["height"]})
    expect(chosen).to_contain_text("Marked: 1.00 s, step 6.")
    page.go_back()
    expect(chosen).to_contain_text("Marked: 0.28 s, step 2.")
    page.keyboard.press("Escape")
    expect(chosen).to_contain_text("Marked: all seconds, all steps.")


def test_a_steered_prompt_is_heard_at_every_strength(page: Page, address: str) -> None:
    page.goto(f"{address}/steering")
    expect(page.locator("#steering-facts")).to_contain_text("embedded clearly tells the real prompts apart")
    points = page.locator("#ladder-graph .scatterlayer .point")
    expect(points).to_have_count(2)
    expect(
        page.locator("#vector-reliability-graph .main-svg").first
    ).to_be_visible()  # moves nothing any more
    points.nth(1).scroll_into_view_if_needed()
    box = points.nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#ladder-graph .hoverlayer")).to_contain_text("vector × 2")
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("#steered-numbers")).to_contain_text("0.450 [0.410, 0.490]")
    expect_playable(page.locator("#steered-players .ab-side"), 5)
    assert selection(page) == {"arm": "vector × 2"}
    page.locator("#steered-grid .ag-row[row-id='1-0']").click()
    expect(page.locator("#steered-players audio").first).to_have_attribute(
        "src", "/audio/steering/1/vector_%C3%97_-1.flac"
    )
    page.locator("#steering-shown").click()
    page.get_by_role("option", name="mood").click()
    expect(page.locator("#steered-numbers")).to_contain_text("change in mood")
    expect(page.locator("#dose-response-graph")).to_contain_text("change in score for mood")
    assert selection(page) == {"arm": "vector × 2", "pair": "1", "seed": "0", "shown": "mood"}
    # Fast clicks on other concepts' cells: the select of the concept follows, and must undo none.
    for x, y in ((0.5, 2.5), (2.5, 2.5), (1.5, 2.5), (0.5, 2.5), (1.5, 2.5), (3.5, 2.5)):
        click_cell(page, "steering-effects-graph", x, y)
    expect(page.locator("#steering-shown")).to_have_value("drums")
    page.wait_for_load_state("networkidle")
    expect(page.locator("#steering-shown")).to_have_value("drums")
    assert selection(page)["shown"] == "drums"


def test_a_link_opens_the_same_view(page: Page, address: str) -> None:
    page.goto(f"{address}/features?sae=tf4.cross_attn&feature=7")
    expect(page.locator("#feature-label")).to_contain_text("tempo=slow")
    expect(page.locator("#features-grid .ag-row[row-id='7']")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#sae-name")).to_have_value(re.compile("^tf4"))
    page.locator("#feature-neighbours a").first.click()
    expect(page.locator("#feature-numbers")).to_contain_text("8")
    assert selection(page) == {"sae": "tf4.cross_attn", "feature": "8"}


@pytest.mark.parametrize(
    ("view", "key", "format", "stem"),
    [
        ("/patching", "patching", "PDF", "patching-blocks"),
        ("/patching?concept=drums&arm=tf3", "patching-pairs", "PNG", "patching-pairs-blocks-drums-tf3"),
        ("/comparison", "patching-compare", "PDF", "patching-compare-blocks-sufficiency-embedded-vs-other"),
        (
            "/features?sae=tf3.cross_attn&feature=5",
            "feature-clip-6",
            "SVG",
            "feature-clip-tf3.cross_attn-5-clip6",
        ),
    ],
)
def test_a_figure_is_exported(
    page: Page, address: str, study: Study, tmp_path: Path, view: str, key: str, format: str, stem: str
) -> None:
    page.goto(address + view)
    if key.startswith("patching"):  # not the empty graph before it, of which there is nothing to export
        expect(page.locator(f"#{key}-graph .xtick text").first).to_be_visible()
    page.locator(f".export[data-key='{key}'] summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=format, exact=True).click()
    assert download.value.suggested_filename == f"{stem}.zip"
    download.value.save_as(tmp_path / "figure.zip")
    names = [f"{stem}.{suffix}" for suffix in (format.lower(), "csv", "json", "tex", "txt")]
    with zipfile.ZipFile(io.BytesIO((tmp_path / "figure.zip").read_bytes())) as archive:
        assert archive.namelist() == names
        for name in names:
            assert archive.read(name) == (study.path / "figures" / name).read_bytes()


def test_a_short_table_is_printed_whole(page: Page, address: str) -> None:
    page.goto(f"{address}/patching?shown=all&concept=instrument&arm=tf0")
    table, last = page.locator("#pairs-grid"), page.locator("#pairs-grid .ag-row").last
    expect(last).to_be_visible()
    page.evaluate("() => document.getElementById('pairs-grid').style.height = '90px'")  # of one row
    fits = """() => {
        const end = (one) => one.getBoundingClientRect().bottom, table = document.getElementById("pairs-grid");
        return [...table.querySelectorAll(".ag-center-cols-container .ag-row")].every(row => end(row) <= end(table));
    }"""
    assert not page.evaluate(fits)
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(fits)
    assert table.evaluate("table => table.offsetHeight") < 400
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert table.evaluate("table => table.style.height") == "90px"


def test_a_print_names_what_it_shows_and_is_no_wider_than_the_sheet(page: Page, address: str) -> None:
    page.goto(f"{address}/evaluation")
    expect(page.locator("#leakage-graph .colorbar")).to_be_visible()
    expect(page.locator("#evaluation-grid .ag-cell").first).to_be_visible()
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1031})  # a sheet of A4 without its margins
    expect(page.get_by_text("Study: study", exact=True)).to_be_visible()
    expect(page.locator("p.print-only")).to_contain_text("result: strict  ·  concept: mood")
    parts = page.locator("#evaluation-grid, #evaluation-strict .main-svg:first-child")
    ends = parts.evaluate_all("parts => parts.map(part => part.getBoundingClientRect().right)")
    assert len(ends) == 4
    assert all(0 < end <= 703 for end in ends)
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(page.locator("p.print-only")).to_have_count(0)
