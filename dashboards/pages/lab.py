"""The lab: a clip with edits, made in the background and heard against the unedited clip.

The address holds the whole request. The names of its query are those of `dashboards.lab_link`: `prompt`, `lyrics`,
`seed`, `duration` (seconds), `steps`, `guidance`, and `edits`, a JSON list; or `clip`, the number of one of the study's
clips, in place of the first three. Other pages link here with `dashboards.lab_link.lab_address`.
"""

import secrets
from contextlib import suppress
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.lab.request import LabRequest, check_duration, read_request, request_of
from cache.errors import UserError
from dashboards.components.text import panel, with_code
from dashboards.context import Context
from dashboards.lab_link import PATH
from dashboards.links import page_path, read_query, write_query
from dashboards.pages import lab_clip, lab_edits, lab_result
from dashboards.pages.page import Page, Query
from workbench.models import model_source
from workbench.studies.study import Study

NAME = "Lab"
SENTENCE = (
    "Make a clip with edits and hear it against the unedited one: patch, ablate, and steer by any vector, slider or "
    "feature of the study, or through the prompt. Finished clips are kept as runs of the study."
)
CLIP_HELP = "The prompt, lyrics and seed of both clips. Settings that are left empty are those of the study."
EDITS_HELP = (
    "What is changed in the edited clip, in this order. An edit that is switched off is kept but not made."
)
IMPOSSIBLE = "This clip cannot be made."
NOT_MADE = "This clip has not been made yet: press Render (G) to make and hear it."
KEYS = "Press Enter or G outside of text fields, or Ctrl+Enter inside of them, to render and listen."


def layout(context: Context, query: Query) -> Component:
    """The page with what the address asks for, or a sentence if the study's model cannot be loaded here."""
    study = context.study
    try:
        model_source(study.spec.model)
    except UserError as error:
        said = with_code(f"The lab needs the study's model. {error}")
        return dmc.Alert(said, title="No model", color="yellow")
    request, fault = asked(study, query)
    left = dmc.Stack(
        [
            panel("Clip", *lab_clip.layout(study, request), help=CLIP_HELP),
            panel("Edits", *lab_edits.layout(study, request), help=EDITS_HELP),
            dmc.Group(
                [dmc.Button("Render", id="lab-render", rightSection=dmc.Kbd("G")), _cancel()], gap="sm"
            ),
            dmc.Text(KEYS, size="xs", c="dimmed"),
        ],
        gap="md",
    )
    columns = [
        dmc.GridCol(left, span={"base": 24, "lg": 10}),
        dmc.GridCol(lab_result.layout(), span={"base": 24, "lg": 14}),
    ]
    notice = html.Div(
        dmc.Alert(fault, id="lab-notice", color="yellow", variant="light", mb="md"),
        id="lab-notice-holder",
        hidden=not fault,
        role="status",
    )
    state = [
        notice,
        dcc.Store(id="lab-asked", data={"jobs": [], "query": write_query(dict(query))}),
        dcc.Store(id="lab-page", data=secrets.token_hex(8)),  # see `tab` in lab.js, and `Jobs.submit`
        dcc.Store(id="lab-recalled"),
        dcc.Store(id="lab-over"),
        dcc.Interval(id="lab-tick", disabled=True),
    ]
    return html.Div([*state, dmc.Grid(columns, columns=24, gutter="md")], className="lab")


def _cancel() -> Component:
    return dmc.Button("Cancel", id="lab-cancel", variant="default", disabled=True)


