"""The command line, killed at a chosen moment, and what it left behind."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

# The command line in a process that kills itself at the n-th call of a function.
KILLED = """
import importlib, os, signal, sys
module, name, count = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
owner = importlib.import_module(module)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
original = getattr(owner, name.split(".")[-1])
def counted(*args, **kwargs):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, name.split(".")[-1], counted)
from workbench.cli.main import main
main()
"""


Killer = tuple[str, str, str]


def workbench(killer: Killer | None, *arguments: object) -> int:
    """Exit code of the command line, killed at that moment."""
    program = [sys.executable, "-c", KILLED, *(killer or ("workbench.cli.main", "main", "-1"))]
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file that a trace writes; study.json holds the date and is compared apart."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "study.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
