"""Clip: which features fire in a clip, at a second and a step of it."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.sae.trace import active_features
from cache.errors import UserError
from dashboards.components.no_results import no_results
from dashboards.components.player import Recording, recordings_data
from dashboards.components.text import panel
from dashboards.context import Context
from dashboards.feature_browser import browser_frame
from dashboards.links import address, change_query, read_query, write_query
from dashboards.numbers import fixed, percent, significant
from dashboards.pages import clip_moment
from dashboards.pages.feature_saes import asked_sae
from dashboards.pages.page import Choices, Page, Query
from dashboards.results import load_result, sae_names
from workbench.studies.study import Study

PATH = "/clip"
NAME = "Clips"
SENTENCE = (
    "The features that fire in a clip. Click the spectrogram to see those of a second, or the picture below it to see "
    "those of a second and a denoising step."
)
SHOWN = 40
LEAST_WIDTH = 700
"""Pixels of the table, which scrolls sideways where there is less room."""
EVERY_STEP, BY_ACTIVATION, BY_SHARE = "all", "activation", "share"
HELP = (
    "Activation: the largest at the chosen second and step, or over all of them. Of its maximum: divided by the "
    "feature's largest activation in any clip, so at most 100 %; this order finds features that seldom "
    "fire as strongly as here."
)


def layout(context: Context, query: Query) -> Component:
    """The clip and the features that fire in it, or instructions if there is no sparse autoencoder."""
    study = context.study
    names = sae_names(study)
    if not names:
        then = "This page lists the features that fire in a clip, at any second and denoising step of it."
        return no_results(study, "sae", "No sparse autoencoder yet.", then)
    controls = [
        dmc.NumberInput(
            id="firing-number",
            label=f"Clip (0 to {len(study.clips) - 1:,})",
            value=_clip(study, query),
            min=0,
            max=len(study.clips) - 1,
            allowDecimal=False,
            debounce=True,
            size="xs",
        ),
        dmc.Select(
            id="firing-sae",
            label="Autoencoder",
            data=names,
            value=asked_sae(study, query),
            allowDeselect=False,
            size="xs",
        ),
        dmc.NumberInput(
            id="firing-second",
            label="Second (empty: all)",
            value=query.get("second", ""),
            min=0,
            step=0.1,
            decimalScale=2,
            debounce=True,
            size="xs",
        ),
        dmc.Select(
            id="firing-step",
            label="Denoising step",
            data=[{"value": EVERY_STEP, "label": "all steps"}, *_steps(study, asked_sae(study, query))],
            value=query.get("step", EVERY_STEP),
            allowDeselect=False,
            size="xs",
        ),
        dmc.Select(
            id="firing-order",
            label="Ranked by",
            data=[
                {"value": BY_ACTIVATION, "label": "activation"},
                {"value": BY_SHARE, "label": "activation of its maximum"},
            ],
            value=query.get("by", BY_ACTIVATION),
            allowDeselect=False,
            size="xs",
        ),
    ]
    return dmc.Stack(
        [
            panel(
                "Clip",
                html.Div(controls, className="controls printed"),
                dmc.Text(id="firing-prompt", size="sm", mb="xs", style={"overflowWrap": "anywhere"}),
                clip_moment.layout(),
            ),
            panel("Features that fire here", html.Div(id="firing-features"), help=HELP),
        ]
    )


def choices(context: Context, query: Query) -> Choices:
    """The values that this page accepts in its URL; a second is any number up to the clip's duration."""
    study = context.study
    names = sae_names(study)
    if not names:
        return {}
    name, clip = asked_sae(study, query), _clip(study, query)
    steps, clips = (load_result(study, f"sae-{name}")["step"].values, study.clips.set_index("clip"))
    seconds, second = float(clips.loc[clip, "duration"]), query.get("second", "")
    found = _number(second)
    is_inside = found is not None and found <= seconds
    return {
        "sae": names,
        "clip": _one_of("the clips are", query.get("clip", ""), clips.index.tolist()),
        "step": _one_of(f"the steps of {name} are", query.get("step", ""), steps.tolist()),
        "by": [BY_SHARE],
        "second": [second] if is_inside else f"clip {clip} has the seconds 0 to {seconds:g}",
    }


def _one_of(what: str, asked: str, numbers: list[int]) -> list[str] | str:
    """The number in the URL, or a phrase on which there are if it is none of them."""
    if asked in map(str, numbers):
        return [asked]
    is_range = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{what} {f'{numbers[0]} to {numbers[-1]}' if is_range else ', '.join(map(str, numbers))}"


