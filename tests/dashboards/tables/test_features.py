"""Tables of an autoencoder's features say what each tells apart, and which clips activate it."""

import numpy as np

from dashboards.tables.features import examples_frame, features_frame
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
