"""Schedules, steps of a constant velocity, the omega mean shift, and rows that do not see each other."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.models.ace_step_v1.schedulers import (
    AceStepV1EulerScheduler,
    AceStepV1HeunScheduler,
    AceStepV1PingPongScheduler,
    mean_shifted,
    omega_gain,
)

KINDS: list[Any] = [AceStepV1EulerScheduler, AceStepV1HeunScheduler, AceStepV1PingPongScheduler]
SHAPE = 3, 2, 4, 5


def draw(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ready(kind: Any, steps: int, **config: Any) -> Any:
    scheduler = kind(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def generators(rows: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_is_shifted_twice(kind: Any) -> None:
    """Three steps: 1, half way to the smallest training sigma, and that one; each shifted."""
    scheduler = ready(kind, 3)
    smallest = 3 * 0.001 / (1 + 2 * 0.001)
    spaced = [1, (1 + smallest) / 2, smallest]
    expected = torch.tensor([3 * sigma / (1 + 2 * sigma) for sigma in spaced] + [0.0])
    assert (scheduler.sigmas - expected).abs().max() < 1e-6
    points = scheduler.timesteps.unique().flip(0)
    assert torch.equal(points, scheduler.sigmas[:-1] * 1000)
    assert scheduler.timesteps.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_timestep_for_each_call(kind: Any) -> None:
    for steps in (1, 2, 5):
        calls = 2 * steps - 1 if kind is AceStepV1HeunScheduler else steps
        scheduler = ready(kind, steps)
        assert len(scheduler.timesteps) == calls
        assert len(scheduler.sigmas) == steps + 1
    assert scheduler.order == (2 if kind is AceStepV1HeunScheduler else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_true_velocity_leads_from_noise_to_data(kind: Any) -> None:
    """Noise less data is constant along a straight path; every scheduler ends where it leads."""
    noise, data = draw(0), draw(1)
    scheduler, sample = ready(kind, 4), noise
    for timestep in scheduler.timesteps:
        sigma = timestep.double() / 1000
        velocity = noise - data
        if kind is AceStepV1PingPongScheduler:
            velocity = (sample - data) / sigma  # fresh noise is another path to the same data
        sample = scheduler.step(velocity, timestep, sample, omega=0.0, generators=generators([0, 1, 2]))
    # The sigmas are float32, and their differences do not quite add up to 1.
    assert (sample - data).abs().max() < 1e-6


def test_heun_steps_along_the_mean_of_both_ends() -> None:
    scheduler, sample = ready(AceStepV1HeunScheduler, 2), draw(0)
    first, second = draw(1), draw(2)
    length = (scheduler.sigmas[1] - scheduler.sigmas[0]).item()
    half = scheduler.step(first, scheduler.timesteps[0], sample, omega=0.0)
    assert_close(half, (sample + length * first))
    whole = scheduler.step(second, scheduler.timesteps[1], half, omega=0.0)
    assert_close(whole, (sample + length * (first + second) / 2))


def test_heun_forgets_a_half_step_of_the_run_before() -> None:
    broken, fresh = ready(AceStepV1HeunScheduler, 3), ready(AceStepV1HeunScheduler, 3)
    broken.step(draw(3), broken.timesteps[0], draw(4))
    broken.set_timesteps(3)
    step = draw(1), fresh.timesteps[0], draw(0)
    assert torch.equal(broken.step(*step), fresh.step(*step))


def test_heun_ends_with_a_step_of_one_call() -> None:
    """After it nothing is left half done, and a second run along the same schedule is the first."""
    scheduler, ends = ready(AceStepV1HeunScheduler, 3), []
    for _ in range(2):
        sample = draw(0)
        for number, timestep in enumerate(scheduler.timesteps):
            sample = scheduler.step(draw(number + 1), timestep, sample)
        ends.append(sample)
    assert torch.equal(*ends)


def test_ping_pong_keeps_data_and_noise_apart() -> None:
    scheduler, sample, velocity = ready(AceStepV1PingPongScheduler, 2), draw(0), draw(1)
    found = scheduler.step(velocity, scheduler.timesteps[0], sample, generators=generators([7, 8, 9]))
    following = scheduler.sigmas[1]
    for row, seed in enumerate([7, 8, 9]):
        noise = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = (1 - following) * (sample[row] - velocity[row]) + following * noise
        assert_close(found[row], expected)


def test_omega_multiplies_what_deviates_from_the_mean() -> None:
    change = draw(0)
    gain = 0.9 + 0.2 / (1 + math.exp(-1))
    assert omega_gain(10.0) == pytest.approx(gain, abs=1e-15)
    assert omega_gain(0.0) == 1
    by_row = mean_shifted(change, 10.0, "sample")
    for row, values in enumerate(change):
        assert_close(by_row[row], (values.mean() + gain * (values - values.mean())))
    whole = mean_shifted(change, 10.0, "batch")
    assert_close(whole, (change.mean() + gain * (change - change.mean())))
    assert (whole - by_row).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_batch_is_the_row_alone(kind: Any, dtype: torch.dtype) -> None:
    rows: list[list[int]] = [[0, 1, 2], [0], [1], [2]]
    ends = []
    for chosen in rows:
        scheduler, sample, own = ready(kind, 5), draw(0, dtype)[chosen], generators(chosen)
        for number, timestep in enumerate(scheduler.timesteps):
            velocity = draw(number + 1, dtype)[chosen] + sample / 2
            sample = scheduler.step(velocity, timestep, sample, generators=own)
            assert sample.dtype == dtype
        ends.append(sample)
    assert_close(ends[0], torch.cat(ends[1:]))


def test_a_batch_mean_ties_rows_together() -> None:
    scheduler, sample, velocity = ready(AceStepV1EulerScheduler, 2), draw(0), draw(1)
    together = scheduler.step(velocity, scheduler.timesteps[0], sample, omega_reduction="batch")
    alone = scheduler.step(velocity[:1], scheduler.timesteps[0], sample[:1], omega_reduction="batch")
    assert (together[:1] - alone).abs().max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_stepped_in_float32(kind: Any) -> None:
    """The end of one step differs from that of its float32 inputs by the final rounding alone."""
    velocity, sample = draw(1, torch.bfloat16), draw(0, torch.bfloat16)
    found, wide = (
        ready(kind, 4).step(v, ready(kind, 4).timesteps[1], s, generators=generators([0, 1, 2]))
        for v, s in ((velocity, sample), (velocity.float(), sample.float()))
    )
    assert torch.equal(found, wide.to(torch.bfloat16))


@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_is_saved_and_loaded(kind: Any, tmp_path: Path) -> None:
    kind(shift=2.0).save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert (loaded.config.shift, loaded.config.num_train_timesteps) == (2.0, 1000)
    assert len(loaded) == 1000


def test_what_a_schedule_does_not_have_is_refused() -> None:
    scheduler = ready(AceStepV1EulerScheduler, 3)
    with pytest.raises(UserError, match=r"no timestep 500\.0"):
        scheduler.step(draw(0), 500.0, draw(1))
    with pytest.raises(UserError, match="The number of denoising steps must be at least 1; got 0"):
        scheduler.set_timesteps(0)
