"""The page of features with 40,000 features and 5,000 clips, as a person uses it in a real browser.

Run as `python -m benchmarks.dashboard_features`; needs Chromium (`playwright install chromium`, or `--chromium PATH`).
The study is synthetic; its dashboard runs in a process of its own, as `workbench dashboard` does. Times are counted in
the browser, from the key or mouse button until the answer is on the screen. Writes results/dashboard_features.json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, Request, sync_playwright
from pydantic import BaseModel

from analyses.sae.codes import CODES, Axes, ClipCodes, write_codes
from benchmarks._result import RESULTS, write_result
from benchmarks.feature_card import served
from tests.dashboards import synthetic_study
from workbench.studies.study import Study

SITE = "tf3.cross_attn"
FEATURES, PROMPTS, CLIPS_OF_PROMPT, ACTIVE = 40_000, 50, 100, 64
LOADS, REPEATS = 5, 5
ROWS = "#features-grid .ag-center-cols-container .ag-row"
# Starts with the next key or mouse button; resolves to milliseconds until the count below the table (and, unless there
# are none, its first row) is another, or until a feature is selected in the table and its card has its numbers, label,
# scores and top clips, then until the pictures of these are drawn.
TIMER = """
feature => {
  const text = (where) => (document.querySelector(where) || { innerText: "" }).innerText;
  const first = () => text('#features-grid .ag-row[row-index="0"] [col-id="feature"]');
  const pictures = () => [...document.querySelectorAll("#feature-clips img")];
  const before = [text("#features-count"), first()];
  const isChanged = () => feature === null
    ? text("#features-count") !== before[0] || (first() !== before[1] && first() !== "")
    : text("#feature-numbers").split("\\n").includes(feature)
      && text('#features-grid .ag-row-selected [col-id="feature"]') === feature
      && text("#feature-label") && document.querySelector("#feature-scores table")
      && pictures().some((one) => one.src.includes(`/${feature}/`));
  const isDrawn = () => pictures().every((one) => one.complete && one.naturalWidth);
  window.answered = new Promise(resolve => {
    let began = 0, shown = 0;
    const look = () => {
      shown = shown || (isChanged() ? performance.now() : 0);
      shown && (feature === null || isDrawn())
        ? resolve([shown - began, performance.now() - began]) : requestAnimationFrame(look);
    };
    const begin = () => { if (!began) { began = performance.now(); look(); } };
    ["input", "mousedown", "keydown"].forEach(kind =>
      document.addEventListener(kind, begin, { once: true, capture: true }));
  });
}
"""


class _Spec(BaseModel, frozen=True):
    """A stand-in for the options of a training."""

    note: str = "synthetic"


def make_study(folder: Path) -> Study:
    """Write the study: clips with sound, the result of an autoencoder, and codes, of which all clips have the same."""
    sizes: dict[str, Any] = {
        "FEATURES": FEATURES,
        "SAE_SITES": (SITE,),
        "PROMPTS": PROMPTS,
        "CLIPS_OF_PROMPT": CLIPS_OF_PROMPT,
    }
    with patch.multiple(synthetic_study, **sizes):
        study = synthetic_study.make_study(folder, results=False)
        result = synthetic_study.sae_result(SITE, len(study.clips))
    study.save_result(f"sae-{SITE}", result, _Spec(), seconds=1.0)
    axes = Axes.of_plan(study.cache.plan)
    random = np.random.default_rng(0)
    feature = np.sort(random.integers(FEATURES, size=axes.rows * ACTIVE))
    row = random.integers(axes.rows, size=len(feature)).astype(np.int32)
    pointer = np.searchsorted(feature, np.arange(FEATURES + 1)).astype(np.int32)
    codes = ClipCodes(pointer, row, random.exponential(size=len(feature)).astype(np.float32))
    clips = study.clips["clip"].tolist()
    write_codes(study.path, Path("sae", SITE, CODES), clips[:1], [codes], axes)
    written = study.path / "sae" / SITE / CODES
    for clip in clips[1:]:
        os.link(written / f"{clips[0]:05d}.safetensors", written / f"{clip:05d}.safetensors")
    return study


# Notes when the frame with the first rows has been drawn, in milliseconds since the navigation began.
WATCH = f"""
new MutationObserver((_, observer) => {{
  if (document.querySelector("{ROWS} .ag-cell")) {{
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => {{ window.firstRows = performance.now(); }}));
  }}
}}).observe(document, {{ childList: true, subtree: true }});
"""


def load_new(browser: Browser, address: str) -> dict[str, float]:
    """Open the page with nothing kept by the browser; return milliseconds."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.add_init_script(WATCH)
    rows = load(page, address)
    paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.context.close()
    return {"first_paint": paint, "first_rows": rows}


def load(page: Page, address: str) -> float:
    """Open the page by its address; return milliseconds until the first rows are drawn, as `WATCH` counts them."""
    page.goto(address, wait_until="commit")
    page.wait_for_function("() => window.firstRows", polling=500)
    return float(page.evaluate("() => window.firstRows"))


