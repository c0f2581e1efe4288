"""Helpers of the tests of figures: a figure's table and caption from its options, and hostile names."""

import json
from typing import Any

import pandas as pd
from plotly.utils import PlotlyJSONEncoder

from dashboards.figures import FIGURES, make_spec
from workbench.studies.study import Study

HOSTILE = "<b>lo-fi</b> & %{x} $$ [red]"
SHOWN = "&lt;b&gt;lo-fi&lt;/b&gt; &amp; %&#123;x} $$ [red]"


def table_of(study: Study, figure: str, /, **options: Any) -> pd.DataFrame:
    """The table of numbers of a figure."""
    return FIGURES[figure].table(study, make_spec(study, figure, options))


def caption(study: Study, figure: str, /, **options: Any) -> str:
    """The caption of a figure."""
    spec = make_spec(study, figure, options)
    return FIGURES[figure].caption(study, spec, FIGURES[figure].table(study, spec))


def expect_text(figure: Any) -> None:
    """Check that the hostile name is in the figure, and that it is escaped everywhere."""
    told = json.dumps(figure.to_plotly_json(), cls=PlotlyJSONEncoder, ensure_ascii=False)
    assert SHOWN in told
    assert "<b>lo-fi" not in told
    assert "%{x} $$" not in told
