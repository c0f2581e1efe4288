"""The command line starts without what its commands need."""

import subprocess
import sys

SLOW = {
    *("torch", "diffusers", "nnsight", "transformers", "zarr", "pandas", "xarray", "scipy", "sklearn"),
    *("dash", "plotly", "matplotlib", "pyarrow"),
}


def test_importing_the_command_imports_nothing_slow() -> None:
    program = f"import sys, workbench.cli.main; print(sorted({SLOW} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
