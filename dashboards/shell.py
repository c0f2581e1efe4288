"""The frame around every page: navigation, the planted-truth switch, alerts."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Input, Output, State, dcc, html
from dash.development.base_component import Component

from dashboards.components import export
from dashboards.components.notices import failed_page, folded, folded_outputs, folded_remarks, remarks
from dashboards.components.text import tip
from dashboards.context import Context
from dashboards.drawing.screen import FONT
from dashboards.links import address, page_path, read_parts, read_query
from dashboards.names import shortened
from dashboards.pages import PAGES
from dashboards.pages.page import Choices, Page, Query
from dashboards.results import (
    default_of_kind,
    lost_result,
    lost_results,
    outdated,
    problems,
    shown_name,
    unfinished,
)
from dashboards.truth import has_truth
from dashboards.versions import shown_version
from workbench.studies.study import Study

MAX_NAMED = 8
UNKNOWN = "The URL asks for something that does not exist"
LOST = "A result cannot be shown"
LONGEST_NAME = 80  # characters of what a URL asks for
STATES = {"damaged": "red", "outdated": "yellow"}
"""The lines above all pages about the state of the study, and their colours."""
WIDE = "md"
"""The width from which the navigation stands beside the page; below, a button opens it."""
TRUTH_HELP = "Known blocks of this model were built to read each concept. Switch on to mark them; analyses ignore this."


def shell(context: Context) -> Component:
    """The frame around the pages of a study."""
    study = context.study
    name = study.path.resolve().name
    burger = dmc.Burger(id="burger", opened=False, size="sm", **{"aria-label": "navigation"})
    header = dmc.AppShellHeader(
        dmc.Group(
            [burger, dmc.Text(name, fw=600, size="sm", truncate=True)], h="100%", px="md", wrap="nowrap"
        ),
        hiddenFrom=WIDE,
    )
    navbar = dmc.AppShellNavbar(
        [
            dmc.Stack(
                [
                    dmc.Text("Audio diffusion workbench", fw=700, size="sm"),
                    _study_switch(context) or dmc.Text(name, size="xs", c="dimmed", truncate=True),
                ],
                gap=0,
                className="brand",
            ),
            dmc.Stack([_link(page, context) for page in PAGES], gap=2),
            dmc.Stack([_truth_switch(study), scheme_switch()], className="foot"),
        ],
        p="sm",
    )
    content = html.Div(
        [
            *(folded_remarks(id, colour) for id, colour in STATES.items()),
            html.Div(f"Study: {name}", className="print-only"),
            html.Div(id="remarks"),
            html.Div(id="page", className="page"),
        ],
        id="content",
        tabIndex=-1,
        **{"data-version": shown_version(study.path)},
    )
    frame = dmc.AppShell(
        [header, navbar, dmc.AppShellMain(content)],
        id="frame",
        header={"height": {"base": 48, WIDE: 0}},
        navbar=_NAVBAR,
        padding={"base": "sm", WIDE: "lg"},
    )
    return provider(
        [
            html.A("Skip to the content", href="#content", className="skip"),
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="study-name", data=name),
            *export.exchange(),
            dmc.NotificationContainer(id="notices"),
            frame,
        ]
    )


def provider(children: list[Component]) -> Component:
    """What every page stands in: its theme and colours."""
    return dmc.MantineProvider(
        children,
        # Lighter shades have too little contrast with white.
        theme={
            "primaryColor": "blue",
            "primaryShade": {"light": 9, "dark": 8},
            "fontFamily": FONT,
            "headings": {"fontFamily": FONT},
        },
        defaultColorScheme="auto",  # the system's, until the switch is used
    )


def _study_switch(context: Context) -> Component | None:
    """The study's name, which opens links to the list and the other studies; None if there is no folder of studies."""
    folder, name = context.folder, context.study.path.name
    if folder is None:
        return None
    others = [(other.name, folder.url(other.name)) for other in context.neighbours]
    links = [html.Li(html.A(text, href=href)) for text, href in (("All studies", folder.url_prefix), *others)]
    return html.Details([html.Summary(name), html.Ul(links)], className="study-switch")


_NAVBAR = {"width": 230, "breakpoint": WIDE, "collapsed": {"mobile": True}}


def scheme_switch() -> Component:
    """The switch between light and dark colours, whose choice the browser keeps."""
    return dmc.ColorSchemeToggle(
        id="color-scheme",
        lightIcon=html.Span("☀"),
        darkIcon=html.Span("☾"),
        variant="default",
        size="sm",
        **{"aria-label": "light or dark colours"},
    )


def _link(page: Page, context: Context) -> Component:
    """A link of the navigation, hidden while its page has nothing to show; the page's script adds its selection."""
    return dmc.NavLink(
        id={"type": "nav", "page": page.path},
        label=page.name,
        href=address(page.path),
        className="nav",
        style=_shown(page, context),
    )


def _shown(page: Page, context: Context) -> dict[str, str]:
    return {} if page.is_linked(context) else {"display": "none"}


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
    return html.Div(switch, id="truth-holder", hidden=not has_truth(study), **tip(TRUTH_HELP))


