"""One feature: its numbers, label, figure, scores and neighbours, and clips in which it is active."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards.components.export import export_button, figure_data
from dashboards.components.graph import graph
from dashboards.components.player import player
from dashboards.components.text import hint, numbers, panel, text_table, with_code
from dashboards.feature_browser import browser_frame
from dashboards.figures import feature as feature_figure
from dashboards.figures.feature import FeatureSpec
from dashboards.figures.feature_clip import FeatureClipSpec
from dashboards.links import change_query, read_query
from dashboards.media import activation_url
from dashboards.numbers import fixed, p_value, percent, significant
from dashboards.pages import clip as clip_page
from dashboards.pages import feature_effects, feature_notes
from dashboards.pages.site_links import feature_in_lab
from dashboards.results import load_result, sae_names
from dashboards.tables.features import (
    examples_frame,
    features_frame,
    neighbours_frame,
    quantiles_frame,
    scores_frame,
)
from dashboards.wording import interval, label_evidence
from workbench.studies.study import Study

SHOWN_CLIPS = 6
SHOWN_VALUES = 5
NOT_SHOWN = {"display": "none"}
CLIPS_HELP = (
    "Line: the feature's activation over time (maximum over steps; the top edge is the feature's overall maximum). "
    "Strip: its activation at each denoising step, from top to bottom."
)
DEAD = (
    "This feature is dead: it is active on no token of any clip, so it has no label, scores, neighbours or clips. "
    "“Training and quality”, above, shows how many features are dead."
)
NO_SCORES = (
    "No scores: they need a concept with a value that at least two prompts have and two lack. Trace more prompts "
    "(`workbench trace`), and train the autoencoder on them."
)
NEAR = {
    "decoder": "Nearest by decoder (cosine)",
    "coactive": "Active on the same tokens (Jaccard similarity)",
}


def layout() -> Component:
    """The card, empty until a feature is selected."""
    more = dmc.Button(
        "Show clips at quantiles of the activation",
        id="feature-quantiles",
        variant="light",
        size="xs",
        mt="md",
    )
    nothing = hint("Select a feature in the table to see its statistics and hear its top-activating clips.")
    body = dmc.Collapse(
        [
            *(html.Div(id=f"feature-{part}") for part in ("numbers", "label", "notes")),
            graph("feature-graph"),
            *(html.Div(id=f"feature-{part}") for part in ("scores", "effects", "neighbours", "clips")),
            more,
            html.Div(id="feature-samples"),
        ],
        id="feature",
        opened=False,
        keepMounted=False,  # what draws the graph is large, and loaded with the first feature
        transitionDuration=0,
    )
    return panel(
        "Feature",
        html.Div(nothing, id="feature-hint", hidden=True),
        html.Div(id="feature-shown", hidden=True),
        body,
        help=CLIPS_HELP,
        actions=[export_button("feature")],
    )


def register(app: dash.Dash, study: Study) -> None:
    """Show the feature selected in the URL."""
    feature_notes.register(app, study)

    # Two callbacks: the figure, which takes longest, is asked for when the rest is on the screen.
    @app.callback(
        Output("feature", "opened"),
        Output("feature-hint", "hidden"),
        Output("feature-numbers", "children"),
        Output("feature-label", "children"),
        Output("feature-notes", "children"),
        Output("feature-notes", "data-of"),
        Output("feature-scores", "children"),
        Output("feature-clips", "children"),
        Output("feature-samples", "children"),
        Output("feature-quantiles", "style"),
        Input("url", "search"),
        State("feature-notes", "data-of"),
    )
    def show_feature(search: str | None, edited: str | None) -> tuple[Any, ...]:
        spec = selected(study, search)
        if spec is None:
            return (False, False, *[None] * 7, NOT_SHOWN)
        result = load_result(study, spec.result_name)
        row = features_frame(result.sel(feature=[spec.feature])).iloc[0]
        scores, examples = scores_frame(result, spec.feature), examples_frame(result, spec.feature)
        now = feature_notes.edited(study, spec.name, spec.feature)
        # A result that appears must not take away what is being written, nor stop what is playing.
        is_same = now == edited
        notes = no_update if is_same else feature_notes.editor(study, spec.name, spec.feature)
        return (
            True,
            True,
            _numbers(row),
            _label(study, spec, label_evidence(scores, row["label"]), examples) if row["alive"] else _dead(),
            notes,
            now,
            _scores(scores) if row["alive"] else None,
            no_update if is_same else _top_clips(study, spec, examples),
            no_update if is_same else None,
            NOT_SHOWN if examples.empty else {},
        )

    app.clientside_callback(
        ClientsideFunction("features", "shown"),
        Output("feature-shown", "data-asked"),
        Input("feature-numbers", "children"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("feature-graph", "figure"),
        Output("feature-graph", "style"),
        Output({"type": "figure", "key": "feature"}, "data"),
        Output("feature-effects", "children"),
        Output("feature-neighbours", "children"),
        Input("feature-shown", "data-asked"),
        prevent_initial_call=True,
    )
    def show_statistics(search: str | None) -> tuple[Any, ...]:
        spec = selected(study, search)
        if spec is None:
            return go.Figure(), {}, None, None, None
        result = load_result(study, spec.result_name)
        if not result["alive"].sel(feature=spec.feature):
            return go.Figure(), NOT_SHOWN, None, None, None
        near = neighbours_frame(result, spec.feature)
        labels = browser_frame(study, spec.name).set_index("feature")["label"].loc[near["neighbour"]]
        return (
            feature_figure.draw_screen(feature_figure.make_table(study, spec)),
            {},
            figure_data("feature", spec),
            feature_effects.effects(study, spec),
            _neighbours(near.assign(label=labels.to_numpy()), search),
        )

    @app.callback(
        Output("feature-samples", "children", allow_duplicate=True),
        Input("feature-quantiles", "n_clicks"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def show_samples(clicks: int | None, search: str | None) -> Any:
        spec = selected(study, search) if clicks else None
        if spec is None:
            return None
        result = load_result(study, spec.result_name)
        return _samples(study, spec, quantiles_frame(result, spec.feature))


def selected(study: Study, search: str | None) -> FeatureSpec | None:
    """The feature in the URL, of the first autoencoder if it names none; None if there is none, or no such one."""
    query, names = read_query(search), sae_names(study)
    name, feature = query.get("sae", names[0] if names else ""), query.get("feature", "")
    if name not in names or not (feature.isascii() and feature.isdigit()):
        return None
    known = load_result(study, f"sae-{name}").indexes["feature"]
    is_known = len(feature) < 11 and str(int(feature)) == feature and int(feature) in known
    return FeatureSpec(name=name, feature=int(feature)) if is_known else None


def _label(study: Study, spec: FeatureSpec, evidence: str, examples: pd.DataFrame) -> Component:
    """The proposed label, and a link to the lab for the clip in which the feature is most active."""
    words = f"{'' if evidence.startswith('no label') else 'Proposed label: '}{evidence}."
    known = examples[examples["clip"].isin(study.clips["clip"])]
    clip = None if known.empty else int(known["clip"].iloc[0])
    link = None if clip is None else feature_in_lab(study, spec.name, spec.feature, clip)
    return html.Div([dmc.Text(words, size="sm", my="xs"), link])


def _dead() -> Component:
    return dmc.Text(DEAD, size="sm", my="xs")


def _numbers(row: pd.Series) -> Component:
    return numbers(
        {
            "feature": str(row["feature"]),
            "state": "alive" if row["alive"] else "dead",
            "density": percent(row["density"], 2),
            "max activation": significant(row["max_activation"]),
            "mean when active": significant(row["mean_activation"]),
        }
    )


def _scores(scores: pd.DataFrame) -> Component:
    """The values with the highest AUROCs, with all scores."""
    if scores.empty:
        return dmc.Text(with_code(NO_SCORES), size="xs", c="dimmed")
    names = {"auroc": "AUROC", "tfidf": "tf-idf", "diff": "difference", "cohens_d": "Cohen's d"}
    body = [
        [row["value"], *(_score(row, name) for name in names), p_value(row["p_adjusted"])]
        for _, row in scores.head(SHOWN_VALUES).iterrows()
    ]
    title = f"Scores of {len(body)} of the {len(scores)} values [95 % interval over prompts, where computed]"
    return html.Div([_heading(title), text_table(["value", *names.values(), "p, adjusted"], body)])


def _score(row: pd.Series, name: str) -> str:
    """A score with its interval, if it has one."""
    if name == "auroc":
        return fixed(row[name]) if pd.isna(row["auroc_lo"]) else interval(row, name)
    if pd.isna(row[f"{name}_lo"]):
        return significant(row[name])
    return f"{significant(row[name])} [{significant(row[f'{name}_lo'])}, {significant(row[f'{name}_hi'])}]"


def _neighbours(near: pd.DataFrame, search: str | None) -> Component | None:
    """Links to the nearest features (see `neighbours_frame`), with their labels in the column `label`."""
    if near.empty:
        return None
    lines = []
    for by, title in NEAR.items():
        some = near[near["by"] == by]
        links = [
            dcc.Link(
                f"{row.neighbour} {row.label}".strip() + f" ({fixed(row.similarity)})",
                href=change_query(search, feature=row.neighbour),
            )
            for row in some.itertuples()
        ]
        lines.append(_heading(title))
        lines.append(dmc.Group(links, gap="md", fz="xs") if links else dmc.Text("none", size="xs"))
    return html.Div(lines)


def _heading(text: str) -> Component:
    return dmc.Title(text, order=6, mt="sm", mb=4)


def _top_clips(study: Study, spec: FeatureSpec, examples: pd.DataFrame) -> Component | None:
    if examples.empty:
        return None
    clips = study.clips.set_index("clip")
    shown = examples[examples["clip"].isin(clips.index)].head(SHOWN_CLIPS)
    cards = [_clip(study, spec, clips.loc[int(example["clip"])], example) for _, example in shown.iterrows()]
    return html.Div(
        [
            dmc.Title("Top-activating clips", order=3, size="h5", mt="md", mb="xs"),
            dmc.SimpleGrid(cards, cols={"base": 1, "sm": 2}),
        ]
    )


def _samples(study: Study, spec: FeatureSpec, moments: pd.DataFrame) -> Component:
    """Clips with moments at quantiles of the positive activations: what the feature does when it is weakly active."""
    clips = study.clips.set_index("clip")
    cards = [
        _clip(
            study,
            spec,
            clips.loc[int(moment["clip"])],
            moment,
            f"{100 * moment['quantile']:g} % quantile: ",
        )
        for _, moment in moments[moments["clip"].isin(clips.index)].iterrows()
    ]
    return dmc.SimpleGrid(cards, cols={"base": 1, "sm": 2}, mt="xs")


def _clip(study: Study, spec: FeatureSpec, row: pd.Series, moment: pd.Series, prefix: str = "") -> Component:
    """A clip, a `row` of the study's clips, with the activation over it.

    `prefix` tells moments at quantiles from the clips' largest activations.
    """
    clip = int(moment["clip"])
    path = study.audio_path(clip).relative_to(study.path).as_posix()
    line, strip = (activation_url(spec.name, spec.feature, clip, kind) for kind in ("svg", "png"))
    clip_spec = FeatureClipSpec(name=spec.name, feature=spec.feature, clip=clip)
    key = f"feature-clip-{clip}" + (f"-{moment['quantile']:g}" if prefix else "")
    button = export_button(key, figure_data("feature-clip", clip_spec))
    where = (
        f"{significant(moment['activation'])} at {fixed(moment['second'])} s, step {fixed(moment['step'], 0)}"
    )
    here = clip_page.features_of(clip, spec.name, float(moment["second"]), int(moment["step"]))
    heading = dmc.Group(
        [
            dmc.Text(f"Clip {clip}", fw=600, size="sm"),
            dmc.Text(prefix + where, size="xs"),
            dcc.Link("features here", href=here, className="small-link"),
        ],
        gap="sm",
    )
    return html.Div(
        [
            dmc.Group([heading, button], justify="space-between", wrap="nowrap"),
            dmc.Text(row["prompt"], size="xs", c="dimmed", mb=4, style={"overflowWrap": "anywhere"}),
            player(study, path, float(row["duration"]), overlay=line, strip=strip),
        ],
        className="clip",
    )
