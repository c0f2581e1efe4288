"""The dashboard as in a long session, in a real browser: each cell clicked, 200 interactions, sound, wrong addresses.

Run as `python -m benchmarks.dashboard_use [STUDY]`; needs Chromium (`playwright install chromium`, or `--chromium
PATH`). Without a study, one with results of every kind is made; a given one is copied first. The dashboard runs in a
process of its own, as `workbench dashboard` does. Writes results/dashboard_use.json, and ends with an error if
anything that is counted is wrong.
"""

import argparse
import os
import random
import shutil
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from playwright.sync_api import BrowserContext, TimeoutError, sync_playwright
from pydantic import BaseModel

from benchmarks._result import RESULTS, write_result
from benchmarks.browser.pages import APPEAR, NAMES, PLAYING, STEPS, WRONG, Map, maps_of, shown_paths
from benchmarks.browser.tab import Step, Tab
from benchmarks.feature_card import served
from tests.dashboards.synthetic_benchmark import SPEC, benchmark
from tests.dashboards.synthetic_study import OWN, make_study, part_arms, patching_result, save_changed
from workbench.studies.study import Study

INTERACTIONS, COMPARED, MOST_RATIO = 200, 10, 1.2
BURSTS, CLICKS_OF_BURST, SELECTIONS, ROUNDS = 12, 4, 20, 5
CALLBACKS = 10  # answered while a sound plays
WAIT_MS = 15_000  # for the cell that was clicked, on a busy machine
TRIAL = "steering-benchmark-strict-tempo-towards-report"
UNSTEERED = ("clean", "corrupt")  # rows of the map of steering that are no arms


class _Spec(BaseModel, frozen=True):
    """A stand-in for the options of an analysis."""

    note: str = "synthetic"


def make(folder: Path) -> tuple[Study, Path]:
    """Write the study with results of every kind, and another one to compare it with."""
    study = make_study(folder)
    other = Study.open(shutil.copytree(study.path, folder / "other"))
    save_changed(other, "patching-blocks", 0.5)
    study.save_result("patching-parts", patching_result(study, "parts", part_arms()), _Spec(), seconds=1.0)
    trial = study.result("steering-tempo")
    for name in ("arm", "row", "null_of", "way"):
        (dim,) = trial[name].dims
        renamed = [str(value).replace("vector", "caa (all)") for value in trial[name].values]
        trial = trial.assign_coords({name: (dim, renamed)})
    trial.attrs = {name: value for name, value in trial.attrs.items() if name not in OWN}
    study.save_result(TRIAL, trial, _Spec(note="trial"), seconds=1.0)
    trials = {study.result_attributes(TRIAL)["result_id"]: "tempo-towards-report"}
    study.save_result(
        "benchmark-strict", benchmark(), SPEC.model_copy(update={"trials": trials}), seconds=1.0
    )
    return study, other.path


def click_all(tab: Tab, one: Map) -> dict[str, int]:
    """Click every cell of a map, then fast bursts of cells, of which the last must be shown."""
    open_map(tab, one)
    found = tab.targets(one.graph)
    right = 0
    for target in found:
        tab.hit(one.graph, target)
        right += is_shown(tab, one, target)
    bursts = 0
    for _ in range(BURSTS):
        target = {}
        for _ in range(CLICKS_OF_BURST):
            target = random.choice(tab.targets(one.graph))
            tab.hit(one.graph, target)
            tab.page.wait_for_timeout(random.choice((0, 10, 30, 80)))
        bursts += is_shown(tab, one, target)
    return {"cells": len(found), "right": right, "bursts": BURSTS, "bursts_right": bursts}


def open_map(tab: Tab, one: Map) -> None:
    """Open the map's page, until the map is drawn."""
    first = one.first or one.graph
    tab.open(one.view, f"#{first} .main-svg")
    if one.first:
        tab.do(Step("cell", one.first), 0)
        tab.settle(500)  # a graph that was hidden gets its width once it is seen


def is_shown(tab: Tab, one: Map, target: dict[str, Any]) -> bool:
    """Whether URL and detail show a cell, also once the page is quiet."""
    asked = dict(zip(one.parts, target["about"], strict=False))
    if asked.get("arm") in UNSTEERED:
        asked["arm"] = None
    words = [asked[name] for name in one.said if asked.get("arm", True) is not None]
    script = """([asked, detail, words]) => {
        const query = new URLSearchParams(location.search), place = document.querySelector(detail);
        return Object.entries(asked).every(([name, value]) => query.get(name) === value)
            && words.every(word => place.textContent.includes(word));
    }"""
    given = [asked, one.detail, words]
    try:
        tab.page.wait_for_function(script, arg=given, timeout=WAIT_MS)
    except TimeoutError:
        print("wrong", one.view, one.graph, asked, tab.page.url, flush=True)
        return False
    tab.settle()
    return bool(tab.page.evaluate(script, given))


