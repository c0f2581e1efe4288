"""Processes for tests, forked by one server that has imported everything: each new interpreter would take seconds."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


def preload(*modules: str) -> None:
    """Have the server import these, too; for the import of a test's module, before the server starts."""
    _preloaded.extend(modules)
    CONTEXT.set_forkserver_preload(_preloaded)
