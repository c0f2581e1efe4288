"""The training and the quality by step of the autoencoder whose features the page shows."""

from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from dashboards.components.export import figure_data
from dashboards.components.graph import figure_panel
from dashboards.components.text import numbers
from dashboards.figures import sae_quality, sae_training
from dashboards.figures.sae_quality import SaeQualitySpec
from dashboards.figures.sae_training import SaeTrainingSpec
from dashboards.numbers import fixed, percent, significant
from dashboards.results import load_result
from dashboards.summaries import mean_to_spread
from workbench.studies.study import Study

DEAD_FEATURES = f"{sae_training.DEAD}; those alive in all clips fired on at least one token of any clip."
QUALITY_HELP = (
    "Each metric on the held-out tokens of one denoising step; explained variance is about the step's own mean. Open "
    "marks: steps at which the autoencoder may not be used for steering, unless told otherwise."
)
TRAINING_HELP = (
    "Solid: each metric on the batch of each training step (except dead features). Dashed: on held-out tokens. "
    f"{sae_training.DEAD}."
)


def layout() -> Component:
    """Two graphs, drawn when they are first shown."""
    training = figure_panel("sae-training", "Training", TRAINING_HELP, html.Div(id="sae-numbers"))
    quality = figure_panel("sae-quality", "Quality by step", QUALITY_HELP, html.Div(id="sae-gate"))
    return dmc.Stack([training, quality])


def register(app: dash.Dash, study: Study) -> None:
    """Draw the graphs of the chosen autoencoder."""

    @app.callback(
        Output("sae-training-graph", "figure"),
        Output("sae-numbers", "children"),
        Output({"type": "figure", "key": "sae-training"}, "data"),
        Output("sae-quality-graph", "figure"),
        Output("sae-gate", "children"),
        Output({"type": "figure", "key": "sae-quality"}, "data"),
        Input("sae-name", "value"),
        Input("features-tabs", "value"),
    )
    def show_training(name: str | None, view: str) -> tuple[Any, ...]:
        if view != "training":
            raise PreventUpdate
        spec, by_step = SaeTrainingSpec(name=str(name)), SaeQualitySpec(name=str(name))
        picture: go.Figure = sae_training.draw_screen(sae_training.make_table(study, spec))
        steps = sae_quality.make_table(study, by_step)
        return (
            *(picture, _numbers(study, spec), figure_data("sae-training", spec)),
            sae_quality.draw_screen(steps),
            dmc.Text(sae_quality.closed_steps(steps), size="xs", c="dimmed"),
            figure_data("sae-quality", by_step),
        )


def _numbers(study: Study, spec: SaeTrainingSpec) -> Component:
    result = load_result(study, spec.result_name)
    convention = str(result.attrs["explained_variance_convention"])
    features, alive = result.sizes["feature"], int(result["alive"].sum())
    metrics = numbers(
        {
            "site": str(result.attrs["site"]),
            "alive in all clips": f"{alive} of {features}",
            "held-out loss": significant(float(result["final_loss"]), 4),
            "held-out explained variance": fixed(float(result["final_explained_variance"]), 3),
            "held-out L0": fixed(float(result["final_l0"]), 1),
            "held-out dead features": percent(float(result["final_dead_fraction"])),
        },
        {
            "alive in all clips": DEAD_FEATURES,
            "held-out L0": "Mean number of active features per token.",
            "held-out explained variance": convention,
            "held-out dead features": DEAD_FEATURES,
        },
    )
    note = f"Explained variance is {convention}. {DEAD_FEATURES} {mean_to_spread(result)}"
    return html.Div([metrics, dmc.Text(note, size="xs", c="dimmed", mb="xs")])