def interact(tab: Tab, path: str) -> dict[str, Any]:
    """Do a page's steps in turn, 200 in all; for each, the last ten times over the first ten."""
    steps = steps_of(tab, path)
    times: dict[str, list[float]] = {step.name: [] for step in steps}
    for number in range(INTERACTIONS):
        step = steps[number % len(steps)]
        times[step.name].append(tab.do(step, number // len(steps)))
    ends = {
        name: [statistics.median(part) for part in (each[1 : 1 + COMPARED], each[-COMPARED:])]
        for name, each in times.items()
    }
    return {
        "median_milliseconds": {name: round(statistics.median(each), 1) for name, each in times.items()},
        "last_over_first": {name: round(last / max(first, 1.0), 3) for name, (first, last) in ends.items()},
    }


def steps_of(tab: Tab, path: str) -> list[Step]:
    """Open a page; the steps for which it has what they need."""
    tab.open(path, APPEAR.get(path, "#page h1"))
    first, *others = STEPS[path]
    tab.do(first, 1)
    return [first, *(step for step in others if tab.page.locator(f"#{step.where}").is_visible())]


def go_back(tab: Tab, path: str) -> dict[str, int]:
    """Make 20 selections, go back over all and forward again; each must show what it did."""
    steps = [step for step in steps_of(tab, path) if step.kind != "type"]
    trail = [(tab.page.url, tab.state())]
    for number in range(SELECTIONS):
        tab.do(steps[number % len(steps)], number)
        if tab.page.url != trail[-1][0]:
            tab.settle(250)
            trail.append((tab.page.url, tab.state()))
    right = 0
    for move, seen in ((tab.page.go_back, trail[-2::-1]), (tab.page.go_forward, trail[1:])):
        for url, state in seen:
            move()
            tab.settle(250)
            right += (tab.page.url, tab.state()) == (url, state)
            if (tab.page.url, tab.state()) != (url, state):
                print(
                    "differs", move.__name__, url, state, tab.page.url, tab.state(), sep="\n   ", flush=True
                )
    return {"moves": 2 * (len(trail) - 1), "right": right}


def use_two(tab: Tab, other: Tab, path: str) -> dict[str, int]:
    """Use two tabs in turn; what one does must leave the other as it was."""
    steps, _ = steps_of(tab, path), steps_of(other, path)
    undisturbed = 0
    for number in range(ROUNDS):
        for here, there, by in ((tab, other, 0), (other, tab, 3)):
            before = there.state()
            here.do(steps[number % len(steps)], number + by)
            there.settle()
            undisturbed += there.state() == before
    return {"turns": 2 * ROUNDS, "undisturbed": undisturbed}


def go_wrong(tab: Tab) -> dict[str, int]:
    """Open wrong addresses of every page; each must show the page and a sentence."""
    visits = said = 0
    for path, names in NAMES.items():
        for number, value in enumerate(WRONG):
            search = "?" + "&".join(f"{name}={quote(value, safe='')}" for name in names)
            if number == 0:
                tab.open(path + search)
            else:
                show = "([pathname, search]) => dash_clientside.set_props('url', { pathname, search })"
                tab.page.evaluate(show, [path, search])
                tab.settle(100)
            visits += 1
            is_right = tab.page.evaluate(
                """() => document.querySelector("#page h1") && document.querySelector("#remarks").textContent
                    && !document.querySelector("x-evil") && !document.body.textContent.includes("This is a bug")"""
            )
            said += bool(is_right)
            if not is_right:
                print("no sentence", path, search[:120], flush=True)
    return {"addresses": visits, "with_a_sentence": said}


def appear(study: Study, context: BrowserContext, address: str, faults: list[str]) -> dict[str, float]:
    """Seconds until each page that is open without results shows them once they are there; -1 if it does not."""
    aside = study.path / "aside"
    (study.path / "results").rename(aside)
    tabs = {path: Tab(context, address, faults) for path in shown_paths(aside)}
    for path, tab in tabs.items():
        tab.open(path, "#page .empty")
    aside.rename(study.path / "results")
    began, found = time.perf_counter(), {}
    for path, tab in tabs.items():
        tab.page.bring_to_front()
        try:
            tab.page.locator(APPEAR[path]).first.wait_for()
            found[path] = round(time.perf_counter() - began, 1)
        except TimeoutError:
            found[path] = -1.0
        tab.page.close()
    return found


def play(tab: Tab, view: str, study: Study) -> dict[str, int]:
    """Play a sound while at least ten callbacks are answered; count what interrupts it."""
    player, before, during = PLAYING[view]
    tab.open(view)
    for number in range(10):
        for step in before:
            tab.do(step, number)
        if tab.page.locator(f"{player} audio").count():
            break
    tab.page.evaluate(
        """player => {
            const host = document.querySelector(player), [button] = host.querySelectorAll(".ab-play");
            window.heard = [...(button ? host : host.querySelector(".player")).querySelectorAll("audio")];
            window.broken = 0;
            heard.forEach(audio => ["pause", "emptied"].forEach(kind =>
                audio.addEventListener(kind, () => { broken += !audio.muted; })));
            button ? host.querySelector(".ab-loop").click() : heard.forEach(audio => { audio.loop = true; });
            button ? button.click() : heard.forEach(audio => audio.play());
        }""",
        player,
    )
    tab.page.wait_for_function("() => heard.every(audio => audio.currentTime > 0.1)")
    start = tab.page.evaluate("() => use.asked")
    file = study.path / "results" / "probes-again.nc"
    for number in range(40):
        step = during[number % len(during)]
        if tab.page.locator(step.where if step.where.startswith("#") else f"#{step.where}").is_visible():
            tab.do(step, number // len(during))
        if number >= 2 * len(during) and tab.page.evaluate("() => use.asked") - start >= CALLBACKS:
            break
    shutil.copy(next((study.path / "results").glob("*.nc")), file)  # what an open page follows
    asked = tab.page.evaluate("() => use.asked")
    tab.page.wait_for_function("before => use.asked > before", arg=asked)
    tab.settle(300)
    file.unlink()
    told = tab.page.evaluate(
        """() => ({
            callbacks: use.asked, recordings: heard.length, interruptions: broken,
            stopped: heard.filter(audio => audio.paused || !audio.isConnected).length,
        })"""
    )
    return {**told, "callbacks": told["callbacks"] - start}


def use(study: Study, other: Path, port: int, chromium: str | None) -> dict[str, Any]:
    """Use every page in every way."""
    faults: list[str] = []
    address = f"http://127.0.0.1:{port}"
    metrics: dict[str, Any] = {}
    with served(study, port, other), sync_playwright() as playwright:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        paths = ["/", *shown_paths(study.path / "results")]

        def each(what: str, keys: list[Any], act: Any) -> None:
            began, found = time.perf_counter(), {}
            for key in keys:
                tab = Tab(context, address, faults)
                name = f"{key.view} {key.graph}" if isinstance(key, Map) else key
                found[name] = act(tab, key)
                print(what, name, found[name], flush=True)
                tab.page.close()
            metrics[what] = found
            print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)

        each("maps", maps_of(study), click_all)
        each("back_and_forward", paths, go_back)
        each("two_tabs", paths, lambda tab, path: use_two(tab, Tab(context, address, faults), path))
        sounding = [view for view in PLAYING if view.partition("?")[0] in paths]
        each("sound", sounding, lambda tab, view: play(tab, view, study))
        each("wrong_addresses", ["all pages"], lambda tab, _: go_wrong(tab))
        metrics["seconds_until_results_appear"] = appear(study, context, address, faults)
        each("interactions", paths, interact)
        browser.close()
    return {**metrics, "faults": faults, "load": os.getloadavg()[0]}


def what_is_wrong(metrics: dict[str, Any]) -> list[str]:
    """A line for each figure that is not as it should be."""
    pairs = (("cells", "right"), ("bursts", "bursts_right"), ("moves", "right"), ("turns", "undisturbed"))
    wrong = [f"fault: {fault}" for fault in metrics["faults"]]
    for what in ("maps", "back_and_forward", "two_tabs", "wrong_addresses", "sound"):
        for name, found in metrics[what].items():
            counts = [
                (found[a], found[b])
                for a, b in (*pairs, ("addresses", "with_a_sentence"))
                if {a, b} <= set(found)
            ]
            if any(one != two for one, two in counts) or found.get("interruptions") or found.get("stopped"):
                wrong.append(f"{what}, {name}: {found}")
    for path, found in metrics["interactions"].items():
        slow = {name: ratio for name, ratio in found["last_over_first"].items() if ratio > MOST_RATIO}
        wrong += [f"{path}: {slow}"] if slow else []
    late = metrics["seconds_until_results_appear"]
    return wrong + [f"{path}: a new result does not appear" for path, seconds in late.items() if seconds < 0]


def main() -> None:
    """Use the dashboard and write results/dashboard_use.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", type=Path, help="a study's folder; by default, one is made")
    parser.add_argument("--chromium", help="the browser's program, if it is not Playwright's own")
    parser.add_argument("--port", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    random.seed(0)
    with TemporaryDirectory() as folder:
        if options.study is None:
            study, other = make(Path(folder))
        else:
            study = Study.open(shutil.copytree(options.study, Path(folder) / "study"))
            other = options.study
        metrics = use(study, other, options.port, options.chromium)
    print(write_result("dashboard_use", metrics, "cpu", options.out).read_text())
    if wrong := what_is_wrong(metrics):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
