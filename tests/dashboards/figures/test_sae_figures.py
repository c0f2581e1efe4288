"""The training of an autoencoder, one of its features, and one feature in one clip."""

import numpy as np
import pytest

from dashboards.figures import feature, sae_quality, sae_training, screen_figure
from dashboards.numbers import fixed
from dashboards.tables.features import features_frame
from dashboards.traces import activation_trace
from tests.dashboards.figures.helpers import caption, table_of
from tests.dashboards.synthetic_study import SAE_SITES, SECONDS
from workbench.studies.study import Study

SITE = SAE_SITES[0]


def test_training_ends_with_the_held_out_metrics(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    frame = sae_training.training_frame(result)
    held_out = frame[frame["split"] == "held-out"].set_index("metric")["value"]
    assert held_out["explained_variance"] == result.final_explained_variance
    loss = frame[(frame["metric"] == "loss") & (frame["split"] == "training")]
    assert loss["value"].tolist() == result.loss.values.tolist()


def test_one_feature_equals_the_result(study: Study) -> None:
    one = study.result(f"sae-{SITE}").sel(feature=5)
    panels = dict(iter(table_of(study, "feature", name=SITE, feature=5).groupby("panel")))
    assert panels["histogram"]["value"].tolist() == one.hist_count.values.tolist()
    assert panels["step_profile"]["x"].tolist() == one.step.values.tolist()
    assert panels["auroc"]["label"].tolist() == one["value"].values.tolist()


def test_a_trace_becomes_one_row_for_each_step_and_token(study: Study) -> None:
    trace = activation_trace(study, SITE, 5, 3)
    frame = table_of(study, "feature-clip", name=SITE, feature=5, clip=3)
    assert len(frame) == trace.size
    row = frame.iloc[frame["value"].argmax()]
    assert row["value"] == trace.values.max() > 0
    assert row["value"] == pytest.approx(float(trace.sel(step=row["step"]).isel(token=int(row["token"]))))
    assert row["seconds"] == trace["seconds"].values[int(row["token"])]


def test_training_and_feature_figures_draw_their_tables(study: Study) -> None:
    training = table_of(study, "sae-training")
    curve = training[(training["metric"] == "dead_fraction") & (training["split"] == "training")]
    assert list(sae_training.draw_screen(training).data[3].y) == curve["value"].tolist()
    table = table_of(study, "feature", feature=5)
    bars = feature.draw_screen(table).data[2]
    scores = table[table["panel"] == "auroc"].set_index("label")["value"]
    shown = dict(bars.customdata)
    best = scores.idxmax()
    assert shown == {
        label: fixed(score) + (" [0.92, 0.99]" if label == best else "") for label, score in scores.items()
    }
    assert np.nanmax(bars.error_x.array) == pytest.approx(0.02)
    assert np.isnan(bars.error_x.arrayminus).sum() == len(scores) - 1


def test_a_long_name_leaves_room_for_the_panels_and_is_whole_on_hover(study: Study) -> None:
    table = table_of(study, "feature", feature=5)
    long = "instrument=a slow fingerpicked nylon-string acoustic guitar"
    table.loc[table["label"] == "instrument=violin", "label"] = long
    figure = feature.draw_screen(table)
    names = figure.layout.yaxis3.ticktext
    assert max(map(len, names)) == feature.LONGEST_ON_SCREEN < len(long)
    assert long in dict(figure.data[2].customdata)


def test_one_feature_in_one_clip_is_drawn_over_its_time(study: Study) -> None:
    options = {"name": SITE, "feature": 5, "clip": 3}
    table = table_of(study, "feature-clip", **options)
    mel, line, steps = screen_figure(study, "feature-clip", **options).data
    assert list(line.y[:-1]) == table.groupby("seconds")["value"].max().tolist()
    assert list(steps.y) == [str(step) for step in dict.fromkeys(table["step"])]
    assert np.array(steps.z).max() == table["value"].max()
    assert line.x[-1] == steps.x[-1] == mel.x[-1] == SECONDS


def test_the_quality_figure_marks_the_steps_that_are_closed(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    table = table_of(study, "sae-quality", name=SITE)
    values = table[table["metric"] == "explained_variance"]
    assert values["value"].tolist() == result["step_explained_variance"].values.tolist()
    assert values["sigma"].tolist() == result["sigma"].values.tolist()
    assert values["gated"].tolist() == [False, False, False, True]
    curve = sae_quality.draw_screen(table).data[0]
    assert list(curve.marker.symbol) == ["circle"] * 3 + ["circle-open"]
    assert caption(study, "sae-quality", name=SITE).endswith(
        "The gate closes 1 of the 4 steps (open marks): 6."
    )
    none = table.assign(gated=False)
    assert sae_quality.closed_steps(none) == "The gate closes none of the 4 steps."


def test_a_feature_is_compared_with_the_best_of_shuffled_labels(study: Study) -> None:
    site = SAE_SITES[0]
    features = features_frame(study.result(f"sae-{site}")).set_index("feature")
    chosen = int(features["best_auroc"].idxmax())
    row = features.loc[chosen]
    assert caption(study, "feature", name=site, feature=chosen).endswith(
        f"Highest for {row['best_value']}: {fixed(row['best_auroc'])} [0.92, 0.99], p = 0.004, corrected for "
        f"{len(features)} features and all values; with shuffled labels, the best feature exceeds "
        f"{fixed(row['shuffled_auroc'])} in 5 % of shuffles."
    )
    none = features.assign(best_value="").reset_index()
    assert "shuffled" not in feature.write_caption(site, chosen, none)
