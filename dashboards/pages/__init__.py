"""The pages of the dashboard, a module each, in the order of the navigation.

The address holds the selection: a click changes the address, and everything on a page follows from it.
"""

from dashboards.pages import comparison, features, imported, overview, patching, probes
from dashboards.pages.page import Page

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    patching.PAGE,
    probes.PAGE,
    features.PAGE,
    comparison.PAGE,
    imported.PAGE,
)
