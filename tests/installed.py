"""Test the package as users get it: a wheel in a new environment, with every command.

Run as `make test-install`. The wheel is built from the source distribution and installed with the ranges of
pyproject.toml, newest versions first, into an environment that is removed afterwards. Only torch is pinned to the
release in constraints.txt; otherwise pip would download a CUDA build of several gigabytes.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "workbench", "analyses", "dashboards")
NEEDS_AN_EXTRA = ("workbench.scorers.clap_laion", "workbench.sae.bags_cuda")
SITE = "tf4.cross_attn"
STARTS_WITHIN = 120  # seconds, of the dashboard

STUDY = f"""
trace organism-shared --out study --n-prompts 16 --seeds 1 --site {SITE} --steps 2,5
patch study --concept mood --pairs 2 --seeds 1
probe study --concept mood --folds 4
sae train study --site {SITE} --expansion 2 --k 8 --train-steps 50 --job 1/1
sae list study
sae export study {SITE} --format saelens --out exported
sae import exported --study study --name imported
sae evaluate study {SITE} --clips 1 --pairs 1
sae effects study {SITE} --concept mood --features 1 --randoms 1 --pairs 1 --factor 0 --ignore-gate
sae features study {SITE}
sae notes export study --out notes.csv
sae notes import study notes.csv
export study --figure patching --format pdf
export study --figure probes --format svg
export study --figure sae-training --option name={SITE} --format png
export study --figure feature-clip --option name={SITE} --option feature=0 --option clip=0
export study --figure feature --option name={SITE} --option feature=0 --format html
steer fit study --concept mood --sites tf3+tf4 --pairs 2 --check-pairs 0
steer check study mood --pairs 1
steer train-slider study --concept mood --sites tf4 --pairs 2 --iterations 2
steer apply study --pack mood --slider mood --method pci --concept mood --sites all --pairs 1 --random 1 --strength 2
steer evaluate study --concept mood --sites tf3+tf4 --method pci --pairs 2 --selection-pairs 1 --random 0 --part 1
steer ladder study --concept mood --sites tf3+tf4 --fit-pairs 2 --pairs 1 --random 1 --strength 1 --ignore-gate
steer list study
steer show study/packs/mood.safetensors
steer show study/sliders/mood.safetensors
steer export study/packs/mood.safetensors --to demon --out demon.safetensors
steer fit-descriptor study --descriptor level --sites tf3+tf4 --clips 3
steer measure study --pack level --clips 2 --strength 2 --random 1
generate organism-shared --prompt happy --pack study/packs/mood.safetensors --strength 2 --out clip.flac
listen make study --result steering-mood --way mood --out heard --items 1 --any-device
listen export heard --out web
listen import web/configs/heard.yaml --out again
cache verify study
cache info study
cache ls .
cache export study --out rows
cache merge study --out copy.zarr
cache rm copy.zarr --yes
pairs attributes
pairs build --attribute-set music --captions captions.txt --out pairs.csv
pairs import pairs.csv --out imported.csv
"""
"""The commands to run, in order, in a folder with captions.txt."""

HELP = (
    *("dashboard", "demo", "lab", "pairs filter", "steer import", "listen serve", "listen analyse"),
    *(
        f"import {kind}"
        for kind in ("caa", "sae", "scores", "austeer", "lora", "token-embedding", "localisation")
    ),
)
"""Commands that take minutes or need third-party files: only their help is shown. (The dashboard is also served.)"""

CAPTIONS = "a calm song with violin and drums\na fast happy tune with a female singer and piano\n"

LIST_COMMANDS = """
import json, typer
from workbench.cli.main import app

def names(command, path=()):
    children = getattr(command, "commands", None)
    return [n for k, c in children.items() for n in names(c, (*path, k))] if children else [" ".join(path)]

print(json.dumps(names(typer.main.get_command(app))))
"""
IMPORT_ALL = f"""
import importlib, pkgutil
for package in {PACKAGES}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name not in {NEEDS_AN_EXTRA}:
            importlib.import_module(module.name)
"""


class Environment:
    """A new virtual environment, used from a folder outside the repository."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.bin = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        self.variables = {name: value for name, value in os.environ.items() if name not in ours}
        self.variables["HF_HUB_OFFLINE"] = "1"
        venv.create(self.bin.parent, with_pip=True)
        torch = re.search(
            r"^torch==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
        self("python", "-m", "pip", "install", "--quiet", torch[0], str(wheel))
        self("python", "-m", "pip", "check")

    def __call__(self, program: str, *arguments: str) -> str:
        """Return the output of a program in the environment; ends the test if it fails."""
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.work,
            env=self.variables,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(
                f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout


def build(folder: Path) -> Path:
    """Build the wheel from the source distribution and check its contents."""
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL
    )
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(source) as archive:
        assert "pyproject.toml" in {Path(name).name for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == ours, f"missing in the wheel: {sorted(ours - files)}; not ours: {sorted(files - ours)}"
    return wheel


def run_commands(environment: Environment) -> None:
    """Make the study, and show the help of the commands that are too expensive."""
    (environment.work / "captions.txt").write_text(CAPTIONS, encoding="utf-8")
    lines = [line.split() for line in STUDY.strip().splitlines()]
    lines += [[*name.split(), "--help"] for name in HELP]
    untried = [
        name
        for name in json.loads(environment("python", "-c", LIST_COMMANDS))
        if not any(" ".join(line).startswith(name + " ") or " ".join(line) == name for line in lines)
    ]
    assert not untried, f"enter these commands in {Path(__file__).name}: {untried}"
    for line in lines:
        started = time.monotonic()
        environment("workbench", *line)
        print(f"{time.monotonic() - started:6.1f} s  workbench {' '.join(line)}", flush=True)


def answer(address: str) -> bytes:
    """Fetch a page from a server that may still be starting."""
    end = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as page:
                return page.read()
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def check_dashboard(environment: Environment) -> None:
    """Check that the dashboard responds with its layout, a stylesheet of the package and the audio of a clip."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [environment.bin / "workbench", "dashboard", "study", "--port", str(port)]
    with subprocess.Popen(command, cwd=environment.work, env=environment.variables) as server:
        try:
            page = answer(f"http://127.0.0.1:{port}/").decode()
            layout = json.loads(answer(f"http://127.0.0.1:{port}/_dash-layout"))
            style = re.search(r'href="([^"]*assets/style\.css[^"]*)"', page)
            assert layout and style, "the page has no layout or no style"
            assert b"{" in answer(f"http://127.0.0.1:{port}{style[1]}")
        finally:
            server.terminate()


def main() -> None:
    """Build, install and run; print the installed versions."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build(folder / "dist")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        environment = Environment(folder, wheel)
        print(environment("python", "-m", "pip", "freeze"))
        environment("python", "-c", IMPORT_ALL)
        run_commands(environment)
        check_dashboard(environment)
    print("The installed package works.")


if __name__ == "__main__":
    main()
