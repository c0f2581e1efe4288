"""Tables of an autoencoder's features say what each tells apart, and which clips activate it."""

import numpy as np
import xarray as xr

from analyses.evaluation.feature_effects import SCHEMA_VERSION
from dashboards.pages import feature_effects
from dashboards.tables.features import (
    effects_frame,
    examples_frame,
    features_frame,
    neighbours_frame,
    quantiles_frame,
    scores_frame,
)
from dashboards.wording import label_evidence
from tests.dashboards.synthetic_study import SAE_SITES
from workbench.studies.study import Study

SITE = SAE_SITES[0]


def test_features_name_the_concept_they_tell_apart_best(study: Study) -> None:
    frame = features_frame(study.result(f"sae-{SITE}")).set_index("feature")
    assert (frame.loc[3, "best_value"], frame.loc[3, "best_auroc"]) == ("instrument=trumpet", 0.97)
    assert not frame.loc[47, "alive"]
    assert frame.loc[47, "best_value"] == ""
    assert np.isnan(frame.loc[47, "best_auroc"])


def test_a_dead_feature_has_no_examples(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    assert examples_frame(result, 5)["clip"].tolist() == [5, 6, 7, 8, 9]
    assert examples_frame(result, 47).empty


def test_scores_stand_in_order_with_their_intervals(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    scores = scores_frame(result, 3)
    assert scores["value"].iloc[0] == "instrument=trumpet"
    assert scores["auroc"].is_monotonic_decreasing
    assert scores.loc[0, ["auroc_lo", "auroc_hi", "p_adjusted"]].tolist() == [0.97 - 0.05, 0.97 + 0.02, 0.004]
    assert scores.loc[1:, "tfidf_lo"].isna().all()
    assert scores_frame(result, 47).empty


def test_moments_and_neighbours_are_those_of_the_result(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    moments = quantiles_frame(result, 5)
    assert moments["quantile"].tolist() == [0.1, 0.5, 0.9]
    assert moments["clip"].tolist() == [5, 7, 9]
    near = neighbours_frame(result, 5)
    assert near["by"].tolist() == ["decoder", "decoder", "coactive", "coactive"]
    assert near["neighbour"].tolist() == [6, 4, 6, 4]
    assert near["similarity"].tolist() == [0.8, 0.6, 0.8, 0.6]
    assert quantiles_frame(result, 47).empty
    assert neighbours_frame(result, 47).empty


def test_a_label_comes_with_its_evidence(study: Study) -> None:
    result = study.result(f"sae-{SITE}")
    scores = scores_frame(result, 3)
    following = f"{scores['value'][1]}, {scores['auroc'][1]:.2f}"
    evidence = "AUROC 0.97 [0.92, 0.99], p = 0.004"
    assert (
        label_evidence(scores, "instrument=trumpet") == f"instrument=trumpet: {evidence}; next: {following}"
    )
    # A value is significant: that is not why there is no label.
    assert label_evidence(scores, "") == f"no label (highest: instrument=trumpet, {evidence})"
    assert label_evidence(scores.iloc[1:], "") == (
        f"no label: no value is significant after correction (highest: {scores['value'][1]}, AUROC "
        f"{scores['auroc'][1]:.2f}, p = 0.7)"
    )
    assert label_evidence(scores.iloc[:0], "") == "no label: the feature has no scores"


def effects() -> xr.Dataset:
    """Feature 3 alone, 3 with 5, and a random feature, at two factors."""
    dims = ("cell", "factor", "concept", "scorer")
    change = np.arange(12.0).reshape(3, 2, 2, 1)
    numbers = {
        name: (dims, change + place) for place, name in enumerate(("effect", "effect_lo", "effect_hi"))
    }
    nulls = dict.fromkeys(("null_lo", "null_hi", "p_adjusted"), (dims, -change))
    return xr.Dataset(
        {
            **numbers,
            **nulls,
            "value": ("cell", ["mood=sad"] * 3),
            "features": (("cell", "sae"), [["3"], ["3, 5"], ["13"]]),
            "set": ("cell", ["", "late", ""]),
            "size": ("cell", [1, 2, 1]),
            "role": ("cell", ["cell", "cell", "null"]),
        },
        {
            "cell": [0, 1, 2],
            "sae": ["s"],
            "factor": [0.0, 2.0],
            "concept": ["tempo", "mood"],
            "scorer": ["clap"],
        },
        {"schema_version": SCHEMA_VERSION},
    )


def test_effects_are_those_of_the_cells_in_which_the_feature_was_changed() -> None:
    frame = effects_frame(effects(), "s", 3)
    assert frame[["changed", "factor", "effect"]].values.tolist() == [
        [1, 0, 1], [1, 2, 3], [2, 0, 5], [2, 2, 7]
    ]  # fmt: skip
    assert list(map(feature_effects.changed, frame.iloc)) == ["alone"] * 2 + ["all 2 of the set late"] * 2
    assert frame["others"].tolist() == [{"tempo": change} for change in (0, 2, 4, 6)]
    assert len(effects_frame(effects(), "s", 5)) == 2
    assert effects_frame(effects(), "s", 13).empty, "a random feature is a null"
    assert effects_frame(effects(), "other", 3).empty
