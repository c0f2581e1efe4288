"""Set-up before any test is imported: threads, type checks, and the order of files."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two processors
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest

from tests.type_checks import check_types

# Tests must not see what a user has confirmed; commands that tests run inherit this.
_STATE = tempfile.TemporaryDirectory(prefix="workbench-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name


TESTS = Path(__file__).parent

check_types("cache", "workbench", "analyses", "dashboards")

pytest_plugins = ["tests.fixtures"]


LONGEST = (
    "e2e/test_truth_shared.py",
    "workbench/models/test_conformance.py",
    "e2e/test_browser.py",
    "cache/test_faults.py",
    "e2e/test_truth_split.py",
    "e2e/test_resume_patch.py",
    "e2e/test_resume_trace.py",
    "e2e/test_path.py",
    "cache/test_hostile.py",
    "oracles/test_clap_equal.py",
    "e2e/test_working_folder.py",
    "e2e/test_parallel.py",
    "workbench/models/ace_step_v1/test_pipeline.py",
    "test_notebooks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that workers finish at about the same time."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    assert all(map(Path.is_file, places)), "LONGEST names files that are not there"
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))
