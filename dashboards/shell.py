"""The frame around every page: navigation, the planted-truth switch, alerts."""

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.development.base_component import Component

from dashboards.components.notices import failed_page, remarks
from dashboards.context import Context
from dashboards.drawing.screen import FONT
from dashboards.links import address, page_path, read_query
from dashboards.pages import PAGES
from dashboards.pages.page import Page, Query
from dashboards.results import Identity, outdated, problems
from dashboards.truth import has_truth
from workbench.files import file_version
from workbench.studies.study import Study

MAX_NAMED = 8
CHANGED = (
    "The study's own files (study.json, clips.parquet) have changed since this dashboard was started: restart the "
    "dashboard."
)
TRUTH_HELP = "Known blocks of this model were built to read each concept. Switch on to mark them; analyses ignore this."


def shell(context: Context) -> Component:
    """The frame around the pages of a study."""
    study = context.study
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
                    dmc.NavLink(label=page.name, href=address(page.path), active="exact", className="nav")
                    for page in PAGES
                    if page.is_linked(context)
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
        [navbar, dmc.AppShellMain([html.Div(id="remarks"), html.Div(id="page", className="page")])],
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
    """The switch, remembered per study and browser session; hidden if the model has no truth card."""
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


def register(app: dash.Dash, context: Context) -> None:
    """Show the page at the current URL, below alerts about anything that cannot be shown."""
    study = context.study
    opened = _versions(study)

    @app.callback(
        Output("page", "children"),
        Input("url", "pathname"),
        State("url", "search"),
        on_error=failed_page,
    )
    def show_page(path: str | None, search: str | None) -> Component:
        return _page(path).show(context, read_query(search))

    @app.callback(Output("remarks", "children"), Input("url", "pathname"), Input("url", "search"))
    def show_remarks(path: str | None, search: str | None) -> list[Component | None]:
        page, query = _page(path), read_query(search)
        asked = unknown_parts(page.choices(context, query), query)
        if page_path(path) != page.path:
            asked = [f"There is no page '{page_path(path)}', so the {page.name.lower()} is shown."]
        changed = [] if _versions(study) == opened else [CHANGED]
        return [
            remarks([*changed, *problems(study)], "Parts of this study cannot be shown", "red"),
            remarks(
                outdated(Study.open(study.path)),
                "Parts of this study are incomplete or out of date",
                "yellow",
            ),
            remarks(asked, "The URL asks for something that does not exist", "yellow"),
        ]

    for page in PAGES:
        page.register(app, context)


def _page(path: str | None) -> Page:
    """The page at a path; the first page if there is none."""
    return next((page for page in PAGES if page.path == page_path(path)), PAGES[0])


def _versions(study: Study) -> list[Identity]:
    """Versions of the study's own files; results are reloaded when they change, these files are not."""
    return [
        file_version(study.path / name)
        for name in ("study.json", "clips.parquet")
        if (study.path / name).exists()
    ]


def unknown_parts(choices: dict[str, list[str]], query: Query) -> list[str]:
    """One sentence for each part of a query that is not among a page's choices."""
    sentences = []
    for name, value in query.items():
        if name not in choices:
            sentences.append(f"'{name}={value}' in the URL has no effect on this page.")
        elif value not in choices[name]:
            some = ", ".join(choices[name][:MAX_NAMED])
            some += " …" if len(choices[name]) > MAX_NAMED else ""
            sentences.append(f"There is no {name} '{value}' here{f' (choices: {some})' if some else ''}.")
    return sentences
