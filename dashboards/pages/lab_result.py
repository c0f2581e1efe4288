"""What becomes of the lab's requests: progress, the clips side by side, their difference, scores, and code.

`lab_names.py` names the clips, `lab_scores.py` has the table of scores.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.lab.code import as_command, as_python
from analyses.lab.request import LabRequest, read_request
from cache.errors import UserError
from dashboards.components.ab import Side, ab_player, ab_sides
from dashboards.components.text import panel, with_code
from dashboards.context import Context
from dashboards.jobs import Job
from dashboards.lab_link import PATH
from dashboards.links import address, read_query, write_query
from dashboards.pages.lab_names import UNEDITED, caption, strengths, title, without_strength
from dashboards.pages.lab_scores import scores_table
from dashboards.pictures import DIFFERENCE_DB, difference_png
from workbench.studies.study import Study

MOST_SHOWN = 5
"""Clips of a page's latest requests that stay in the player."""
LISTEN_HELP = (
    "The unedited clip, and those of the latest requests with the same prompt, lyrics, seed and settings. All start "
    "from the same initial noise; a switch keeps the position."
)
DIFFERENCE_HELP = (
    "Mel spectrogram of the latest edited clip minus that of the unedited one, in decibels: red is louder in the "
    f"edited clip, blue is softer, and the colours end at ±{DIFFERENCE_DB:g} dB. Levels more than 80 dB below the "
    "loudest are equal."
)
SCORES_HELP = (
    "What each judge of the study gives both clips: for trained judges the probability of a value, for descriptors the "
    "value in its unit. The distance is that of the two clips' log-mel spectrograms; it is undefined if it "
    "could not be measured."
)
LINK_HELP = "Whoever opens it sees the same fields, and hears this clip if the study has it."
REFUSED = "This cannot be rendered"
NOT_RENDERED = "Not rendered."
NOT_SCORED = "This cannot be scored"
NO_RECORDING = "This cannot be shown"
NOT_SHOWN = "Not shown."
GONE = "The dashboard was started again, and this clip is no longer being made: press Render (G) to make it."
CODE_HELP = "The command and the Python program that make the edited clip."


def layout() -> Component:
    """The panels, empty until something is rendered."""
    alert = dmc.Alert("", id="lab-error", title=REFUSED, color="red", variant="light")
    error = html.Div(alert, id="lab-error-holder", hidden=True, role="alert")
    progress = html.Div(
        [
            dmc.Text("Looking whether the study has this clip.", id="lab-status", size="sm"),
            dmc.Progress(id="lab-progress", value=0, **{"aria-label": "progress"}),
        ],
        role="status",
    )
    difference = html.Div(
        [
            dmc.Text("Difference, edited minus unedited", size="xs", fw=500, mb=2),
            html.Img(
                id="lab-difference", className="lab-difference", alt="difference of the mel spectrograms"
            ),
        ],
        id="lab-difference-holder",
        className="lab-difference-holder",
        hidden=True,
        title=DIFFERENCE_HELP,
    )
    listen = panel("Listen", error, progress, ab_player("lab-players"), difference, _link(), help=LISTEN_HELP)
    return dmc.Stack(
        [
            listen,
            html.Div(
                panel("Scores", html.Div(id="lab-scores"), help=SCORES_HELP),
                id="lab-scores-holder",
                hidden=True,
            ),
            html.Div(panel("Copy as code", *_code(), help=CODE_HELP), id="lab-code-holder", hidden=True),
        ],
        gap="md",
    )


def _link() -> Component:
    """The link to the latest clip; the page's script copies it."""
    link = html.A("Link to this clip", id="lab-link", href="", target="_blank", className="lab-link")
    copy = dmc.Button("Copy link", id="lab-copy-link", size="compact-sm", variant="light")
    return html.Div(dmc.Group([copy, link], gap="sm"), id="lab-link-holder", hidden=True, title=LINK_HELP)


def _code() -> list[Component]:
    return [
        html.Div(
            [
                dmc.Group(
                    [
                        dmc.Text(title, size="xs", fw=500),
                        dcc.Clipboard(target_id=id, title=f"copy the {title}"),
                    ],
                    gap=6,
                ),
                dmc.Code(id=id, block=True, className="command"),
            ],
            className="lab-code",
        )
        for title, id in (("command", "lab-command"), ("Python", "lab-python"))
    ]


def is_change(latest: dict[str, Any] | None, query: str) -> bool:
    """Whether a query changes what the page has rendered, with as many edits: a moved slider or a switch."""
    if not latest or not latest.get("jobs"):
        return False
    base = LabRequest(prompt="-")
    before, after = (read_request(read_query(each), base)[0].edits for each in (latest.get("query"), query))
    return len(before) == len(after) and before != after


