"""The folds behind one probe."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure as PaperFigure

from dashboards.drawing import palette
from dashboards.drawing.paper import Width, new_figure
from dashboards.drawing.screen import style
from dashboards.figures.base import Figure
from dashboards.figures.specs import Options, ProbesFigureSpec, best_row, check_choice
from dashboards.names import shortened
from dashboards.numbers import fixed
from dashboards.results import load_result
from dashboards.tables.probes import HELD_TOGETHER, probes_frame
from workbench.studies.study import Study


class ProbeFoldsSpec(ProbesFigureSpec):
    """The folds behind one probe."""

    width: Width = "single"
    concept: str
    site: str
    step: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The probe."""
        return (self.concept, self.site, f"step{self.step}")

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """The most accurate probe."""
        best = best_row(probes_frame(load_result(study, "probes")), "accuracy", options)
        return best[["concept", "site", "step"]].to_dict()


def make_table(study: Study, spec: ProbeFoldsSpec) -> pd.DataFrame:
    """One row for each fold of one probe: concept, site, step, fold, accuracy, control, chance, held_together."""
    result = load_result(study, spec.result_name)
    for name, value in (("concept", spec.concept), ("site", spec.site), ("step", spec.step)):
        check_choice(name, value, result[name].values.tolist())
    probe = result.sel(concept=spec.concept, site=spec.site, step=spec.step)
    return pd.DataFrame(
        {
            "concept": spec.concept,
            "site": spec.site,
            "step": spec.step,
            "fold": [int(fold) for fold in result["fold"].values],
            "accuracy": probe["accuracy"].values.astype(float),
            "control": probe["control"].values.astype(float),
            "chance": float(probe["chance"]),
            "held_together": str(probe["held_together"].item()),
        }
    )


def draw_screen(table: pd.DataFrame) -> go.Figure:
    """Balanced accuracy of each fold beside that of the probe trained on shuffled labels."""
    figure = go.Figure()
    for index, (column, name) in enumerate((("accuracy", "true labels"), ("control", "shuffled labels"))):
        values = table[column]
        figure.add_bar(
            x=[f"fold {fold}" for fold in table["fold"]],
            y=values,
            name=name,
            marker={
                "color": palette.SEQUENTIAL[5 if index == 0 else 1],
                "line": {"color": palette.INK, "width": 0.5},
            },
            hovertemplate="%{x}, " + name + ": %{y:.3f}<extra></extra>",
        )
    chance = float(table["chance"].iloc[0])
    figure.add_hline(
        y=chance,
        line={"color": palette.PLANTED, "width": 1.5, "dash": "dash"},
        name=f"chance {fixed(chance)}",
        showlegend=True,
    )
    figure.update_yaxes(
        range=[0, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], title="balanced accuracy", fixedrange=True
    )
    figure.update_xaxes(fixedrange=True)
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    styled = style(figure, height=300, barmode="group", bargap=0.3, legend=legend)
    return styled.update_layout(showlegend=True, margin={"t": 40})


def draw_paper(table: pd.DataFrame, width: Width) -> PaperFigure:
    """Balanced accuracy of each fold beside that of the probe trained on shuffled labels."""
    figure = new_figure(width, 2.0)
    axes = figure.subplots()
    places = np.arange(len(table))
    bars: dict[str, Any] = {"edgecolor": palette.INK, "linewidth": 0.5, "width": 0.38}
    axes.bar(places - 0.2, table["accuracy"], color=palette.SEQUENTIAL[5], label="true labels", **bars)
    axes.bar(places + 0.2, table["control"], color="white", hatch="////", label="shuffled labels", **bars)
    axes.axhline(table["chance"].iloc[0], color=palette.INK, linestyle="--", linewidth=0.8, label="chance")
    axes.set_ylim(0, 1.02)
    axes.set_xticks(places, [str(fold) for fold in table["fold"]])
    axes.set_xlabel("fold", labelpad=1)
    axes.set_ylabel("balanced accuracy")
    cell = table.iloc[0]
    axes.set_title(f"{shortened(cell['concept'], 24)}, {cell['site']}, step {cell['step']}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, handlelength=1.5)
    return figure


def write_caption(table: pd.DataFrame) -> str:
    """Name the probe and the number of folds."""
    first = table.iloc[0]
    return (
        f"Balanced accuracy of the probe for {first['concept']} at {first['site']}, step {first['step']}, in each of "
        f"{len(table)} folds, and of the same probe with shuffled labels; chance is {fixed(first['chance'])}. Held out "
        f"whole: {HELD_TOGETHER[first['held_together']]}."
    )


FIGURE = Figure(
    name="probe-folds",
    spec=ProbeFoldsSpec,
    table=make_table,
    screen=lambda _study, _spec, table: draw_screen(table),
    paper=lambda _study, spec, table: draw_paper(table, spec.width),
    caption=lambda _study, _spec, table: write_caption(table),
)
