"""What pyproject.toml promises: every file of the packages is installed, and every dependency has its bounds."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)
PACKAGES = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_installed(package: str) -> None:
    """`make test-install` compares with the wheel itself."""
    data = PROJECT["tool"]["setuptools"]["package-data"]
    folder = ROOT / package
    installed = {path for pattern in (*data["*"], *data.get(package, ())) for path in folder.glob(pattern)}
    left_out = [
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and path not in installed
    ]
    assert left_out == []
    folders = {path.parent for path in folder.rglob("*.py")}
    assert all((each / "__init__.py").is_file() for each in folders), "a folder without one is not installed"


@pytest.mark.parametrize("dependency", PROJECT["project"]["dependencies"])
def test_every_dependency_has_an_upper_bound_or_a_reason(dependency: str) -> None:
    line = re.search(rf'^  "{re.escape(dependency)}",(.*)$', TEXT, re.MULTILINE)
    assert line is not None
    assert ">=" in dependency
    assert "<" in dependency or "#" in line[1]
