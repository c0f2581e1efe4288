"""What holds of every figure: names are text on screen, and captions say what is shown."""

import pandas as pd

from dashboards.figures import feature, patching_pairs, probe_maps
from dashboards.figures.patching_comparison import draw_scatter, draw_screen
from tests.dashboards.figures.helpers import HOSTILE, caption, expect_text, table_of
from workbench.studies.study import Study


def test_names_on_the_other_figures_are_text(study: Study) -> None:
    pairs = table_of(study, "patching-pairs", concept="tempo", arm="tf3")
    expect_text(patching_pairs.draw_screen(pairs.assign(clean_prompt=HOSTILE)))
    expect_text(patching_pairs.draw_screen(pairs.assign(corrupt_prompt=HOSTILE)))
    probes = table_of(study, "probes")
    expect_text(probe_maps.draw_screen(probes.assign(concept=HOSTILE + probes["concept"]), "accuracy"))
    one = table_of(study, "feature", name="tf3.cross_attn", feature=5)
    expect_text(feature.draw_screen(one.assign(label=HOSTILE + one["label"])))


def test_names_of_compared_maps_are_text() -> None:
    sides = {"impact": 0.5, "impact_lo": 0.4, "impact_hi": 0.6}
    cells = pd.DataFrame(
        [{"map": HOSTILE, "concept": "c", "row": "tf0", "block": 0, "status": "clear", **sides}]
    )
    for column in ("map", "concept", "row"):
        expect_text(draw_screen(cells.assign(**{column: HOSTILE})))
    both = {f"{name}_{side}": value for side in ("left", "right") for name, value in sides.items()}
    matched = pd.DataFrame([{"concept": "c", "row": "tf0", **both}])
    expect_text(draw_scatter(matched, (HOSTILE, "other")))
    for column in ("concept", "row"):
        expect_text(draw_scatter(matched.assign(**{column: HOSTILE}), ("this", "other")))


def test_other_figures_say_what_they_show(study: Study) -> None:
    assert "selectivity" in caption(study, "probes", quantity="selectivity")
    assert "tempo at tf3.mlp, step 2" in caption(
        study, "probe-folds", concept="tempo", site="tf3.mlp", step=2
    )
    assert "explained variance 0.921" in caption(study, "sae-training")
    assert "Feature 7" in caption(study, "feature", feature=7)
    assert "clip 3" in caption(study, "feature-clip", feature=5, clip=3)
