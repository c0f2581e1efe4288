"""Statistics of sparse codes against the same from all activations at once."""

import numpy as np
import pytest

from analyses.sae import activity as activity_module
from analyses.sae.activity import BINS, QUANTILES, measure_activity, measure_spread
from analyses.sae.codes import ClipCodes, by_feature
from tests.analyses.sae.sparse_codes import AXES, random_acts, sparse
from tests.tolerances import assert_close

CLIPS, FEATURES = 4, 6


@pytest.fixture
def acts() -> np.ndarray:
    return random_acts(CLIPS, FEATURES)


@pytest.fixture
def codes(acts: np.ndarray) -> list[ClipCodes]:
    return [sparse(of_clip) for of_clip in acts]


def test_activity_is_that_of_the_dense_activations(acts: np.ndarray, codes: list[ClipCodes]) -> None:
    activity = measure_activity(codes, AXES)
    np.testing.assert_array_equal(activity.peak, acts.max(axis=1))
    at_peak = np.take_along_axis(acts, activity.peak_row[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(at_peak, activity.peak)
    assert_close(activity.clip_mean, acts.mean(axis=1, dtype=np.float64))
    by_step = acts.reshape(CLIPS, len(AXES.steps), AXES.tokens, FEATURES)
    assert_close(activity.step_mean, by_step.mean(axis=(0, 2), dtype=np.float64))
    np.testing.assert_array_equal(activity.active, (acts > 0).sum(axis=(0, 1)))
    assert_close(activity.density, (acts > 0).mean(axis=(0, 1)))


@pytest.mark.parametrize("most", [1, 2**22])
def test_quantiles_are_moments_with_that_activation(
    acts: np.ndarray, codes: list[ClipCodes], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_module, "by_feature", lambda codes, count: by_feature(codes, count, most))
    spread = measure_spread(codes, measure_activity(codes, AXES))
    for feature in range(FEATURES - 1):
        positive = acts[..., feature][acts[..., feature] > 0]
        expected = np.quantile(positive, QUANTILES, method="inverted_cdf")
        np.testing.assert_array_equal(spread.value[feature], expected)
        moments = acts[spread.clip[feature], spread.row[feature], feature]
        np.testing.assert_array_equal(moments, expected)
        edges = np.linspace(0, positive.max(), BINS + 1)
        np.testing.assert_array_equal(spread.histogram[feature], np.histogram(positive, edges)[0])
    assert (spread.clip[-1] == -1).all()
    assert np.isnan(spread.value[-1]).all()


def test_nothing_active_at_all_has_no_moments() -> None:
    silent = [sparse(np.zeros((AXES.rows, 2), np.float32))] * 2
    activity = measure_activity(silent, AXES)
    assert activity.peak.tolist() == [[0, 0], [0, 0]]
    spread = measure_spread(silent, activity)
    assert spread.clip.tolist() == [[-1] * len(QUANTILES)] * 2
    assert spread.histogram.tolist() == [[0] * BINS] * 2
