"""Processes for tests, forked by a server that has imported everything, since new interpreters would take seconds."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


def preload(*modules: str) -> None:
    """Make the server import these modules, too; to be called while a test's module is imported."""
    _preloaded.extend(modules)
    CONTEXT.set_forkserver_preload(_preloaded)
