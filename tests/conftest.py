"""Shapes and types are checked while the tests run: jaxtyping annotations through beartype."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(["cache", "workbench", "analyses", "dashboards"], "beartype.beartype")

pytest_plugins = ["tests.fixtures"]
