"""Fixtures of the end-to-end tests: a folder for studies, prompts, and a browser, downloaded if none is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.small_study import PROMPTS

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/usr/lib/chromium/chromium",
    "/opt/google/chrome/chrome",
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
INSTALL_SECONDS = 600


def installed_browser() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    found = [shutil.which(name) for name in NAMES] + [place for place in PLACES if Path(place).exists()]
    return next((path for path in found if path), None)


def playwright_browser() -> bool:
    """Whether playwright's own Chromium is available, after downloading it if necessary."""
    return _runs([sys.executable, "-m", "playwright", "install", "chromium"])


def debian_browser() -> str | None:
    """Install Debian's Chromium and return its path; root only."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    _runs(["apt-get", "update"])
    _runs(["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
    return shutil.which("chromium")


def _runs(command: list[str]) -> bool:
    try:
        return (
            subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the study of a file's tests."""
    return tmp_path_factory.mktemp("path") / "study"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of prompts for random models."""
    file = tmp_path / "prompts.yaml"
    file.write_text(PROMPTS, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Launch options for pytest-playwright: a browser that contacts no other machine."""
    options = {**browser_type_launch_args, "args": ARGUMENTS}
    path = installed_browser()
    if path is None and playwright_browser():
        return options
    path = path or debian_browser()
    if path is None:
        pytest.fail(
            "No browser was found or could be fetched: install Chromium, or run `playwright install chromium`."
        )
    return {**options, "executable_path": path}
