"""Directions of audio descriptors against their formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyses.steering.descriptor import PENALTY, MeasuredClips, descriptor, measured_clips
from analyses.steering.probe_direction import probe_direction
from analyses.steering.vector import load_vector
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SITE = "tf1.cross_attn"
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
N_CLIPS, WIDTH = 12, 6
CLIPS = tuple(Clip(f"song {place % 5}", place) for place in range(N_CLIPS))


@pytest.fixture
def measured(tiny64: AceStep15) -> MeasuredClips:
    draws = np.random.default_rng(0)
    outputs = {SITE: draws.standard_normal((N_CLIPS, 1, 2, WIDTH))}
    values = draws.standard_normal(N_CLIPS) * 100 + 440
    outputs[SITE][..., 2] += values[:, None, None] / 50
    return MeasuredClips(tiny64, SETTINGS, "brightness", CLIPS, values, outputs, ("cond",))


def by_hand(method: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The direction at one site, pass and step."""
    x, y = x - x.mean(axis=0), y - y.mean()
    spread = np.sqrt((y**2).mean())
    if method == "covariance":
        covariance = np.array([(x[:, channel] * y).mean() for channel in range(x.shape[1])])
        return spread * covariance / (y**2).mean()
    penalty = PENALTY * np.linalg.eigvalsh(x.T @ x).max()
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return spread * weights / (weights**2).sum()


@pytest.mark.parametrize("method", ["covariance", "ridge"])
@pytest.mark.parametrize("side", ["all", "above", "below"])
def test_it_is_its_formula_on_its_side_of_the_median(measured: MeasuredClips, method: Any, side: Any) -> None:
    vector = measured.vector(method, side)
    y = measured.values
    order = np.argsort(y)
    chosen = np.sort({"all": order, "above": order[N_CLIPS // 2 :], "below": order[: N_CLIPS // 2]}[side])
    for step in range(2):
        expected = by_hand(method, measured.outputs[SITE][chosen, 0, step], y[chosen])
        assert_close(vector.directions[SITE].values[0, step], expected)
    assert [example.value for example in vector.examples] == y[chosen].tolist()
    assert [example.seed for example in vector.examples] == chosen.tolist()
    assert (vector.concept, vector.positive, vector.negative, vector.n_pairs) == (
        "brightness",
        "high",
        "low",
        0,
    )


@pytest.mark.parametrize("method", ["covariance", "ridge", "probe"])
def test_each_token_has_the_direction_of_its_own_outputs(measured: MeasuredClips, method: Any) -> None:
    later = measured.outputs[SITE] ** 3
    measured.outputs[SITE] = np.stack([measured.outputs[SITE], later], axis=3)
    found = measured.vector(method).directions[SITE]
    assert found.dims == ("pass", "step", "token", "channel")
    for token in range(2):
        alone = replace(measured, outputs={SITE: measured.outputs[SITE][:, :, :, token]})
        assert_close(found.values[:, :, token], alone.vector(method).directions[SITE].values)


@pytest.mark.parametrize("method", ["covariance", "ridge"])
def test_the_planted_channel_rises_with_the_descriptor(measured: MeasuredClips, method: Any) -> None:
    for direction in measured.vector(method).directions[SITE].values[0]:
        assert direction[2] == np.abs(direction).max()


def test_the_probe_tells_clips_above_the_median_from_the_others(measured: MeasuredClips) -> None:
    x, above = measured.outputs[SITE][:, 0], measured.values > np.median(measured.values)
    for step, direction in enumerate(measured.vector("probe").directions[SITE].values[0]):
        assert_close(direction, probe_direction(x[:, step], above))
        assert direction[2] > 0


def test_one_standard_deviation_is_what_covariances_add(measured: MeasuredClips) -> None:
    """Where a channel is the descriptor itself, a strength of 1 adds its standard deviation."""
    measured.outputs[SITE][..., 4] = 3 * measured.values[:, None, None]
    added = measured.vector("covariance").directions[SITE].values[0, :, 4]
    assert_close(added, np.full(2, 3 * measured.values.std()))


def test_reliable_directions_are_told_from_noise(measured: MeasuredClips) -> None:
    reliable = measured.vector().reliability
    assert reliable.split_half.min() > 0.5
    measured.outputs[SITE][:] = np.random.default_rng(1).standard_normal(measured.outputs[SITE].shape)
    assert measured.vector().reliability.split_half.max() < 0.5
    assert measured.vector("ridge").reliability.split_half.isnull().all()


def test_it_measures_and_averages_what_the_model_generates(tiny64: AceStep15, tmp_path: Any) -> None:
    clips = CLIPS[:9]  # more than a batch

    def peak(samples: np.ndarray, sample_rate: int) -> float:
        assert sample_rate == tiny64.sample_rate
        return float(np.abs(samples).max())

    measured = measured_clips(tiny64, peak, SITE, clips, settings=SETTINGS)
    generated = [tiny64.generate(clip, SETTINGS, capture=SITE) for clip in clips]
    expected = [np.abs(one.samples.mean(axis=0)).max() for one in generated]
    assert_close(measured.values.astype(np.float32), np.array(expected))
    for one, mean in zip(generated, measured.outputs[SITE], strict=True):
        tokens = one.activations[SITE].sel({"pass": ["cond"]}).mean("token").isel(clip=0)
        assert_close(mean.astype(np.float32), tokens.transpose("pass", "step", "channel").values)
    vector = measured.vector("covariance")
    assert vector.concept == "peak"
    by_token = measured_clips(tiny64, peak, SITE, clips, time="token", settings=SETTINGS)
    for one, outputs in zip(generated, by_token.outputs[SITE], strict=True):
        tokens = one.activations[SITE].sel({"pass": ["cond"]}).isel(clip=0)
        assert_close(outputs.astype(np.float32), tokens.transpose("pass", "step", "token", "channel").values)
    assert_close(by_token.vector().over_time().directions[SITE].values, vector.directions[SITE].values)
    back = load_vector(vector.save(tmp_path / "peak.safetensors"))
    assert back.at(1.0) == vector.at(1.0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"descriptor": "warmth"}, "level, loudness, loudness_range"),
        ({"descriptor": 3}, "must be one of"),
        ({"clips": []}, "at least 3 clips"),
        ({"clips": CLIPS[:2]}, "at least 3 clips"),
        ({"clips": ["a song"]}, "must be such as those of wb.clips"),
        ({"sites": "tf9.cross_attn"}, "tf0 to tf1"),
        ({"passes": ("text",)}, "Passes must be among"),
        ({"time": "token", "sites": "tf1.cross_attn.k"}, "no latent time"),
        ({"time": "bar"}, "time must be"),
        ({"descriptor": lambda samples, sample_rate: np.nan}, "has no <lambda>"),
    ],
)
def test_what_there_is_not(tiny64: AceStep15, changed: dict[str, Any], words: str) -> None:
    asked = {"descriptor": "level", "sites": SITE, "clips": CLIPS[:3], "settings": SETTINGS, **changed}
    with pytest.raises(UserError, match=words):
        measured_clips.__wrapped__(tiny64, **asked)


@pytest.mark.parametrize("changed", [{"method": "pca"}, {"side": "left"}])
def test_an_unknown_method_or_side_is_refused_before_anything_runs(changed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(changed))} must be"):
        descriptor.__wrapped__(None, "level", SITE, CLIPS, **changed)


def test_clips_that_do_not_differ_have_no_direction(measured: MeasuredClips) -> None:
    measured.values[:] = 440.0
    with pytest.raises(UserError, match="brightness is 440 in all 12 clips"):
        measured.vector()