def asked(study: Study, query: Query) -> tuple[LabRequest, str]:
    """The request of an address, and a sentence on what in it was not understood, or ""; the rest is kept."""
    number, fault = query.get("clip", "0"), ""
    try:
        base = lab_clip.of_clip(study, lab_clip.clip_number(study, number))
    except UserError as error:
        base, fault = lab_clip.of_clip(study, 0), str(error)
    if "prompt" in query and "clip" not in query:
        base = LabRequest(prompt=base.prompt)
    request, other = read_request(query, base)
    return request, " ".join(filter(None, (fault, other)))


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL: all of a valid request; a fault is shown on the page itself."""
    del context
    names = ("clip", "prompt", "lyrics", "seed", "duration", "steps", "guidance", "edits")
    return {name: [query[name]] if name in query else [] for name in names}


_MOVED = [
    Input({"type": "lab-field", "edit": ALL, "field": "strength"}, "value"),
    Input({"type": "lab-switch", "edit": ALL, "field": "on"}, "checked"),
]
_CLIP = [State(f"lab-{name}", "value") for name in lab_clip.FIELDS]
_EDITS = [
    State({"type": "lab-field", "edit": ALL, "field": ALL}, "value"),
    State({"type": "lab-field", "edit": ALL, "field": ALL}, "id"),
    State({"type": "lab-switch", "edit": ALL, "field": ALL}, "checked"),
    State({"type": "lab-switch", "edit": ALL, "field": ALL}, "id"),
]


def register(app: dash.Dash, context: Context) -> None:
    """Send requests to the queue, show what becomes of them, and keep the address in step."""
    study = context.study
    lab_clip.register(app, study)
    lab_edits.register(app, study)
    lab_result.register(app, context)

    app.clientside_callback(
        ClientsideFunction("lab", "tab"),
        Output("lab-page", "data"),
        Input("url", "pathname"),
        State("lab-page", "data"),
    )

    @app.callback(
        Output("lab-recalled", "data"),
        Input("url", "pathname"),
        Input("lab-page", "data"),  # waits for the name of the tab
        State("url", "search"),
    )
    def open_link(path: str | None, own: str | None, search: str | None) -> tuple[dict[str, Any], str]:
        """Load the model while the visitor chooses, and show what the address asks for if it is made or being made."""
        if page_path(path) != PATH:
            raise PreventUpdate
        context.jobs.prepare(study)
        return recalled(context, asked(study, read_query(search))[0], search, own)

    # In the browser: what was asked for meanwhile stays.
    app.clientside_callback(
        ClientsideFunction("lab", "opened"),
        Output("lab-asked", "data", allow_duplicate=True),
        Output("lab-status", "children", allow_duplicate=True),
        Input("lab-recalled", "data"),
        State("lab-asked", "data"),
        prevent_initial_call=True,
    )

    # In the browser: an answer about an earlier job must not end the questions about the latest.
    app.clientside_callback(
        ClientsideFunction("lab", "isOver"),
        Output("lab-tick", "disabled"),
        Input("lab-asked", "data"),
        Input("lab-over", "data"),
    )

    app.clientside_callback(
        ClientsideFunction("lab", "pace"),
        Output("lab-tick", "interval"),
        Input("lab-tick", "n_intervals"),
        Input("lab-asked", "data"),
    )

    app.clientside_callback(
        ClientsideFunction("lab", "moved"),
        Output("lab-status", "children", allow_duplicate=True),
        *_MOVED,
        State("lab-asked", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("lab-asked", "data"),
        Output("url", "search", allow_duplicate=True),
        Output("lab-error", "children"),
        Output("lab-error-holder", "hidden"),
        Output("lab-error", "title"),
        Output("lab-status", "children", allow_duplicate=True),
        Input("lab-render", "n_clicks"),
        *_MOVED,
        *_CLIP,
        *_EDITS,
        State("lab-asked", "data"),
        State("lab-page", "data"),
        prevent_initial_call=True,
    )
    def render(clicks: int | None, strengths: list[Any], switches: list[Any], *form: Any) -> tuple[Any, ...]:
        del strengths, switches
        *values, latest, own = form
        try:
            request = form_request(study, values)
        except UserError as error:
            if ctx.triggered_id != "lab-render":
                raise PreventUpdate from error
            return _refused(error)
        query = write_query(dict(request.query()))
        if ctx.triggered_id == "lab-render":
            if not clicks:
                raise PreventUpdate
        elif not lab_result.is_change(latest, query):
            raise PreventUpdate
        try:
            return (*submitted(context, request, latest, own), "", True, no_update, no_update)
        except UserError as error:
            return _refused(error)

    @app.callback(
        Output("lab-asked", "data", allow_duplicate=True),
        Output("lab-status", "children", allow_duplicate=True),
        Output("lab-error-holder", "hidden", allow_duplicate=True),
        Output("lab-notice", "children"),
        Output("lab-notice-holder", "hidden"),
        *(Output(f"lab-{name}", "value") for name in lab_clip.FIELDS),
        Output("lab-edits", "children"),
        Input("url", "search"),
        State("url", "pathname"),
        State("lab-asked", "data"),
        State("lab-page", "data"),
        prevent_initial_call=True,
    )
    def follow_address(
        search: str | None, path: str | None, latest: dict[str, Any] | None, own: str | None
    ) -> tuple[Any, ...]:
        query = read_query(search)
        if page_path(path) != PATH or latest is None or read_query(latest.get("query")) == query:
            raise PreventUpdate
        request, fault = asked(study, query)
        data, status = followed(context, request, latest, search, own)
        fields = (*lab_clip.values(request), lab_edits.cards(study, request))
        return data, status, True, fault, not fault, *fields


def _refused(error: UserError) -> tuple[Any, ...]:
    """What `render` returns for a request that is refused; the status may have said why already."""
    return no_update, no_update, with_code(str(error)), False, lab_result.REFUSED, lab_result.NOT_RENDERED


def followed(
    context: Context, request: LabRequest, latest: dict[str, Any], search: str | None, own: str | None
) -> tuple[dict[str, Any], Any]:
    """The store's data and what is said when the address of a page is changed, which has been used if it has jobs."""
    if latest.get("jobs"):
        with suppress(UserError):  # which is told below
            return submitted(context, request, latest, own)[0], no_update
    data, status = recalled(context, request, search, own)
    return data, status or no_update


