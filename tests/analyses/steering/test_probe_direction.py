"""The weights of a probe as a direction."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from analyses.steering.capture import capture_of_pairs
from analyses.steering.probe_direction import Probe, probe, probe_direction
from cache.errors import UserError
from tests.analyses.steering.pair_values import give, random_outputs
from tests.tolerances import OPTIMISED, assert_close
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SITE = "tf1.cross_attn"
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)


def test_it_is_the_difference_along_the_weights_in_the_activations_units() -> None:
    draws = np.random.default_rng(0)
    x = draws.standard_normal((20, 5)) * [1, 10, 0.1, 1, 3] + 7
    positive = np.arange(20) < 8
    x[positive, 1] += 25
    found = probe_direction(x, positive, C=0.5)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    fitted = LogisticRegression(C=0.5, class_weight="balanced", max_iter=1000).fit(scaled, positive)
    unit = fitted.coef_[0] / x.std(axis=0)
    unit /= np.linalg.norm(unit)
    difference = x[positive].mean(axis=0) - x[~positive].mean(axis=0)
    np.testing.assert_allclose(found, unit * (unit @ difference), rtol=OPTIMISED)
    assert found @ difference > 0


def test_it_points_from_corrupt_to_clean_token_means(tiny64: AceStep15) -> None:
    captured = capture_of_pairs(tiny64, "mood", SITE, pairs=5, settings=SETTINGS)
    outputs = random_outputs(captured, [8])
    outputs[SITE][:, 0, ..., 3] += 10.0
    fit = Probe().start(captured)
    give(fit, outputs)
    vector = fit.vector()
    means = outputs[SITE].mean(axis=4)
    for step in range(2):
        x = np.concatenate([means[:, 0, 0, step], means[:, 1, 0, step]])
        expected = probe_direction(x, np.arange(10) < 5)
        assert_close(vector.directions[SITE].values[0, step], expected)
        assert expected @ (x[:5].mean(axis=0) - x[5:].mean(axis=0)) > 0
    assert vector.method == "probe"
    assert vector.reliability.split_half.isnull().all()


def test_its_penalty_must_be_positive(tiny64: AceStep15) -> None:
    with pytest.raises(UserError, match="C must be above 0"):
        probe(tiny64, "mood", SITE, C=0.0, pairs=2, settings=SETTINGS)
