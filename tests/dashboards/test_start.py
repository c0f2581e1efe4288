"""The dashboard's server starts without what computes results."""

import subprocess
import sys

SLOW = {"torch", "sklearn", "librosa", "numba", "diffusers", "nnsight", "transformers"}
"""Together they would take 500 MB of memory and most of the time to start."""


def test_importing_the_server_imports_nothing_that_computes() -> None:
    program = f"import sys, dashboards.app; print(sorted({SLOW} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
