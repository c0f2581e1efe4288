"""The pages of the dashboard, one module each, in the order of the navigation.

The selection is part of the URL: a click changes the URL, and everything on a page follows from it.
"""

from dashboards.pages import (
    clip,
    comparison,
    evaluation,
    feature_pairs,
    features,
    imported,
    lab,
    overview,
    patching,
    probes,
    steering,
)
from dashboards.pages.page import Page

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    patching.PAGE,
    probes.PAGE,
    features.PAGE,
    feature_pairs.PAGE,
    clip.PAGE,
    steering.PAGE,
    evaluation.PAGE,
    lab.PAGE,
    comparison.PAGE,
    imported.PAGE,
)
