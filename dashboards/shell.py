"""What surrounds every page: navigation, the switch for the planted truth, notices."""

from types import ModuleType

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.development.base_component import Component

from dashboards.links import address, page_path, read_query
from dashboards.others import Others
from dashboards.pages import comparison, features, imported, overview, patching, probes
from dashboards.screen.style import FONT
from dashboards.truth import has_truth
from workbench.study import Study

PAGES: tuple[ModuleType, ...] = (overview, patching, probes, features)
NOTHING = Others()
TRUTH_HELP = (
    "This model was built with known blocks for each concept. Switch on to mark them; no analysis reads it."
)


def shell(study: Study, others: Others = NOTHING) -> Component:
    """The frame around the pages of a study; the comparison and the imports have a link where there are any."""
    pages = [
        *PAGES,
        *([comparison] if others.choices else []),
        *([imported] if imported.has_any(study) else []),
    ]
    navbar = dmc.AppShellNavbar(
        [
            dmc.Stack(
                [
                    dmc.Text("Audio diffusion workbench", fw=700, size="sm"),
                    dmc.Text(study.path.resolve().name, size="xs", c="dimmed", truncate=True),
                ],
                gap=0,
                className="brand",
            ),
            dmc.Stack(
                [
                    dmc.NavLink(label=page.NAME, href=address(page.PATH), active="exact", className="nav")
                    for page in pages
                ],
                gap=2,
            ),
            dmc.Stack(
                [_truth_switch(study), dmc.ColorSchemeToggle("Light / dark", **_TOGGLE)], className="foot"
            ),
        ],
        p="sm",
    )
    frame = dmc.AppShell(
        [navbar, dmc.AppShellMain(html.Div(id="page", className="page"))],
        navbar={"width": 230, "breakpoint": 0},
        padding="lg",
    )
    return dmc.MantineProvider(
        [dcc.Location(id="url", refresh=False), dmc.NotificationContainer(id="notices"), frame],
        theme={"primaryColor": "blue", "fontFamily": FONT, "headings": {"fontFamily": FONT}},
        defaultColorScheme="light",
    )


_TOGGLE = {
    "lightIcon": html.Span("☀"),
    "darkIcon": html.Span("☾"),
    "variant": "default",
    "size": "sm",
    "id": "color-scheme",
}


def _truth_switch(study: Study) -> Component:
    """The switch, which a browser session remembers for this study; hidden where the model has no truth card."""
    switch = dmc.Switch(
        id="truth",
        label="Compare with the planted truth",
        size="sm",
        checked=False,
        persistence=str(study.path.resolve()),
        persistence_type="session",
    )
    tip = dmc.Tooltip(
        html.Div(switch), label=TRUTH_HELP, multiline=True, w=260, position="right", withArrow=True
    )
    return html.Div(tip, id="truth-holder", hidden=not has_truth(study))


def register(app: dash.Dash, study: Study, others: Others = NOTHING) -> None:
    """Show the page of the address."""

    @app.callback(Output("page", "children"), Input("url", "pathname"), State("url", "search"))
    def show_page(path: str | None, search: str | None) -> Component:
        path = page_path(path)
        for page in PAGES:
            if path == page.PATH:
                return page.layout(study, read_query(search))
        if path == comparison.PATH:
            return comparison.layout(study, others, read_query(search))
        if path == imported.PATH:
            return imported.layout(study, read_query(search))
        return dmc.Stack(
            [dmc.Title("There is no such page", order=2), dmc.Anchor("Overview", href=address("/"))]
        )

    for page in PAGES:
        page.register(app, study)
    comparison.register(app, study, others)
    imported.register(app, study)
