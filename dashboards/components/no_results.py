"""What a page shows in place of its results while there is none that can be shown."""

from dash import html
from dash.development.base_component import Component

from dashboards.components.text import empty_state
from dashboards.result_commands import command
from dashboards.results import unusable
from workbench.studies.study import Study


def no_results(study: Study, kind: str, what: str, then: str, made: str = "") -> Component:
    """Why there is no result of a kind to show, what the page would show, and the command that makes one.

    `what` is said if there is none at all, and `made` is its command, by default the usual one; the sentence on a
    damaged result names its own.
    """
    faults = unusable(study, kind)
    why = empty_state(faults, then) if faults else empty_state([what], then, made or command(study, kind))
    return html.Div(why, className="no-results")
