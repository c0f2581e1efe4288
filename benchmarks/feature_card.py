"""Browsing the features of an autoencoder of real size: seconds from a click on a feature until its card is drawn.

Run as `python -m benchmarks.feature_card`; needs Chromium (`playwright install chromium`, or `--chromium PATH`). The
study is synthetic: 16,384 features, their codes in clips of 10 s (250 tokens, 8 steps, 64 active features for each),
and stereo recordings at 48 kHz. Its dashboard runs in a process of its own, as `workbench dashboard` does, and is used
with the mouse. No clip is shown twice, so that every spectrogram must be drawn. Writes results/feature_card.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright
from pydantic import BaseModel

from analyses.sae.codes import CODES, Axes, ClipCodes, write_codes
from benchmarks._result import RESULTS, write_result
from tests.dashboards import synthetic_study
from workbench.audio import write_flac
from workbench.studies.study import Study

SITE = "tf3.cross_attn"
FEATURES, ACTIVE, TOKENS = 16_384, 64, 250
STEPS = tuple(range(8))
SECONDS, RATE = 10.0, 48_000
PROMPTS, CLIPS_OF_PROMPT = 28, 2
CLICKS, CLIPS_OF_CARD = 11, 5
"""Clicks that are measured, each on a feature with clips of its own; the first, which loads what draws, is not."""
SERVER = """
import sys
from pathlib import Path
from dashboards.address import Address
from dashboards.app import serve
serve(Path(sys.argv[1]), Address(port=int(sys.argv[2])), compare=Path(sys.argv[3]) if sys.argv[3:] else None)
"""
# Resolves to the milliseconds until graph and pictures of a feature are drawn, counted from the mouse button's press.
TIMER = """
feature => {
  window.drawn = new Promise(resolve => document.addEventListener("mousedown", () => {
    const pressed = performance.now(), graph = document.querySelector("#feature-graph .js-plotly-plot");
    let plotted = 0;
    graph.on("plotly_afterplot", () => { plotted = performance.now(); });
    const look = () => {
      const pictures = [...document.querySelectorAll("#feature-clips img")];
      const isNew = pictures.some(picture => picture.src.includes(`/${feature}/`));
      const isDrawn = isNew && plotted && pictures.every(picture => picture.complete && picture.naturalWidth);
      isDrawn ? requestAnimationFrame(() => resolve([performance.now() - pressed, pictures.length]))
              : requestAnimationFrame(look);
    };
    look();
  }, { once: true, capture: true }));
}
"""


class _Spec(BaseModel, frozen=True):
    """A stand-in for the options of a training."""

    note: str = "synthetic"


def make_study(folder: Path) -> Study:
    """Write the study: clips, the result of an autoencoder, and its codes."""
    sizes: dict[str, Any] = {
        "FEATURES": FEATURES,
        "SAE_SITES": (SITE,),
        "TOKENS": TOKENS,
        "STEPS": STEPS,
        "SIGMAS": tuple(np.linspace(1.0, 0.3, len(STEPS)).tolist()),
        "SECONDS": SECONDS,
        "PROMPTS": PROMPTS,
        "CLIPS_OF_PROMPT": CLIPS_OF_PROMPT,
    }
    with patch.multiple(synthetic_study, **sizes):
        study = synthetic_study.make_study(folder, results=False)
        result = synthetic_study.sae_result(SITE, len(study.clips))
    study.save_result(f"sae-{SITE}", result, _Spec(), seconds=1.0)
    random = np.random.default_rng(0)
    clips = study.clips["clip"].tolist()
    for clip in clips:
        write_flac(study.audio_path(clip), _recording(random), RATE)
    codes = (_codes(random) for _ in clips)
    write_codes(study.path, Path("sae", SITE, CODES), clips, codes, Axes.of_plan(study.cache.plan))
    return study


def _recording(random: np.random.Generator) -> np.ndarray:
    """Two channels of noise over tones, [channel, sample]."""
    time = np.arange(int(SECONDS * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in random.uniform(80, 4000, 4))
    return (0.1 * tones + 0.05 * random.standard_normal((2, len(time)))).astype(np.float32)


def _codes(random: np.random.Generator) -> ClipCodes:
    """Random features, `ACTIVE` for each row."""
    feature = np.sort(random.integers(FEATURES, size=len(STEPS) * TOKENS * ACTIVE))
    pointer = np.searchsorted(feature, np.arange(FEATURES + 1)).astype(np.int32)
    row = random.integers(len(STEPS) * TOKENS, size=len(feature)).astype(np.int32)
    return ClipCodes(pointer, row, random.exponential(size=len(feature)).astype(np.float32))


@contextmanager
def served(study: Study, port: int, *compare: Path) -> Iterator[psutil.Process]:
    """Run the dashboard in a process of its own, beside another study if one is given; yields it once it answers."""
    command = [sys.executable, "-c", SERVER, str(study.path), str(port), *map(str, compare)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            if "http://" not in (first := server.stderr.readline()):
                raise SystemExit(first + server.stderr.read())
            yield psutil.Process(server.pid)
        finally:
            server.terminate()


def click(page: Page, server: psutil.Process, feature: int) -> dict[str, float]:
    """Click a feature in the table; return the milliseconds until its card is drawn, and those of the server's work."""
    row = page.locator(f'#features-grid .ag-center-cols-container .ag-row[row-id="{feature}"]')
    row.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.evaluate(TIMER, feature)
    before = sum(server.cpu_times()[:2])
    row.click()
    milliseconds, pictures = page.evaluate("() => window.drawn")
    assert pictures == 3 * CLIPS_OF_CARD, f"{pictures} pictures"
    page.wait_for_timeout(500)  # let the last requests end
    work = 1000 * (sum(server.cpu_times()[:2]) - before)
    return {"milliseconds": milliseconds, "server_cpu_milliseconds": work, "load": os.getloadavg()[0]}


def browse(study: Study, port: int, chromium: str | None) -> dict[str, Any]:
    """Measure the start of the dashboard, its first page, clicks and memory."""
    began = time.perf_counter()
    with served(study, port) as server, sync_playwright() as playwright:
        started = time.perf_counter() - began
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/features")
        page.locator("#features-grid .ag-center-cols-container .ag-row").first.wait_for(timeout=120_000)
        first_page = time.perf_counter() - began
        page.wait_for_timeout(3000)
        clicks = [click(page, server, CLIPS_OF_CARD * number) for number in range(CLICKS)][1:]
        memory = server.memory_info().rss
        browser.close()
    return {
        "start_seconds": started,
        "first_page_seconds": first_page,
        "clicks": clicks,
        "median_milliseconds": statistics.median(one["milliseconds"] for one in clicks),
        "median_server_cpu_milliseconds": statistics.median(one["server_cpu_milliseconds"] for one in clicks),
        "server_megabytes": memory / 1e6,
    }


def main() -> None:
    """Measure and write results/feature_card.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", help="the browser's program, if it is not Playwright's own")
    parser.add_argument("--port", type=int, default=8190)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        metrics = browse(make_study(Path(folder)), options.port, options.chromium)
    print(write_result("feature_card", metrics, "cpu", options.out).read_text())


if __name__ == "__main__":
    main()
