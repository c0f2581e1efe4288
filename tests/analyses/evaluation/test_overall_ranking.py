"""The ranking over concepts: which concepts count."""

import numpy as np
import pytest

from analyses.evaluation.dose_curves import trial_means
from analyses.evaluation.overall_ranking import overall_ranking
from analyses.evaluation.replicates import Replicates
from tests.analyses.evaluation.simulated_trial import simulated_trial


@pytest.mark.parametrize(
    ("able", "ratio"), [([[True], [True]], 0.6), ([[True], [False]], 0.8), ([[False], [False]], np.nan)]
)
def test_only_concepts_with_an_interpretable_judge_count(able: list[list[bool]], ratio: float) -> None:
    trials = {
        name: simulated_trial({"way": slope}, noise=0.0, nulls=0, judges={"one": 1.0})
        for name, slope in (("mood", 0.4), ("tempo", 0.2))
    }
    means = {
        name: trial_means(trial, Replicates(10, 20, seed))
        for seed, (name, trial) in enumerate(trials.items())
    }
    found = overall_ranking(trials, means, np.array(able), "positive").isel(measure=0)
    assert found.overall.values == pytest.approx(ratio, nan_ok=True)
    assert found.overall_n.values == np.sum(able)
    assert found.overall_rank.isnull().all() == np.isnan(ratio)
