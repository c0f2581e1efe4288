"""Shapes and types are checked while the tests run: jaxtyping annotations through beartype."""

import os
import tempfile
from types import SimpleNamespace
from weakref import WeakKeyDictionary

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers share two processors; 2 is for one process at a time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jaxtyping._storage
import pytest
from greenlet import getcurrent, greenlet
from jaxtyping import install_import_hook

# What a user has confirmed is none of the tests' business; commands that tests run inherit it.
_STATE = tempfile.TemporaryDirectory(prefix="workbench-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name


class PerGreenlet:
    """Attributes that each greenlet has for itself."""

    def __init__(self) -> None:
        self.__dict__["_of"] = WeakKeyDictionary[greenlet, SimpleNamespace]()

    def _own(self) -> SimpleNamespace:
        return self._of.setdefault(getcurrent(), SimpleNamespace())

    def __getattr__(self, name: str) -> object:
        return getattr(self._own(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._own(), name, value)


# jaxtyping keeps the sizes of the functions that are running on one stack, but nnsight goes to and fro between a model
# and what traces it, each in the middle of such functions: each needs a stack of its own.
jaxtyping._storage._shape_storage = PerGreenlet()

install_import_hook(["cache", "workbench", "analyses", "dashboards"], "beartype.beartype")

pytest_plugins = ["tests.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that workers that take file by file end together."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