def come(page: Page, address: str) -> float:
    """Come to the page from the overview, by its link; return milliseconds until the first rows are there."""
    page.goto(address.removesuffix("features"))
    page.locator("#clips-grid .ag-row").first.wait_for()
    page.wait_for_timeout(1500)
    began = time.perf_counter()
    page.get_by_role("link", name="Features", exact=True).click()
    page.locator(f"{ROWS} .ag-cell").first.wait_for()
    return 1000 * (time.perf_counter() - began)


def timed(page: Page, act: Callable[[], object], feature: str | None = None) -> list[float]:
    """Milliseconds until an action is answered, and until pictures are drawn."""
    page.evaluate(TIMER, feature)
    act()
    answered: list[float] = page.evaluate("() => window.answered")
    page.wait_for_timeout(400)
    return answered


def use(page: Page) -> dict[str, list[float]]:
    """Search, filter, sort and select; milliseconds of each."""
    search = page.locator("#feature-search")
    filters = page.locator("#features-grid .ag-floating-filter-input input")
    times: dict[str, list[float]] = {}

    def measure(what: str, act: Callable[[], object], feature: str | None = None) -> None:
        shown, drawn = timed(page, act, feature)
        times.setdefault(what, []).append(shown)
        if feature is not None:
            times.setdefault(f"{what}_with_pictures", []).append(drawn)

    for number in range(REPEATS):
        concept, most = ("drums", "mood", "tempo")[number % 3], f"1%..{2 + number}%"
        measure("search", partial(search.fill, f"trumpet {number}"))
        measure("search_nothing", partial(search.fill, "no feature has this"))
        measure("search_cleared", partial(search.fill, ""))
        measure("filter_text", partial(filters.nth(1).fill, concept))
        measure("filter_range", partial(filters.nth(5).fill, most))
        filters.nth(1).fill("")
        filters.nth(5).fill("")
        page.wait_for_timeout(600)
        heading = page.locator('.ag-header-cell[col-id="density"] .ag-header-cell-label')
        measure("sort", heading.click)
        for _ in range(2):  # descending, and unsorted again
            heading.click()
            page.wait_for_timeout(400)
    page.locator(f'{ROWS}[row-index="0"]').click()  # loads what draws
    page.wait_for_timeout(3000)
    for number in range(1, REPEATS + 1):
        row = page.locator(f'{ROWS}[row-index="{2 * number}"]')
        measure("select", row.click, row.get_attribute("row-id"))
    for _ in range(REPEATS):
        page.keyboard.press("ArrowUp")
        page.wait_for_timeout(500)
        at = int(page.locator("#features-grid .ag-row-selected").first.get_attribute("row-index") or 0)
        before = page.locator(f'{ROWS}[row-index="{at - 1}"]')
        measure("select_by_key", partial(page.keyboard.press, "ArrowUp"), before.get_attribute("row-id"))
    return times


def weigh(sizes: list[int], request: Request) -> None:
    """Note the size of an answer of the page's callbacks in bytes."""
    if "_dash-update-component" in request.url:
        sizes.append(request.sizes()["responseBodySize"])


def browse(study: Study, port: int, chromium: str | None) -> dict[str, Any]:
    """Measure first paint, answers and memory."""
    with served(study, port) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        address = f"http://127.0.0.1:{port}/features"
        first = load_new(browser, address)
        loads = [load_new(browser, address) for _ in range(LOADS)]
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(WATCH)
        came = [come(page, address) for _ in range(LOADS)]
        kept = [load(page, address) for _ in range(LOADS)]
        sent: list[int] = []
        page.on("requestfinished", partial(weigh, sent))
        load(page, address)
        page.wait_for_timeout(2000)
        times = use(page)
        page.goto(f"{address}?sae={SITE}&feature={FEATURES - 1000}", wait_until="commit")
        began = time.perf_counter()
        page.locator("#features-grid .ag-row-selected").first.wait_for()
        linked = 1000 * (time.perf_counter() - began)
        heap = page.evaluate("() => performance.memory.usedJSHeapSize")
        chrome = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
        memory = {
            "server_megabytes": server.memory_info().rss / 1e6,
            "browser_megabytes": sum(one.memory_info().rss for one in chrome) / 1e6,
            "page_heap_megabytes": heap / 1e6,
            "largest_answer_kilobytes": max(sent) / 1e3,
        }
        browser.close()
    return {
        "features": FEATURES,
        "clips": len(study.clips),
        "first_visit_milliseconds": first,
        "median_milliseconds": {
            **{name: statistics.median(one[name] for one in loads) for name in first},
            "first_rows_from_the_overview": statistics.median(came),
            "first_rows_loaded_again": statistics.median(kept),
            "link_to_selected_row": linked,
            **{name: statistics.median(values) for name, values in times.items()},
        },
        "largest_milliseconds": {name: max(values) for name, values in times.items()},
        "memory": memory,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and write results/dashboard_features.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", help="the browser's program, if it is not Playwright's own")
    parser.add_argument("--port", type=int, default=8191)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        metrics = browse(make_study(Path(folder)), options.port, options.chromium)
    print(write_result("dashboard_features", metrics, "cpu", options.out).read_text())


if __name__ == "__main__":
    main()