def register(app: dash.Dash, context: Context) -> None:
    """Ask for the page's jobs while one is not over, and show what there is; cancel the latest."""

    @app.callback(
        Output("lab-status", "children"),
        Output("lab-progress", "value"),
        Output("lab-over", "data"),
        Output("lab-cancel", "disabled"),
        Output("lab-cancel", "children"),
        Output("lab-error", "children", allow_duplicate=True),
        Output("lab-error-holder", "hidden", allow_duplicate=True),
        Output("lab-error", "title", allow_duplicate=True),
        Output("lab-players", "data-sides"),
        Output("lab-difference", "src"),
        Output("lab-difference-holder", "hidden"),
        Output("lab-scores", "children"),
        Output("lab-scores-holder", "hidden"),
        Output("lab-command", "children"),
        Output("lab-python", "children"),
        Output("lab-code-holder", "hidden"),
        Output("lab-link", "href"),
        Output("lab-link-holder", "hidden"),
        Input("lab-tick", "n_intervals"),
        State("lab-asked", "data"),
        prevent_initial_call=True,
    )
    def show(ticks: int | None, asked: dict[str, Any] | None) -> tuple[Any, ...]:
        del ticks
        ids = (asked or {}).get("jobs", [])
        if not ids:
            raise PreventUpdate
        jobs = [job for id in ids if (job := context.jobs.get(id))]
        if not jobs or jobs[-1].id != ids[-1]:
            return _ended(ids[-1], GONE)
        try:
            return _shown(context, jobs)
        except UserError as error:  # such as of a recording that was removed meanwhile
            return _ended(ids[-1], NOT_SHOWN, str(error))

    @app.callback(
        Output("lab-cancel", "disabled", allow_duplicate=True),
        Input("lab-cancel", "n_clicks"),
        State("lab-page", "data"),
        prevent_initial_call=True,
    )
    def cancel(clicks: int | None, own: str | None) -> bool:
        if not clicks or not own:
            raise PreventUpdate
        context.jobs.cancel_page(own)
        return True


def _shown(context: Context, jobs: Sequence[Job]) -> tuple[Any, ...]:
    """What the page shows of its jobs; raise UserError if their recordings cannot be read."""
    study, latest = context.study, jobs[-1]
    heard = [job for job in jobs if job.rendered and _same_clip(job, latest)]
    shown = heard[-1] if heard else None
    made = latest if latest.rendered else shown
    difference = _difference(study, shown)
    return (
        _status(context, latest),
        100 * latest.progress,
        latest.id if latest.is_over else None,
        latest.is_over,
        "Stop scoring" if latest.state == "scoring" else "Cancel",
        *_error(latest.error, NOT_SCORED if latest.rendered else REFUSED),
        sides(study, heard) if shown else dash.no_update,
        difference,
        not difference,
        scores_table(latest.scores, bool(latest.request.active)) if latest.scores else dash.no_update,
        not (made and made.scores),
        *((as_command(study, made.request), as_python(study, made.request)) if made else ("", "")),
        made is None,
        link_to(made.request) if made else "",
        made is None,
    )


def _ended(id: str, status: str, error: str = "") -> tuple[Any, ...]:
    """A sentence on a job of which no more can be shown; what is shown of others stays."""
    rest = (dash.no_update,) * 10
    return status, 0, id, True, "Cancel", *_error(error, NO_RECORDING), *rest


def _error(error: str, title: str) -> tuple[Any, Any, Any]:
    """The alert with an error; without one, it may tell what is wrong in the fields, and stays."""
    return (with_code(error), False, title) if error else (dash.no_update,) * 3


def link_to(request: LabRequest) -> str:
    """The address of the page with a request."""
    return address(PATH) + write_query(dict(request.query()))


def _same_clip(job: Job, other: Job) -> bool:
    bare = [each.request.model_copy(update={"edits": ()}) for each in (job, other)]
    return bare[0] == bare[1]


def _status(context: Context, job: Job) -> str:
    if job.is_replaced:  # the page does not know of its next one yet
        return "Waiting."
    ahead = context.jobs.ahead(job.id)
    if job.state == "waiting" and ahead:
        return f"Waiting: {ahead} {'clip is' if ahead == 1 else 'clips are'} rendered first."
    if job.rendered and job.state == "cancelled":
        return "Ready to be heard. Scoring was stopped."
    if job.rendered and not job.request.active:
        return "No edit is on: you hear the unedited clip."
    texts = {
        "scoring": "Ready to be heard. Judges are listening.",
        "done": "Ready to be heard.",
        "failed": "Ready to be heard, but not scored." if job.rendered else NOT_RENDERED,
    }
    return texts.get(job.state, f"{job.message}.")


def sides(study: Study, jobs: Sequence[Job]) -> str:
    """What the player plays: the unedited clip, and the edited clips of jobs, each once; the latest is heard.

    Clips that differ in one strength are also chosen by it.
    """
    latest = jobs[-1]
    assert latest.rendered is not None
    edited = {title(job.request): job for job in jobs if job.rendered and job.request.active}
    alike = {without_strength(job.request) for job in edited.values()}
    by_strength = len(alike) == 1 and None not in alike
    found = [Side(UNEDITED, "", ("no edits",), latest.rendered.unedited, 0.0 if by_strength else None)]
    for name, job in edited.items():
        assert job.rendered is not None
        strength = strengths(job.request)[0] if by_strength else None
        found.append(Side(name, "", (name,), job.rendered.edited, strength))
    return ab_sides(
        study, found, latest.rendered.seconds, caption(study, latest.request), title(latest.request)
    )


def _difference(study: Study, job: Job | None) -> str:
    """The picture of the difference; "" without edits, or if a recording cannot be read, which its player says."""
    if job is None or job.rendered is None or not job.request.active:
        return ""
    with suppress(UserError, OSError):
        return difference_png(study, job.rendered.edited, job.rendered.unedited, job.rendered.seconds)
    return ""
