"""One feature: its numbers, its figure, and its top-activating clips."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, html
from dash.development.base_component import Component

from dashboards.components.export import export_button, figure_data
from dashboards.components.graph import graph
from dashboards.components.player import player
from dashboards.components.text import details, hint, numbers, panel
from dashboards.figures import feature as feature_figure
from dashboards.figures.feature import FeatureSpec
from dashboards.figures.feature_clip import FeatureClipSpec
from dashboards.links import read_query
from dashboards.media import activation_url
from dashboards.numbers import fixed, percent, significant
from dashboards.results import load_result, sae_sites
from dashboards.tables.features import examples_frame, features_frame
from workbench.studies.study import Study

SHOWN_CLIPS = 6
CLIPS_HELP = (
    "Line: the feature's activation over time (maximum over steps; the top edge is the feature's overall maximum). "
    "Strip: its activation at each denoising step, from top to bottom."
)


def layout() -> Component:
    """The card, empty until a feature is selected."""
    body = details(
        "feature",
        "Select a feature in the table to see its statistics and hear its top-activating clips.",
        [html.Div(id="feature-numbers"), graph("feature-graph"), html.Div(id="feature-clips")],
    )
    return panel("Feature", body, help=CLIPS_HELP, actions=[export_button("feature")])


def register(app: dash.Dash, study: Study) -> None:
    """Show the feature selected in the URL."""

    @app.callback(
        Output("feature", "hidden"),
        Output("feature-hint", "hidden"),
        Output("feature-numbers", "children"),
        Output("feature-graph", "figure"),
        Output({"type": "figure", "key": "feature"}, "data"),
        Output("feature-clips", "children"),
        Input("url", "search"),
    )
    def show_feature(search: str | None) -> tuple[Any, ...]:
        query = read_query(search)
        nothing = (True, False, None, go.Figure(), None, None)
        site = query.get("site", "")
        if site not in sae_sites(study):
            return nothing
        result = load_result(study, f"sae-{site}")
        table = features_frame(result)
        chosen = table[table["feature"].astype(str) == query.get("feature")]
        if chosen.empty:
            return nothing
        row = chosen.iloc[0]
        spec = FeatureSpec(site=site, feature=int(row["feature"]))
        picture = feature_figure.draw_screen(feature_figure.make_table(study, spec))
        examples = examples_frame(result, spec.feature)
        clips = _clips(study, spec, examples[examples["clip"].isin(study.clips["clip"])])
        return False, True, _numbers(row), picture, figure_data("feature", spec), clips


def _numbers(row: pd.Series) -> Component:
    best = (
        f"{row['best_value']} ({fixed(row['best_auroc'], 3)}; shuffled labels: {fixed(row['shuffled_auroc'], 3)})"
        if row["best_value"]
        else "none"
    )
    return numbers(
        {
            "feature": str(row["feature"]),
            "state": "alive" if row["alive"] else "dead",
            "density": percent(row["density"], 2),
            "max activation": significant(row["max_activation"]),
            "mean when active": significant(row["mean_activation"]),
            "best concept (AUROC)": best,
        }
    )


def _clips(study: Study, spec: FeatureSpec, examples: pd.DataFrame) -> Component:
    if examples.empty:
        return hint("This feature is dead: no clip activates it.")
    cards = [_clip(study, spec, example) for _, example in examples.head(SHOWN_CLIPS).iterrows()]
    return html.Div(
        [dmc.Title("Top-activating clips", order=5, mt="md", mb="xs"), dmc.SimpleGrid(cards, cols=2)]
    )


def _clip(study: Study, spec: FeatureSpec, example: pd.Series) -> Component:
    clip = int(example["clip"])
    row = study.clips.set_index("clip").loc[clip]
    path = study.audio_path(clip).relative_to(study.path).as_posix()
    line, strip = (activation_url(spec.site, spec.feature, clip, kind) for kind in ("svg", "png"))
    clip_spec = FeatureClipSpec(site=spec.site, feature=spec.feature, clip=clip)
    button = export_button(f"feature-clip-{clip}", figure_data("feature-clip", clip_spec))
    peak = f"{significant(example['activation'])} at {fixed(example['second'])} s, step {fixed(example['step'], 0)}"
    heading = dmc.Group([dmc.Text(f"Clip {clip}", fw=600, size="sm"), dmc.Text(peak, size="xs")], gap="sm")
    return html.Div(
        [
            dmc.Group([heading, button], justify="space-between", wrap="nowrap"),
            dmc.Text(row["prompt"], size="xs", c="dimmed", truncate=True, mb=4),
            player(study, path, float(row["duration"]), overlay=line, strip=strip),
        ],
        className="clip",
    )
