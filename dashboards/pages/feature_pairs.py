"""Two autoencoders: which feature of one is the same as each feature of the other."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
from dash import Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.sae.pairs import By, Pairs
from cache.errors import UserError
from dashboards.components.no_results import no_results
from dashboards.components.text import empty_state, panel
from dashboards.context import Context
from dashboards.feature_browser import browser_frame
from dashboards.feature_pairs import matched_pairs
from dashboards.links import address, change_query, read_query, write_query
from dashboards.names import shortened
from dashboards.numbers import fixed
from dashboards.pages.page import Page, Query
from dashboards.result_commands import command
from dashboards.results import MOST_TOLD, faults_of_kind, sae_names, sae_site
from workbench.studies.study import Study

PATH = "/feature-pairs"
NAME = "Pairs of features"
SENTENCE = "The features of two autoencoders in pairs: which of one is the same as which of the other."
SHOWN = 50
LEAST_WIDTH = 820
"""Pixels of the table, which scrolls sideways where there is less room."""
BY: dict[By, str] = {"decoder": "decoder (cosine)", "clips": "clips (correlation)"}
LEAST = "least"
LONGEST_NAME = 40  # characters of a label or concept in the table
WAIT = "The features are being matched, which is done once; the rest of the dashboard can be used meanwhile."
PATIENCE, EVERY_MS = 0.3, 400
"""Seconds after which the page shows how far the matching is, and milliseconds after which it asks again."""
HELP = (
    "Cosine: of the decoder rows, the directions that the features add. Correlation: of the features' mean activations "
    "over clips. Mutual: each is the other's nearest. Features that are active in no clip are left out."
)


def layout(context: Context, query: Query) -> Component:
    """The pairs, or instructions if there are no two sparse autoencoders."""
    study = context.study
    names = sae_names(study)
    if len(names) < 2:
        faults = faults_of_kind(study, "sae")
        what = "There are no two sparse autoencoders to compare."
        then = "This page matches the features of two autoencoders, such as of two seeds or sites."
        made = command(study, "sae") + " --seed 1"
        if names and faults:
            return empty_state(faults[:MOST_TOLD], then)
        return empty_state([what], then, made) if names else no_results(study, "sae", what, then, made)
    name, other, by = _asked(study, query)
    choices = [{"value": each, "label": each} for each in names]
    controls = [
        dmc.Select(
            id=f"pairs-{key}",
            label=label,
            data=data,
            value=value,
            allowDeselect=False,
            size="xs",
        )
        for key, label, data, value in (
            ("sae", "Features of", choices, name),
            ("with", "Compare with", choices, other),
            ("by", "Matched by", [{"value": "", "label": "automatic"}, *_labelled(BY)], by or ""),
            (
                "order",
                "Order",
                _labelled({"": "most alike first", LEAST: "least alike first"}),
                _order(query),
            ),
        )
    ]
    pages = dmc.Pagination(
        id="pairs-page", total=1, value=_page(query), size="sm", mt="sm", withControls=False
    )
    progress = dmc.Progress(id="pairs-done", value=0, **{"aria-label": "part of the matching that is done"})
    return panel(
        "Pairs",
        html.Div(controls, className="controls"),
        html.Div([html.P(WAIT, role="status"), progress], id="pairs-wait", hidden=True),
        html.Div(id="pairs-table"),
        dcc.Interval(id="pairs-tick", interval=EVERY_MS, disabled=True),
        pages,
        help=HELP,
    )


def choices(context: Context, query: Query) -> dict[str, list[str]]:
    """The values that this page accepts in its URL."""
    names = sae_names(context.study)
    if len(names) < 2:
        return {}
    page = query.get("page", "")
    return {
        "sae": names,
        "with": names,
        "by": list(BY),
        "order": [LEAST],
        "page": [page if str(_page(query)) == page else "1"],
    }


def register(app: dash.Dash, context: Context) -> None:
    """Keep the pairs in sync with the selection in the URL."""
    study = context.study

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("pairs-sae", "value"),
        Input("pairs-with", "value"),
        Input("pairs-by", "value"),
        Input("pairs-order", "value"),
        Input("pairs-page", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select(name: str, other: str, by: str, order: str, page: int, search: str | None) -> Any:
        query = read_query(search)
        if len(sae_names(study)) < 2:  # any more
            raise PreventUpdate
        shown = _asked(study, query)
        if (name, other, by or None, order or "") == (*shown, _order(query)):
            return no_update if page == _page(query) else change_query(search, page=_number(page))
        return change_query(search, sae=name, **{"with": other}, by=by, order=order, page=None)

    @app.callback(
        Output("pairs-sae", "value"),
        Output("pairs-with", "value"),
        Output("pairs-by", "value"),
        Output("pairs-order", "value"),
        Output("pairs-page", "value"),
        Output("pairs-page", "total"),
        Output("pairs-table", "children"),
        Output("pairs-wait", "hidden"),
        Output("pairs-done", "value"),
        Output("pairs-tick", "disabled"),
        Input("url", "search"),
        Input("pairs-tick", "n_intervals"),
    )
    def show(search: str | None, _ticks: int | None) -> tuple[Any, ...]:
        query = read_query(search)
        if len(sae_names(study)) < 2:
            raise PreventUpdate
        name, other, by = _asked(study, query)
        chosen = (name, other, by or "", _order(query))
        try:
            found = matched_pairs(study, name, other, by, PATIENCE)
        except UserError as error:
            return (*chosen, 1, 1, dmc.Text(str(error), size="sm", c="dimmed"), *_OVER)
        if isinstance(found, float):
            return (*chosen, no_update, no_update, None, False, 100 * found, False)
        total = max(1, -(-len(found.frame) // SHOWN))
        page = min(_page(query), total)
        frame = found.frame[::-1] if _order(query) else found.frame
        rows = frame.iloc[(page - 1) * SHOWN : page * SHOWN]
        said = html.P(summary(found, other) + _sites(study, name, other), role="status", className="said")
        return (*chosen, page, total, html.Div([said, _table(study, name, other, rows)]), *_OVER)


_OVER = (True, 0, True)
"""Nothing to wait for: the progress hidden, and no more questions."""


def summary(found: Pairs, other: str) -> str:
    """How alike the features are, how they were matched, and over how many clips."""
    frame = found.frame
    matched = frame[frame["other"] >= 0]
    how = (
        "one to one" if found.is_one_to_one else "each with its nearest, as they are too many for one to one"
    )
    by = "decoder" if found.by == "decoder" else "mean activation over clips"
    medians = [
        f"{name} {fixed(matched[name].median())}"
        for name in ("cosine", "correlation")
        if matched[name].notna().any()
    ]
    said = (
        f"{len(matched):,} of {len(frame):,} active features have a counterpart among the {found.others:,} of {other}, "
        f"matched by {by}, {how}"
    )
    said += f"; medians: {', '.join(medians)}" if medians else ""
    said += f"; {int(frame['is_mutual'].sum()):,} are each other's nearest."
    said += f" Correlations are over {found.clips:,} clips."
    if frame["cosine"].isna().all():
        said += " Their decoders have no cosines, as they write to other numbers of channels."
    return said


def pairs_of(name: str) -> str:
    """The URL of this page for an autoencoder."""
    return address(PATH) + write_query({"sae": name})


def _table(study: Study, name: str, other: str, rows: pd.DataFrame) -> Component:
    heads = (
        "feature",
        "label",
        "best concept",
        "counterpart",
        "label",
        "best concept",
        "cosine",
        "correlation",
    )
    sides = {
        column: browser_frame(study, each).set_index("feature")[["label", "best_value"]]
        for column, each in (("feature", name), ("other", other))
    }
    lines = [
        dmc.TableTr(
            [
                *_feature(name, int(row["feature"]), sides["feature"]),
                *_feature(other, int(row["other"]), sides["other"]),
                dmc.TableTd(fixed(row["cosine"])),
                dmc.TableTd(fixed(row["correlation"])),
                dmc.TableTd("mutual" if row["is_mutual"] else ""),
            ]
        )
        for _, row in rows.iterrows()
    ]
    head = dmc.TableThead(dmc.TableTr([*map(dmc.TableTh, heads), dmc.TableTh("mutual")]))
    return dmc.ScrollArea(
        dmc.Table([head, dmc.TableTbody(lines)], fz="xs", verticalSpacing=3, miw=LEAST_WIDTH)
    )


def _feature(name: str, feature: int, written: pd.DataFrame) -> list[Component]:
    if feature < 0:
        return [dmc.TableTd("none"), dmc.TableTd(""), dmc.TableTd("")]
    link = dcc.Link(str(feature), href=address("/features") + write_query({"sae": name, "feature": feature}))
    label, best = written.loc[feature]
    return [dmc.TableTd(link), *(dmc.TableTd(shortened(str(text), LONGEST_NAME)) for text in (label, best))]


def _labelled(names: dict[Any, str]) -> list[dict[str, str]]:
    return [{"value": value, "label": label} for value, label in names.items()]


def _asked(study: Study, query: Query) -> tuple[str, str, By | None]:
    """The autoencoder, the other one, and what they are matched by; those that are not in the URL are chosen."""
    names = sae_names(study)
    name = query["sae"] if query.get("sae") in names else _first(study, names)
    other = query["with"] if query.get("with") in names else _like(study, name, names)
    return name, other, next((by for by in BY if by == query.get("by")), None)


def _first(study: Study, names: list[str]) -> str:
    """The first autoencoder that another one has the same site as; the first of all if there is none."""
    sites = [sae_site(study, name) for name in names]
    return next((name for name, site in zip(names, sites, strict=True) if sites.count(site) > 1), names[0])


def _like(study: Study, name: str, names: list[str]) -> str:
    """Another autoencoder to compare one with: the first of the same site, or else the first."""
    site = sae_site(study, name)
    return min((each for each in names if each != name), key=lambda each: sae_site(study, each) != site)


def _sites(study: Study, name: str, other: str) -> str:
    """A sentence if two autoencoders are of different sites; "" if they are not."""
    one, two = sae_site(study, name), sae_site(study, other)
    return (
        ""
        if one == two
        else f" They are of different sites, {one} and {two}: few features need have a counterpart."
    )


def _order(query: Query) -> str:
    return LEAST if query.get("order") == LEAST else ""


def _page(query: Query) -> int:
    page = query.get("page", "")
    return max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1


def _number(page: int) -> int | None:
    return None if page == 1 else page


PAGE = Page(
    PATH,
    NAME,
    SENTENCE,
    layout,
    choices,
    register,
    is_linked=lambda context: len(sae_names(context.study)) > 1,
    kind="sae",
    named_by="sae",
)