def register(app: dash.Dash, context: Context) -> None:
    """Keep clip, moment and features in sync with the selection in the URL."""
    study = context.study

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("firing-number", "value"),
        Input("firing-sae", "value"),
        Input("firing-second", "value"),
        Input("firing-step", "value"),
        Input("firing-order", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def select(clip: Any, name: str, second: Any, step: str, by: str, search: str | None) -> Any:
        asked = {
            "clip": "" if clip in (None, "") else str(clip),
            "sae": name,
            "second": "" if _number(str(second)) is None else f"{float(second):g}",
            "step": "" if step == EVERY_STEP else step,
            "by": "" if by == BY_ACTIVATION else by,
        }
        query = read_query(search)
        shown = {**query, "clip": str(_clip(study, query)), "sae": asked_sae(study, query)}
        if asked == {name: shown.get(name, "") for name in asked}:
            return no_update
        return change_query(search, **asked)

    @app.callback(
        Output("firing-number", "value"),
        Output("firing-sae", "value"),
        Output("firing-second", "value"),
        Output("firing-step", "value"),
        Output("firing-order", "value"),
        Output("firing-player", "data-recordings"),
        Output("firing-prompt", "children"),
        Output("firing-features", "children"),
        *clip_moment.outputs(),
        Input("url", "search"),
    )
    def show(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        if not sae_names(study):  # any more
            raise PreventUpdate
        clip, name = _clip(study, query), asked_sae(study, query)
        row = study.clips.set_index("clip").loc[clip]
        path = study.audio_path(clip).relative_to(study.path).as_posix()
        seconds = float(row["duration"])
        second, step = _moment(query)
        return (
            *(
                clip,
                name,
                query.get("second", ""),
                query.get("step", EVERY_STEP),
                query.get("by", BY_ACTIVATION),
            ),
            recordings_data(study, [Recording(path, seconds, title=f"Clip {clip}")]),
            str(row["prompt"]),
            _features(study, name, clip, query),
            *clip_moment.shown(study, name, clip, seconds, second, step),
        )


def features_of(clip: int, name: str, second: float | None = None, step: int | None = None) -> str:
    """The URL of this page for a clip, and a moment of it."""
    moment = None if second is None else f"{second:g}"
    return address(PATH) + write_query({"clip": clip, "sae": name, "second": moment, "step": step})


def _features(study: Study, name: str, clip: int, query: Query) -> Component:
    try:
        found = active_features(study, name, clip, *_moment(query))
    except UserError as error:
        return dmc.Text(str(error), size="sm", c="dimmed")
    if found.empty:
        return dmc.Text("No feature fires here.", size="sm", c="dimmed")
    maximum = load_result(study, f"sae-{name}")["max_activation"].values
    found["share"] = found["activation"] / maximum[found["feature"]]
    count = len(found)
    found = found.sort_values("share" if query.get("by") == BY_SHARE else "activation", ascending=False).head(
        SHOWN
    )
    written = browser_frame(study, name).set_index("feature").loc[found["feature"], ["label", "best_value"]]
    rows = [
        _row(name, moment, *texts) for moment, texts in zip(found.itertuples(), written.values, strict=True)
    ]
    heads = ("feature", "label", "best concept", "activation", "of its maximum", "at")
    table = dmc.Table(
        [dmc.TableThead(dmc.TableTr([dmc.TableTh(head) for head in heads])), dmc.TableTbody(rows)],
        fz="xs",
        verticalSpacing=3,
        miw=LEAST_WIDTH,
    )
    said = f"{count:,} {'feature fires' if count == 1 else 'features fire'} here"
    said += f"; the first {SHOWN} are shown." if count > SHOWN else "."
    return html.Div([dmc.Text(said, size="xs", c="dimmed"), dmc.ScrollArea(table)])


def _row(name: str, moment: Any, label: str, best: str) -> Component:
    link = address("/features") + write_query({"sae": name, "feature": int(moment.feature)})
    cells = (
        dcc.Link(str(moment.feature), href=link),
        label,
        best,
        significant(moment.activation),
        percent(moment.share, 0),
        f"{fixed(moment.second)} s, step {moment.step}",
    )
    return dmc.TableTr([dmc.TableTd(cell) for cell in cells])


def _moment(query: Query) -> tuple[float | None, int | None]:
    """The second and the step in the URL; None for all of them."""
    step = query.get("step", "")
    is_number = step.isascii() and step.isdigit() and len(step) < 10
    return _number(query.get("second", "")), int(step) if is_number else None


def _clip(study: Study, query: Query) -> int:
    asked, clips = query.get("clip", ""), study.clips["clip"]
    is_number = asked.isascii() and asked.isdigit() and len(asked) < 10
    return int(asked) if is_number and int(asked) in clips.to_numpy() else int(clips.iloc[0])


def _steps(study: Study, name: str) -> list[dict[str, str]]:
    result = load_result(study, f"sae-{name}")
    levels = zip(result["step"].values, result["sigma"].values, strict=True)
    return [{"value": str(step), "label": f"step {step} (σ {sigma:.2f})"} for step, sigma in levels]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < 1e6 else None


PAGE = Page(
    PATH,
    NAME,
    SENTENCE,
    layout,
    choices,
    register,
    is_linked=lambda context: bool(sae_names(context.study)),
    kind="sae",
    named_by="sae",
)
