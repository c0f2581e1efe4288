"""The parts of a figure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as PaperFigure
from plotly.graph_objects import Figure as ScreenFigure

from dashboards.figures.specs import FigureSpec
from workbench.studies.study import Study


def _unchanged(table: pd.DataFrame) -> pd.DataFrame:
    return table


@dataclass(frozen=True)
class Figure:
    """One kind of figure: its name, its spec, and one table of numbers drawn twice.

    `table` gathers the numbers, which are also exported as CSV. `screen` draws them with Plotly and `paper` with
    matplotlib; `caption` says what they show and how they were tested; `latex` formats the table for a paper.
    """

    name: str
    spec: type[FigureSpec]
    table: Callable[[Study, Any], pd.DataFrame]
    screen: Callable[[Study, Any, pd.DataFrame], ScreenFigure]
    paper: Callable[[Study, Any, pd.DataFrame], PaperFigure]
    caption: Callable[[Study, Any, pd.DataFrame], str]
    latex: Callable[[pd.DataFrame], pd.DataFrame] = _unchanged