def recalled(
    context: Context, request: LabRequest, search: str | None, own: str | None = None
) -> tuple[dict[str, Any], str]:
    """The store's data with the clips of a request that are made or being made, and ""; or how or why not to."""
    job = context.jobs.recall(context.study, request, own or "")
    data = {"jobs": [job.id] if job else [], "query": search or ""}
    return data, "" if job else _not_made(context, request)


def _not_made(context: Context, request: LabRequest) -> str:
    """What is said of a clip that the study does not have."""
    try:
        context.jobs.check(context.study, request)
    except UserError as error:
        return f"{IMPOSSIBLE} {error}"
    return NOT_MADE


def form_request(study: Study, values: list[Any]) -> LabRequest:
    """The request of the page's fields; raise UserError with a sentence on what is wrong in them."""
    of_clip, (fields, field_ids, switches, switch_ids) = (
        values[: len(lab_clip.FIELDS)],
        values[len(lab_clip.FIELDS) :],
    )
    given = [*zip(field_ids, fields, strict=True), *zip(switch_ids, switches, strict=True)]
    clip = lab_clip.given(of_clip)
    if isinstance(duration := clip.get("duration"), int | float):
        check_duration(float(duration), study.spec.settings)
    return request_of({**clip, "edits": lab_edits.given(given)})


def submitted(
    context: Context, request: LabRequest, latest: dict[str, Any] | None, own: str | None = None
) -> tuple[dict[str, Any], str]:
    """Queue a request in place of the page's last one; return the store's data, and the address.

    `own` is the page's own name among the open pages.
    """
    job = context.jobs.submit(context.study, request, own or "")
    known = [id for id in (latest or {}).get("jobs", []) if id != job.id]
    query = write_query(dict(request.query()))
    return {"jobs": [*known, job.id][-lab_result.MOST_SHOWN :], "query": query}, query


PAGE = Page(PATH, NAME, SENTENCE, layout, choices, register)
