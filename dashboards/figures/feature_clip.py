"""One feature in one clip: its activation over time beside the clip's mel spectrogram."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib.figure import Figure as PaperFigure
from plotly.subplots import make_subplots

from dashboards.drawing import palette
from dashboards.drawing.paper import CMAP, Width, new_figure
from dashboards.drawing.screen import COLORSCALE, style
from dashboards.figures.base import Figure
from dashboards.figures.feature import PAPER_COLOUR, SCREEN_COLOUR, FeatureSpec
from dashboards.figures.specs import Options, check_choice
from dashboards.results import load_result
from dashboards.tables.features import examples_frame
from dashboards.traces import activation_trace
from workbench.spectrogram import FLOOR_DB, mel_spectrogram
from workbench.studies.study import Study


class FeatureClipSpec(FeatureSpec):
    """One feature's activation in one clip."""

    clip: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Name, feature and clip."""
        return (self.name, str(self.feature), f"clip{self.clip}")

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """The top-activating clip of the feature, or of the best feature if none is given."""
        result = load_result(study, f"sae-{options['name']}")
        feature = int(options.get("feature", super().example(study, options)["feature"]))
        known = feature in result["feature"].values
        clips = examples_frame(result, feature)["clip"].tolist() if known else []
        return {"feature": feature, "clip": int(clips[0]) if clips else 0}


def make_table(study: Study, spec: FeatureClipSpec) -> pd.DataFrame:
    """The feature's activation in the clip, one row for each step and token, with sigma and seconds."""
    check_choice("feature", spec.feature, load_result(study, spec.result_name)["feature"].values.tolist())
    check_choice("clip", spec.clip, study.clips["clip"].tolist())
    trace = activation_trace(study, spec.name, spec.feature, spec.clip)
    rows = trace.rename("value").to_dataframe().reset_index().assign(feature=spec.feature, clip=spec.clip)
    return rows[["feature", "clip", "step", "sigma", "token", "seconds", "value"]].astype({"value": float})


def draw_screen(table: pd.DataFrame, mel: Float[np.ndarray, "mel frame"], seconds: float) -> go.Figure:
    """Mel spectrogram, activation over time (maximum over steps), and activation by step; `seconds` long."""
    grid = table.pivot(index="step", columns="seconds", values="value")
    edges = [*grid.columns, seconds]
    largest = grid.max(axis=0).to_list()
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, row_heights=[0.4, 0.25, 0.35], vertical_spacing=0.04
    )
    figure.add_heatmap(
        z=mel,
        x=np.linspace(0, seconds, mel.shape[1] + 1),
        colorscale="gray_r",
        zmin=FLOOR_DB,
        zmax=0,
        showscale=False,
        hoverinfo="skip",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=edges,
        y=[*largest, largest[-1]],
        mode="lines",
        line={"color": SCREEN_COLOUR, "width": 1.5, "shape": "hv"},
        hovertemplate="%{x:.2f} s: %{y:.4g}<extra></extra>",
        row=2,
        col=1,
    )
    figure.add_heatmap(
        z=grid.to_numpy(),
        x=edges,
        y=[str(step) for step in grid.index],
        colorscale=COLORSCALE,
        showscale=False,
        hovertemplate="%{x:.2f} s, step %{y}: %{z:.4g}<extra></extra>",
        row=3,
        col=1,
    )
    figure.update_yaxes(showticklabels=False, title="mel", row=1, col=1)
    figure.update_yaxes(rangemode="tozero", title="activation", row=2, col=1)
    figure.update_yaxes(type="category", autorange="reversed", title="step", row=3, col=1)
    figure.update_xaxes(title={"text": "seconds", "font": {"size": 11}, "standoff": 4}, row=3, col=1)
    return style(figure, height=380)


def draw_paper(
    table: pd.DataFrame, mel: Float[np.ndarray, "mel frame"], seconds: float, width: Width
) -> PaperFigure:
    """Mel spectrogram, activation over time (maximum over steps), and activation by step; `seconds` long."""
    figure = new_figure(width, 2.8)
    sound, line, steps = figure.subplots(3, 1, sharex=True, height_ratios=[1.2, 0.8, 1])
    extent = (0, seconds, 0, len(mel))
    levels = {"vmin": FLOOR_DB, "vmax": 0}  # fixed, so that silence is white
    sound.imshow(mel, origin="lower", aspect="auto", cmap="gray_r", extent=extent, **levels)
    sound.set_yticks([])
    sound.set_ylabel("mel")
    grid = table.pivot(index="step", columns="seconds", values="value")
    edges = [*grid.columns, seconds]
    line.stairs(grid.max(axis=0), edges, color=palette.SEQUENTIAL[2], fill=True)
    line.stairs(grid.max(axis=0), edges, color=PAPER_COLOUR, linewidth=1.2)
    line.set_ylim(bottom=0)
    line.set_ylabel("activation")
    extent = (0, seconds, len(grid), 0)
    image = steps.imshow(grid.to_numpy(), aspect="auto", cmap=CMAP, interpolation="nearest", extent=extent)
    steps.set_yticks([0.5, len(grid) - 0.5], [str(grid.index[0]), str(grid.index[-1])])
    steps.set_ylabel("step")
    steps.set_xlabel("seconds", labelpad=1)
    figure.colorbar(image, ax=steps, aspect=8, pad=0.01).outline.set_visible(False)
    return figure


def write_caption(name: str, feature: int, clip: int) -> str:
    """Name the feature and the clip, and describe the panels."""
    return (
        f"Feature {feature} of the sparse autoencoder {name} in clip {clip}: mel spectrogram, activation over time "
        "(maximum over denoising steps), and activation at each step."
    )


def _spectrogram(study: Study, clip: int) -> tuple[Float[np.ndarray, "mel frame"], float]:
    """The clip's mel spectrogram and its duration in seconds."""
    audio, sample_rate = study.read_audio(study.audio_path(clip).relative_to(study.path).as_posix())
    return mel_spectrogram(audio, sample_rate), audio.shape[1] / sample_rate


FIGURE = Figure(
    name="feature-clip",
    spec=FeatureClipSpec,
    table=make_table,
    screen=lambda study, spec, table: draw_screen(table, *_spectrogram(study, spec.clip)),
    paper=lambda study, spec, table: draw_paper(table, *_spectrogram(study, spec.clip), spec.width),
    caption=lambda _study, spec, _table: write_caption(spec.name, spec.feature, spec.clip),
)
