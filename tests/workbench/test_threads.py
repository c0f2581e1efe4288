"""Threads do not spin for long, whether torch or the workbench is imported first."""

import os
import subprocess
import sys

import pytest

COUNT = """
{imports}
import os, threading
import torch
spare = any(thread.name == "spare OpenMP team" for thread in threading.enumerate())
before = len(os.listdir("/proc/self/task"))
torch.ones(2**20).add_(1)
print(os.environ["OMP_WAIT_POLICY"], spare, len(os.listdir("/proc/self/task")) > before)
"""


@pytest.mark.parametrize(
    ("imports", "variables", "expected"),
    [
        ("import torch, workbench", {"OMP_NUM_THREADS": "2"}, "passive True True"),
        ("import workbench, torch", {"OMP_NUM_THREADS": "2"}, "passive False True"),
        ("import torch, workbench", {"OMP_NUM_THREADS": "1"}, "passive False False"),
        (
            "import torch, workbench",
            {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"},
            "active False True",
        ),
    ],
    ids=["torch first", "workbench first", "one thread", "chosen by the user"],
)
def test_a_spare_team_where_torch_was_loaded_first(
    imports: str, variables: dict[str, str], expected: str
) -> None:
    """The policy; whether there is a spare team; and whether the main thread's team is still to come."""
    unset = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    program = [sys.executable, "-c", COUNT.format(imports=imports)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment | variables)
    assert done.stdout.strip() == expected
    assert done.stderr == ""
