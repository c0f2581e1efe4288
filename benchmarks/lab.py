"""The lab on an organism: seconds from the key press until the edited clip can be heard, in a browser.

Run as `python -m benchmarks.lab`; needs Chromium (`playwright install chromium`, or `--chromium PATH`). `workbench lab`
runs in a process of its own. Every clip has another seed and two edits, a vector and a patch, so that both it and the
unedited clip are generated; the next one is asked for when the judges have heard the last. Then the strength is
moved without a pause. Writes results/lab.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from analyses.lab.folder import lab_study
from analyses.steering.caa import caa
from analyses.steering.study_packs import save_pack
from benchmarks._result import RESULTS, write_result
from workbench.models import load_model

MODEL = "organism-shared"
PORT = 8765
CLIPS = 11
"""The first, which loads what draws and plays, is not counted."""
PAIRS = 4
EDITS = [
    {"kind": "steer", "pack": "mood", "strength": 1.0},
    {"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": "a fast happy violin song with drums"},
]
# Resolves to the milliseconds from a key press or the release of the mouse until another recording can be heard.
TIMER = """
event => {
  window.heard = new Promise(resolve => document.addEventListener(event, () => {
    const begun = performance.now();
    const audible = () => [...document.querySelectorAll("#lab-players audio")].find(audio => !audio.muted);
    const before = audible() && audible().currentSrc;
    const look = () => {
      const audio = audible();
      const isNew = audio && audio.currentSrc !== before && audio.readyState >= 3;
      isNew ? resolve(performance.now() - begun) : setTimeout(look, 5);
    };
    look();
  }, { once: true, capture: true }));
}
"""

HEARD_BY_JUDGES = "() => document.querySelector('#lab-status').textContent === 'Ready to be heard.'"


@contextmanager
def served(study: Path) -> Iterator[str]:
    """Run the lab in a process of its own; yields its address once it answers."""
    command = [sys.executable, "-c", "from workbench.cli.main import main; main()", "lab", MODEL]
    command += ["--out", str(study), "--port", str(PORT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            lines = [server.stderr.readline() for _ in range(2)]
            if "http://" not in lines[-1]:
                raise RuntimeError(f"The lab did not start: {''.join(lines)}{server.stderr.read()}")
            yield f"http://127.0.0.1:{PORT}/lab"
        finally:
            server.terminate()


def press(page: Page) -> float:
    """Press the key; return the seconds until the clip can be heard."""
    page.evaluate(TIMER, "keydown")
    page.keyboard.press("g")
    return float(page.evaluate("() => window.heard")) / 1000


def seconds_of_clips(page: Page) -> list[float]:
    """Seconds for clips with other seeds."""
    times = []
    for seed in range(CLIPS):
        page.locator("#lab-seed").fill(str(100_000 + seed))
        page.locator("h1").click()  # leave the field
        times.append(press(page))
        page.wait_for_function(HEARD_BY_JUDGES, timeout=120_000)
    return times[1:]


def seconds_of_strengths(page: Page) -> list[float]:
    """Seconds for other strengths of the last clip."""
    track = page.locator(".lab-strength .mantine-Slider-track").bounding_box()
    assert track is not None
    times = []
    for place in range(CLIPS - 1):
        page.evaluate(TIMER, "mouseup")
        page.mouse.click(
            track["x"] + track["width"] * (0.55 + 0.03 * place), track["y"] + track["height"] / 2
        )
        times.append(float(page.evaluate("() => window.heard")) / 1000)
    return times


def summary(times: list[float]) -> dict[str, float | list[float]]:
    """The median, the longest, and all times."""
    return {
        "median": statistics.median(times),
        "longest": max(times),
        "all": [round(each, 3) for each in times],
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", help="path of Chromium; by default playwright's own")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        model = load_model(MODEL)
        study = lab_study(model, Path(folder) / "lab")
        save_pack(study.path, "mood", caa(model, "mood", ["tf3.cross_attn", "tf4.cross_attn"], pairs=PAIRS))
        with served(study.path) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(f"{address}?clip=0&edits={quote(json.dumps(EDITS))}")
            page.locator(".lab-card").nth(1).wait_for()
            metrics = {
                "clips_s": summary(seconds_of_clips(page)),
                "strengths_s": summary(seconds_of_strengths(page)),
                "load": os.getloadavg()[0],
            }
            browser.close()
    print(write_result("lab", metrics, "cpu", options.out))
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
