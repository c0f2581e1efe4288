"""Null vectors from shuffled labels."""

import numpy as np
import pytest

from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA
from analyses.steering.capture import Method, PairCapture, capture_of_pairs
from analyses.steering.probe_direction import Probe
from analyses.steering.shuffled import shuffled, shuffled_clips
from cache.errors import UserError
from tests.analyses.steering.pair_values import give, random_outputs
from tests.analyses.steering.test_descriptor import measured  # noqa: F401 - a fixture
from tests.tolerances import assert_close
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
PAIRS = 8


@pytest.fixture(scope="module")
def captured(tiny64: AceStep15) -> PairCapture:
    return capture_of_pairs(tiny64, "mood", SITES, pairs=PAIRS, settings=SETTINGS)


def exchanged_pairs(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, number)).permutation(PAIRS) < PAIRS // 2


@pytest.mark.parametrize("method", [CAA(), CAA(time="token"), AUSteer(k=5), Probe()], ids=repr)
def test_it_is_the_same_fit_with_half_of_the_pairs_exchanged(captured: PairCapture, method: Method) -> None:
    outputs = random_outputs(captured, (6, 8))
    for number, null in enumerate(shuffled(method, 2, seed=3)):
        fit, expected = null.start(captured), method.start(captured)
        give(fit, outputs, per_batch=3)
        exchanged = exchanged_pairs(number, 3)
        assert exchanged.sum() == PAIRS // 2
        flags = exchanged[:, None, None, None, None, None]
        give(expected, {site: np.where(flags, v[:, ::-1], v) for site, v in outputs.items()})
        found, by_hand = fit.vector(), expected.vector()
        assert found.concept == f"shuffled {number} (like mood)"
        assert found.method == by_hand.method
        for site in SITES:
            assert_close(found.directions[site].values, by_hand.directions[site].values)


def test_the_concept_is_cancelled(captured: PairCapture) -> None:
    outputs = {site: np.zeros_like(values) for site, values in random_outputs(captured, (6, 8)).items()}
    for values in outputs.values():
        values[:, 0] = 7.0
    for null in shuffled(CAA(), 3):
        fit = null.start(captured)
        give(fit, outputs)
        assert not any(array.values.any() for array in fit.vector().directions.values())


def test_draws_differ_and_do_not_depend_on_their_number() -> None:
    assert shuffled(CAA(), 2) == shuffled(CAA(), 4)[:2]
    assert (exchanged_pairs(0, 0) != exchanged_pairs(1, 0)).any()


def test_values_of_a_descriptor_are_shuffled(measured) -> None:  # noqa: F811
    first, second = shuffled_clips(measured, 2)
    assert first.descriptor == "shuffled 0 (like brightness)"
    assert sorted(first.values) == sorted(second.values) == sorted(measured.values)
    assert (first.values != measured.values).any() and (first.values != second.values).any()
    assert first.vector().directions["tf1.cross_attn"].shape == (1, 2, 6)


def test_what_cannot_be_shuffled(tiny64: AceStep15) -> None:
    one = capture_of_pairs(tiny64, "mood", SITES, pairs=1, settings=SETTINGS)
    with pytest.raises(UserError, match="at least 2 pairs"):
        shuffled(CAA(), 1)[0].start(one)
    with pytest.raises(UserError, match="n must be at least 1"):
        shuffled(CAA(), 0)
    with pytest.raises(UserError, match="must be one such as"):
        shuffled.__wrapped__("caa")
