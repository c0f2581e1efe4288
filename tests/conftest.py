"""Set-up before any test is imported: threads, type checks, the order of files, and the garbage collector."""

import gc
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share two processors
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest

from tests.type_checks import check_types, next_test

gc.disable()  # until all tests are imported: full collections meanwhile would take seconds

# Tests must not see what a user has confirmed; commands that tests run inherit this.
_STATE = tempfile.TemporaryDirectory(prefix="workbench-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name
# Tests import librosa as they like, in two workers at the same time (workbench/scorers/librosa_import.py).
os.environ["NUMBA_CACHE_DIR"] = f"{_STATE.name}/numba"


TESTS = Path(__file__).parent

check_types("cache", "workbench", "analyses", "dashboards")


def pytest_configure(config: pytest.Config) -> None:
    """Import the fixtures, with torch and diffusers, where tests run; the process that hands them out needs none."""
    if getattr(config.option, "dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


LONGEST = (
    "e2e/test_browser.py",
    "e2e/test_truth_shared.py",
    "cache/test_faults.py",
    "workbench/models/test_conformance.py",
    "e2e/test_truth_split.py",
    "cache/test_resume.py",
    "dashboards/figures/test_legible.py",
    "dashboards/test_hostile_shapes.py",
    "e2e/test_browser_faults.py",
    "dashboards/test_robust.py",
    "e2e/test_path.py",
    "analyses/patching/test_run.py",
    "e2e/test_audioldm2.py",
    "e2e/test_resume_patch.py",
    "analyses/test_simulations.py",
    "analyses/probes/test_run.py",
    "analyses/test_execution.py",
    "e2e/test_resume_trace.py",
    "analyses/probes/test_significance.py",
    "e2e/test_stable_audio.py",
    "benchmarks/organisms/embedded/test_train.py",
    "test_notebooks.py",
    "e2e/test_ace_step_v1.py",
    "e2e/test_parallel.py",
    "cache/test_hostile.py",
    "oracles/test_clap_equal.py",
    "workbench/models/ace_step_v1/test_pipeline.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that workers finish at about the same time."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    assert all(map(Path.is_file, places)), "LONGEST names files that are not there"
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def pytest_runtest_setup() -> None:
    """Check the types of arrays in the first calls of each test."""
    next_test()


def pytest_collection_finish() -> None:
    """Spare the garbage collector all that was imported, which it would go through again in each full collection."""
    gc.freeze()
    # By default there is a full collection every 70,000 new objects, of which a figure on paper has as many.
    gc.set_threshold(10_000, 10, 10)
    gc.enable()
