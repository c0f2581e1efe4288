"""AUSteer against its formula, worked out channel by channel."""

from typing import Any

import numpy as np
import pytest

from analyses.steering.austeer import AUSteer, austeer, largest_of_all_sites, signed_fractions
from analyses.steering.capture import PairCapture, capture_of_pairs
from analyses.steering.vector import Vector
from cache.errors import UserError
from tests.analyses.steering.pair_values import Outputs, give, random_outputs
from tests.tolerances import assert_close
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)


@pytest.fixture(scope="module")
def captured(tiny64: AceStep15) -> PairCapture:
    return capture_of_pairs(tiny64, "mood", SITES, pairs=7, settings=SETTINGS, passes=("cond", "null"))


def fitted(captured: PairCapture, outputs: Outputs, k: int) -> Vector:
    fit = AUSteer(k=k).start(captured)
    give(fit, outputs)
    return fit.vector()


def by_hand(outputs: Outputs, k: int) -> dict[str, np.ndarray]:
    """β of every channel, one at a time, and the k largest of all sites."""
    betas = {}
    for site, values in outputs.items():
        n_pairs, _, n_passes, n_steps, n_tokens, width = values.shape
        betas[site] = np.zeros((n_passes, n_steps, width))
        for place in np.ndindex(n_passes, n_steps, width):
            acting, step, channel = place
            differences = (values[:, 0] - values[:, 1])[:, acting, step, :, channel].ravel().tolist()
            above = sum(one > 0 for one in differences)
            below = sum(one < 0 for one in differences)
            assert len(differences) == n_pairs * n_tokens
            betas[site][place] = (above if above >= below else -below) / len(differences)
    for acting, step in np.ndindex(n_passes, n_steps):
        sizes = [
            (-abs(betas[site][acting, step, channel]), place, channel)
            for place, site in enumerate(betas)
            for channel in range(betas[site].shape[2])
        ]
        for _, place, channel in sorted(sizes)[k:]:
            betas[list(betas)[place]][acting, step, channel] = 0
    return betas


@pytest.mark.parametrize("k", [1, 5, 14])
def test_it_is_the_signed_fraction_of_the_most_consistent_channels(captured: PairCapture, k: int) -> None:
    outputs = random_outputs(captured, (6, 8))
    vector = fitted(captured, outputs, k)
    for site, expected in by_hand(outputs, k).items():
        assert_close(vector.directions[site].values, expected, site)
    chosen = sum((vector.directions[site] != 0).sum("channel") for site in SITES)
    assert (chosen == k).all(), "k over all sites together, in each pass and step"


def test_equal_fractions_count_as_positive() -> None:
    above, below = np.array([0.4, 0.2, 0.3, 0.0]), np.array([0.4, 0.3, 0.2, 0.0])
    assert signed_fractions(above, below).tolist() == [0.4, -0.3, 0.3, 0.0]


def test_of_equally_consistent_channels_the_first_are_kept() -> None:
    betas = {"a": np.array([[[0.5, -0.5, 0.1]]]), "b": np.array([[[0.5, 0.9]]])}
    kept = largest_of_all_sites(betas, 3)
    assert kept["a"].tolist() == [[[0.5, -0.5, 0.0]]]
    assert kept["b"].tolist() == [[[0.0, 0.9]]]


def test_it_is_that_of_the_model_s_own_outputs(tiny64: AceStep15) -> None:
    vector = austeer(tiny64, "mood", SITES, k=20, pairs=3, seed=7, settings=SETTINGS)
    outputs: dict[str, Any] = {site: [] for site in SITES}
    clips = [Clip(example.prompt, example.seed) for example in vector.examples]
    captured = tiny64.generate(clips, SETTINGS, capture=SITES).activations
    for site in SITES:
        values = (
            captured[site]
            .sel({"pass": ["cond"]})
            .transpose("clip", "pass", "step", "token", "channel")
            .values
        )
        outputs[site] = np.stack([values[::2], values[1::2]], axis=1).astype(float)
    for site, expected in by_hand(outputs, 20).items():
        assert_close(vector.directions[site].values, expected, site)
    assert (vector.method, vector.n_pairs) == ("austeer", 3)


def test_channels_that_always_change_alike_are_reliable(captured: PairCapture) -> None:
    """Of 40 channels six change with the concept; the others are noise."""
    outputs = {site: values * 1.0 for site, values in random_outputs(captured, (20, 20), tokens=12).items()}
    for values in outputs.values():
        values[:, 0, ..., :3] += 10.0
    vector = fitted(captured, outputs, 6)
    assert vector.reliability.split_half.min() == pytest.approx(1.0)
    assert vector.reliability.steps.min() == pytest.approx(1.0)
    noise = fitted(captured, random_outputs(captured, (20, 20)), 6).reliability
    assert noise.split_half.mean() < 0.6
    assert noise.pairs.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("k", "words"),
    [(0, "k must be at least 1"), (10**6, "k must be at most"), (1.5, "k must be a whole number")],
)
def test_what_k_cannot_be(tiny64: AceStep15, k: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        austeer.__wrapped__(tiny64, "mood", SITES, k=k, pairs=1, settings=SETTINGS)


def test_strength_0_changes_nothing(tiny64: AceStep15, captured: PairCapture) -> None:
    vector = fitted(
        captured, random_outputs(captured, [captured.model.channels(s) for s in captured.capture.sites]), 5
    )
    assert all(edit.parameters.changes_nothing for edit in vector.at(0.0))
