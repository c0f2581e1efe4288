"""Training curves, one feature and one clip on paper."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dashboards.drawing import palette
from dashboards.drawing.measure import fitting_names
from dashboards.drawing.paper import CMAP, Width, new_figure
from dashboards.numbers import significant
from dashboards.tables.features import MEASURES, telling_values
from workbench.audio import FLOOR_DB

MEASURE_TITLES = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "L0",
    "dead_fraction": "dead features",
}
MOST_VALUES = 30
LONGEST_LABEL = 90.0  # points
COLOUR = palette.SEQUENTIAL[6]


def sae_training(frame: pd.DataFrame, width: Width) -> Figure:
    """The four training curves of `training_frame`, each with its held-out value as a dashed line."""
    shape = (2, 2) if width == "single" else (1, 4)
    figure = new_figure(width, 1.5 * shape[0])
    for axes, name in zip(figure.subplots(*shape).ravel(), MEASURES, strict=True):
        of_measure = frame[frame["measure"] == name]
        curve = of_measure[of_measure["split"] == "training"]
        held_out = of_measure.loc[of_measure["split"] == "held-out", "value"].iloc[0]
        axes.plot(curve["train_step"], curve["value"], color=COLOUR)
        axes.axhline(held_out, color=palette.INK, linestyle="--", linewidth=0.8)
        axes.set_title(f"{MEASURE_TITLES[name]}\nheld-out {significant(held_out)}", pad=3)
        axes.set_xlabel("training step", labelpad=1)
    return figure


def feature_panels(frame: pd.DataFrame, width: Width) -> Figure:
    """Histogram, per-step profile and concept scores of one feature, from `feature_frame`."""
    panels = {str(name): panel for name, panel in frame.groupby("panel")}
    scores = telling_values(panels.get("auroc", frame.iloc[:0]), MOST_VALUES)
    left_out = len(panels.get("auroc", scores)) - len(scores)
    rows = len(scores)
    if width == "single":
        figure = new_figure(width, 3.0 + 0.15 * rows)
        places = figure.subplots(3, 1, height_ratios=[1.3, 1.3, 0.5 + 0.15 * rows])
    else:
        figure = new_figure(width, max(1.8, 0.5 + 0.15 * rows))
        places = figure.subplots(1, 3, width_ratios=[1, 0.9, 1.1])
    _histogram(places[0], panels["histogram"])
    _profile(places[1], panels["step_profile"])
    title = f"furthest {rows} of {rows + left_out} concept values" if left_out else "concept values"
    _scores(places[2], scores, title)
    return figure


def _histogram(axes: Axes, panel: pd.DataFrame) -> None:
    edges = panel["x"].to_numpy()
    widths = np.diff(edges, append=2 * edges[-1] - edges[-2]) if len(edges) > 1 else np.ones(len(edges))
    axes.bar(
        edges, panel["value"], width=widths, align="edge", color=COLOUR, edgecolor="white", linewidth=0.3
    )
    axes.set_xlabel("activation", labelpad=1)
    axes.set_ylabel("rows")
    axes.set_title("positive activations", pad=3)


def _profile(axes: Axes, panel: pd.DataFrame) -> None:
    axes.plot(panel["x"], panel["value"], color=COLOUR, marker="o", markersize=2.5)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("denoising step", labelpad=1)
    axes.set_ylabel("mean activation")
    axes.set_title("by denoising step", pad=3)


def _scores(axes: Axes, panel: pd.DataFrame, title: str) -> None:
    rows = np.arange(len(panel))
    axes.barh(rows, panel["value"] - 0.5, left=0.5, height=0.7, color=COLOUR)
    axes.set_yticks(rows, fitting_names(panel["label"].tolist() or [""], LONGEST_LABEL, 7.0)[: len(rows)])
    axes.axvline(0.5, color=palette.INK, linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC (0.5 = chance)", labelpad=1)
    axes.set_title(title, pad=3)
    axes.tick_params(axis="y", length=0, labelsize=7)


def feature_clip(
    frame: pd.DataFrame, mel: Float[np.ndarray, "mel frame"], seconds: float, width: Width
) -> Figure:
    """One clip: mel spectrogram, the feature's activation over time (largest over the steps), and step by step."""
    figure = new_figure(width, 2.8)
    sound, line, steps = figure.subplots(3, 1, sharex=True, height_ratios=[1.2, 0.8, 1])
    extent = (0, seconds, 0, len(mel))
    levels = {"vmin": FLOOR_DB, "vmax": 0}  # fixed, so that silence is white
    sound.imshow(mel, origin="lower", aspect="auto", cmap="gray_r", extent=extent, **levels)
    sound.set_yticks([])
    sound.set_ylabel("mel")
    grid = frame.pivot(index="step", columns="seconds", values="value")
    edges = [*grid.columns, seconds]
    line.stairs(grid.max(axis=0), edges, color=palette.SEQUENTIAL[2], fill=True)
    line.stairs(grid.max(axis=0), edges, color=COLOUR, linewidth=1.2)
    line.set_ylim(bottom=0)
    line.set_ylabel("activation")
    extent = (0, seconds, len(grid), 0)
    image = steps.imshow(grid.to_numpy(), aspect="auto", cmap=CMAP, interpolation="nearest", extent=extent)
    steps.set_yticks([0.5, len(grid) - 0.5], [str(grid.index[0]), str(grid.index[-1])])
    steps.set_ylabel("step")
    steps.set_xlabel("seconds", labelpad=1)
    figure.colorbar(image, ax=steps, aspect=8, pad=0.01).outline.set_visible(False)
    return figure
