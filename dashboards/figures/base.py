"""What a figure is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as PaperFigure
from plotly.graph_objects import Figure as ScreenFigure

from dashboards.figures.specs import FigureSpec
from workbench.studies.study import Study


def _as_it_is(table: pd.DataFrame) -> pd.DataFrame:
    return table


@dataclass(frozen=True)
class Figure:
    """One kind of figure: what it is called, what it may be asked to show, and one table of numbers drawn twice.

    `table` gathers the numbers, which are also exported as CSV. `screen` draws them with Plotly and `paper` with
    matplotlib; `caption` says what they show and how they were tested; `latex` is the table as a paper prints it.
    """

    name: str
    spec: type[FigureSpec]
    table: Callable[[Study, Any], pd.DataFrame]
    screen: Callable[[Study, Any, pd.DataFrame], ScreenFigure]
    paper: Callable[[Study, Any, pd.DataFrame], PaperFigure]
    caption: Callable[[Study, Any, pd.DataFrame], str]
    latex: Callable[[pd.DataFrame], pd.DataFrame] = _as_it_is