def register(app: dash.Dash, context: Context) -> None:
    """Show the page at the current URL, below alerts about anything that cannot be shown.

    Open pages set the URL's `search` anew when a file of the study has changed (`connection.js`), so that every
    callback that follows the URL also follows the study.
    """
    study = context.study
    links = {"type": "nav", "page": ALL}

    @app.callback(
        Output("page", "children"),
        Input("url", "pathname"),
        State("url", "search"),
        on_error=failed_page,
    )
    def show_page(path: str | None, search: str | None) -> Component:
        return _page(path).show(context, read_query(search))

    # Once what is asked for has been drawn, which need not wait for it.
    app.clientside_callback(
        ClientsideFunction("shell", "settled"),
        Output("remarks", "data-asked"),
        Input("url", "pathname"),
        Input("url", "search"),
    )

    @app.callback(Output("remarks", "children"), State("url", "pathname"), Input("remarks", "data-asked"))
    def show_remarks(path: str | None, search: str | None) -> Component | None:
        page, query = _page(path), read_query(search)
        if lost := _lost(page, study, query):  # what else the URL asks for is of that result
            other = shown_name(study, page.kind)
            instead = dmc.Text(f"Shown instead: {other}.", size="sm", mb="md", className="instead")
            return html.Div([remarks(lost, LOST, "red"), instead if other else None], className="lost")
        asked = unknown_parts(page.choices(context, query), read_parts(search))
        if page_path(path) != page.path:
            asked = [
                f"There is no page '{shortened(page_path(path), LONGEST_NAME)}', so the {page.name.lower()} is shown."
            ]
        return remarks(asked, UNKNOWN, "yellow")

    @app.callback(
        *(output for id in STATES for output in folded_outputs(id)),
        Input("content", "data-version"),
        Input("url", "pathname"),
        State("url", "search"),
    )
    def show_state(version: str | None, path: str | None, search: str | None) -> list[Any]:
        del version  # only says that something has changed
        now = Study.open(study.path)
        half, old = unfinished(now), outdated(now)
        told = _lost(_page(path), study, read_query(search))  # above the page
        damaged = [sentence for sentence in problems(study) if sentence not in told]
        said = ["This study is only partly traced."] if half else []
        if old:
            were = "1 result was" if len(old) == 1 else f"{len(old)} results were"
            said.append(f"{were} not computed from this study as it is now.")
        count = "1 result" if len(damaged) == 1 else f"{len(damaged)} results"
        return [
            *folded(f"{count} of this study cannot be shown.", damaged),
            *folded(" ".join(said), half + old),
        ]

    @app.callback(Output(links, "style"), Input("content", "data-version"), prevent_initial_call=True)
    def show_links(version: str | None) -> list[dict[str, str]]:
        del version  # only says that something has changed
        return [_shown(page, context) for page in PAGES]

    app.clientside_callback(
        ClientsideFunction("shell", "follow"),
        Output(links, "href"),
        Output(links, "active"),
        Output("burger", "opened"),
        Input("url", "pathname"),
        Input("url", "search"),
        State(links, "id"),
        State(links, "label"),
        State("study-name", "data"),
        State("truth", "persistence"),
    )
    app.clientside_callback(
        ClientsideFunction("shell", "collapse"),
        Output("frame", "navbar"),
        Input("burger", "opened"),
        State("frame", "navbar"),
        prevent_initial_call=True,
    )

    for page in PAGES:
        page.register(app, context)


def _page(path: str | None) -> Page:
    """The page at a path; the first page if there is none."""
    return next((page for page in PAGES if page.path == page_path(path)), PAGES[0])


def _lost(page: Page, study: Study, query: Query) -> list[str]:
    """Sentences on what cannot be shown of a page's results: all of its kind, or the one that it should show."""
    if not page.kind:
        return []
    if of_kind := lost_results(study, page.kind):
        return of_kind
    asked = query.get(page.named_by) or default_of_kind(study, page.kind)
    sentence = asked and lost_result(study, page.kind, asked)
    return [sentence] if sentence else []


def _instead(known: list[str] | str) -> str:
    """What a part of a query may be instead, as the end of a sentence; "" if there is nothing."""
    if isinstance(known, str):
        return f": {known}"
    some = ", ".join(shortened(choice, LONGEST_NAME) for choice in known[:MAX_NAMED])
    return f" (choices: {some}{' …' if len(known) > MAX_NAMED else ''})" if some else ""


def unknown_parts(choices: Choices, query: Query) -> list[str]:
    """One sentence for each part of a query that is not among a page's choices; many are only counted."""
    sentences = []
    for name, value in query.items():
        part, asked = shortened(name, LONGEST_NAME), shortened(value, LONGEST_NAME)
        if name not in choices:
            said = f"{part}={asked}" if value else part
            sentences.append(f"'{said}' in the URL has no effect on this page.")
        elif value and (isinstance(known := choices[name], str) or value not in known):
            sentences.append(f"There is no {part} '{asked}' here{_instead(known)}.")
    more = len(sentences) - MAX_NAMED
    return (
        [*sentences[:MAX_NAMED], f"{more} more parts of the URL have no effect."] if more > 1 else sentences
    )
