"""The dashboard of a folder of studies: a list, and every study's own dashboard below a path of its own."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, dcc, html
from dash.development.base_component import Component
from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from cache.errors import UserError
from dashboards.address import Address
from dashboards.app import Dashboard, bare_app, open_context, read_ahead
from dashboards.away import away
from dashboards.components.notices import remarks
from dashboards.components.text import page_header, wide_table, with_code
from dashboards.jobs import Jobs
from dashboards.links import page_path
from dashboards.names import shortened
from dashboards.shell import LONGEST_NAME, UNKNOWN, provider, scheme_switch
from dashboards.studies_folder import KINDS, STUDY_PATH, Listed, StudiesFolder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SENTENCE = "The studies in this folder: what each examines, what has been computed, and when."
HEADINGS = ("study", "model", "clips", "results", "last change")


class StudiesDashboard:
    """The WSGI application of a folder of studies; a study's dashboard is made when it is first asked for.

    All of them have the same background `jobs`: one model at a time.
    """

    def __init__(
        self, path: Path, address: Address, *, published: Path | None = None, jobs: Jobs | None = None
    ) -> None:
        address.check()
        self._folder = StudiesFolder(path, address.url_prefix)
        self._address = address
        self._published = published
        self._jobs = jobs or Jobs()
        self._dashboards: dict[str, Dashboard] = {}
        self._lock = threading.Lock()
        self.app = _list_app(self._folder, address)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request: that of a study by its own dashboard, any other, and of what is no study, by the list."""
        name, rest = _study_of(environ["PATH_INFO"])
        if rest:
            try:
                dashboard = self._dashboard(name)
            except UserError:
                return self.app.server(environ, start_response)  # says what is wrong
            taken = environ["PATH_INFO"].removesuffix(rest)
            moved = {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + taken, "PATH_INFO": rest}
            return dashboard({**environ, **moved}, start_response)
        return self.app.server(environ, start_response)

    def _dashboard(self, name: str) -> Dashboard:
        """The dashboard of a study; raise UserError if there is no such study, or it cannot be opened."""
        path = self._folder.study_path(name)
        with self._lock:
            if name not in self._dashboards:
                address = replace(self._address, prefix=self._folder.url(name))
                context = open_context(path, published=self._published, folder=self._folder, jobs=self._jobs)
                self._dashboards[name] = Dashboard(context, address)
                threading.Thread(target=read_ahead, args=(context.study,), daemon=True).start()
            return self._dashboards[name]


def _study_of(path_info: str) -> tuple[str, str]:
    """The name of the study in a WSGI path (`/study/NAME/…`) and the rest of the path from its slash on, or ""."""
    start = f"/{STUDY_PATH}/"
    if not path_info.startswith(start):
        return "", ""
    name, slash, rest = path_info.removeprefix(start).partition("/")
    return name.encode("latin-1").decode("utf-8", "replace"), slash + rest


def _list_app(folder: StudiesFolder, address: Address) -> dash.Dash:
    """The app of the list."""

    def layout() -> Component:
        rows = html.Div(_table(folder), id="studies")
        content = html.Main(
            [
                dmc.Group(
                    [page_header("Studies", SENTENCE), scheme_switch()],
                    justify="space-between",
                    align="start",
                    wrap="nowrap",
                ),
                html.Div(id="remarks"),
                rows,
            ],
            id="content",
            className="page alone",
            **{"data-version": folder.version()},
        )
        return provider([dcc.Location(id="url", refresh=False), content])

    def register(app: dash.Dash) -> None:
        @app.callback(
            Output("studies", "children"), Input("content", "data-version"), prevent_initial_call=True
        )
        def show(version: str | None) -> Component:
            del version  # only says that something has changed
            return _table(folder)

        @app.callback(Output("remarks", "children"), Input("url", "pathname"))
        def show_remarks(path: str | None) -> Component | None:
            if (asked := page_path(path)) == "/":
                return None
            sentence = (
                f"There is no page '{shortened(asked, LONGEST_NAME)}', so the list of studies is shown."
            )
            return remarks([sentence], UNKNOWN, "yellow")

        _add_routes(app.server, folder)

    title = f"{folder.path.resolve().name} · workbench"
    return bare_app(title, address, layout, register, folder.fault)


def _add_routes(server: Flask, folder: StudiesFolder) -> None:
    def alive() -> tuple[str, int, dict[str, str]]:
        """Answer open pages that check whether the server is still running, and whether the list has changed."""
        return "", 204, {"Study-Version": folder.version()}

    def missing(name: str, rest: str = "") -> AnyResponse:
        """Send a study's address to its slash; say what is wrong with one that has no dashboard."""
        try:
            folder.study_path(name)
        except UserError as error:
            return refused(str(error), 404)
        if not rest:
            return redirect(folder.url(name))
        return refused(_fault(folder, name), 422)

    def refused(sentence: str, status: int) -> Response:
        """Say it; to callbacks of an open page so that it waits for the study."""
        if request.method == "POST":
            return away(sentence)
        return Response(f"{sentence}\n", status, mimetype="text/plain")

    server.add_url_rule("/_alive", view_func=alive)
    server.add_url_rule(f"/{STUDY_PATH}/<name>", view_func=missing)
    server.add_url_rule(f"/{STUDY_PATH}/<name>/", view_func=missing, defaults={"rest": "/"}, endpoint="slash")
    below = f"/{STUDY_PATH}/<name>/<path:rest>"
    server.add_url_rule(below, view_func=missing, endpoint="below", methods=["GET", "POST"])


def _fault(folder: StudiesFolder, name: str) -> str:
    return next((one.fault for one in folder.listed() if one.name == name), "")


def _table(folder: StudiesFolder) -> Component:
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(name) for name in HEADINGS]))
    body = dmc.TableTbody([_row(folder, one) for one in folder.listed()])
    table = dmc.Table([head, body], verticalSpacing="xs", fz="sm")
    return dmc.Paper(wide_table(table), withBorder=True, radius="md", p="md")


def _row(folder: StudiesFolder, one: Listed) -> Component:
    if one.fault:
        breaks: dict[str, Any] = {"overflowWrap": "anywhere"}  # paths have no spaces
        fault = dmc.TableTd(with_code(one.fault), tableProps={"colSpan": 4}, style=breaks)
        return dmc.TableTr([dmc.TableTd(one.name), fault])
    results = [
        f"{KINDS[kind]} ({count})" if count > 1 else KINDS[kind] for kind, count in one.results.items()
    ]
    link = html.A(one.name, href=folder.url(one.name), className="study-link")
    return dmc.TableTr(
        [
            dmc.TableTd(part)
            for part in (link, one.model, f"{one.clips:,}", ", ".join(results) or "–", one.changed)
        ]
    )
