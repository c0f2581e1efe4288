"""`import workbench as wb`: names that are imported when they are used, as the stub declares them."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb

STUB = Path(wb.__file__).with_suffix(".pyi")
SLOW = (
    *("torch", "diffusers", "nnsight", "transformers", "numpy", "xarray", "pandas", "zarr", "pydantic"),
    *("sklearn", "dash", "plotly", "matplotlib", "IPython"),
)


def declared() -> dict[str, tuple[str, str]]:
    """Module and name of everything that the stub declares."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    found, modules = {}, {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            found |= {alias.name: (f"workbench.{node.module}", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname: alias.name for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            found[node.targets[0].id] = (modules[node.value.value.id], node.value.attr)
    return found


def test_the_stub_declares_what_is_there() -> None:
    """What editors and mypy see is what a program gets, the same object."""
    names = declared()
    assert sorted(names) == dir(wb) == wb.__all__
    for name, (module, attribute) in names.items():
        assert getattr(wb, name) is getattr(importlib.import_module(module), attribute), name
    (exported,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    assert sorted(exported) == wb.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pathc"):
        _ = wb.pathc


def test_importing_it_imports_nothing_slow() -> None:
    program = f"import sys, workbench as wb; dir(wb); print([name for name in {SLOW} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
