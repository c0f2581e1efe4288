"""The folds behind one probe."""

from dashboards.figures import probe_folds
from tests.dashboards.figures.helpers import table_of
from workbench.studies.study import Study


def test_folds_equal_the_result(study: Study) -> None:
    result = study.result("probes")
    frame = table_of(study, "probe-folds", concept="mood", site="tf5.mlp", step=2)
    cell = result.sel(concept="mood", site="tf5.mlp", step=2)
    assert frame["accuracy"].tolist() == cell.accuracy.values.tolist()
    assert frame["control"].tolist() == cell.control.values.tolist()


def test_folds_are_drawn_with_their_control_and_chance(study: Study) -> None:
    frame = table_of(study, "probe-folds", concept="tempo", site="tf3.mlp", step=2)
    figure = probe_folds.draw_screen(frame)
    assert [list(bar.y) for bar in figure.data] == [frame["accuracy"].tolist(), frame["control"].tolist()]
    assert figure.layout.shapes[0].y0 == 0.5
