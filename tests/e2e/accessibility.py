"""What axe-core finds wrong on a page for people who read it by keyboard, screen reader or with weak sight."""

from functools import cache
from importlib import resources
from typing import Any

from playwright.sync_api import Page

SERIOUS = frozenset({"serious", "critical"})
CONTRAST = {"type": "rule", "values": ["color-contrast"]}
"""The only rule whose findings depend on light or dark colours."""


def faults(page: Page, only: dict[str, Any] | None = None) -> list[str]:
    """The serious and critical findings on a page: rule, element, and what to do, each in a line."""
    page.evaluate(_script())
    options = {"resultTypes": ["violations"], **({"runOnly": only} if only else {})}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{fault['id']}: {node['target']}: {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


@cache
def _script() -> str:
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
