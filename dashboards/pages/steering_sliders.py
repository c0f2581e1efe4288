"""The study's concept sliders."""

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from analyses.steering.slider_summary import slider_line
from cache.errors import UserError
from dashboards.components.notices import remarks
from dashboards.components.text import panel
from dashboards.sliders import sliders
from workbench.studies.study import Study

HELP = (
    "LoRAs, which turn a concept up by changing weights. “workbench steer apply --slider NAME” tries one, and "
    "“workbench steer show FILE” describes it."
)


def layout(study: Study) -> Component | None:
    """The panel, with a sentence for each slider that cannot be read; None without sliders."""
    known = sliders(study)
    faults = [str(each) for each in known.values() if isinstance(each, UserError)]
    lines = [slider_line(name, each) for name, each in known.items() if not isinstance(each, UserError)]
    body = [
        remarks(faults, "Some sliders cannot be shown", "red"),
        html.Div(_table(lines), className="facts-wrap") if lines else None,
    ]
    return panel("Concept sliders", *filter(None, body), help=HELP) if known else None


def _table(lines: list[dict[str, str]]) -> Component:
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(name) for name in lines[0]]))
    body = dmc.TableTbody([dmc.TableTr([dmc.TableTd(text) for text in line.values()]) for line in lines])
    return dmc.Table([head, body], fz="sm", verticalSpacing=4, id="sliders")
