"""Schedulers of ACE-Step v1: flow matching with Euler, Heun and ping-pong steps, and the omega mean shift.

Sigma falls from 1 (noise) to 0; the network's velocity is noise less data; a timestep is 1000 sigma.
"""

import math
from typing import Literal

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float

from cache.errors import UserError

Latents = Float[torch.Tensor, "row channel band frame"]
Sigma = Float[torch.Tensor, ""]
Timestep = float | Float[torch.Tensor, ""]
OmegaReduction = Literal["sample", "batch"]


class _Scheduler(SchedulerMixin, ConfigMixin):
    """The schedule that the three kinds of steps share.

    `timesteps` (float32) are those of the denoiser's calls, each followed by one `step`. `sigmas`, on the CPU, are the
    points of the schedule, and the final 0.
    """

    order = 1

    timesteps: Float[torch.Tensor, "call"]
    sigmas: Float[torch.Tensor, "point"]

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 3.0) -> None:  # noqa: ARG002  in self.config
        self.timesteps = torch.empty(0)
        self.sigmas = torch.zeros(1)
        self._points: dict[float, int] = {}  # where in the schedule each timestep is

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Lay out a generation of that many steps, and forget the one before.

        The published sampler shifts twice: its last point before 0 is the smallest of the training sigmas, shifted;
        points spaced evenly from 1 to there are shifted once more.

        Raises:
            UserError: for less than one step.
        """
        if num_inference_steps < 1:
            raise UserError(f"{num_inference_steps} denoising steps were asked for; give at least 1.")
        n_train = self.config.num_train_timesteps
        smallest = self._shifted(np.array([1 / n_train], np.float32))[0]
        even = np.linspace(n_train, float(smallest) * n_train, num_inference_steps) / n_train
        points = torch.from_numpy(self._shifted(even)).to(torch.float32)
        self.sigmas = torch.cat([points, torch.zeros(1, dtype=torch.float32)])
        self._points = {timestep: point for point, timestep in enumerate((points * n_train).tolist())}
        self.timesteps = self._calls(points * n_train).to(device)

    def __len__(self) -> int:
        """Steps of the training schedule."""
        return self.config.num_train_timesteps

    def _calls(self, timesteps: Float[torch.Tensor, "point"]) -> Float[torch.Tensor, "call"]:
        """Timesteps of the denoiser's calls, from the points'."""
        return timesteps

    def _shifted(self, sigmas: np.ndarray) -> np.ndarray:
        """Sigmas moved towards noise (Esser et al. 2024, "Scaling Rectified Flow Transformers")."""
        shift = self.config.shift
        return shift * sigmas / (1 + (shift - 1) * sigmas)

    def _interval(self, timestep: Timestep) -> tuple[Sigma, Sigma]:
        """Sigma at a timestep, and at the next point.

        Raises:
            UserError: for a timestep that the schedule does not have.
        """
        point = self._points.get(float(timestep))
        if point is None:
            raise UserError(
                f"The schedule has no timestep {float(timestep)}; give one of the scheduler's timesteps."
            )
        return self.sigmas[point], self.sigmas[point + 1]


class AceStepV1EulerScheduler(_Scheduler):
    """Steps along the velocity: one denoiser call each."""

    def step(
        self,
        velocity: Latents,
        timestep: Timestep,
        sample: Latents,
        omega: float = 10.0,
        omega_reduction: OmegaReduction = "sample",
        generators: list[torch.Generator] | None = None,  # noqa: ARG002  one signature for all three
    ) -> Latents:
        """The latents at the next point, in the velocity's dtype; computed in float32 at least.

        Args:
            velocity: What the network (with guidance) says at `sample`.
            timestep: One of `timesteps`.
            sample: The latents at that timestep.
            omega: Strength of the mean shift (see `mean_shifted`).
            omega_reduction: Whether its mean is over each row or over the whole batch.
            generators: Not used.

        Raises:
            UserError: for a timestep that the schedule does not have.
        """
        sigma, following = self._interval(timestep)
        change = (following - sigma) * _wide(velocity)
        return (_wide(sample) + mean_shifted(change, omega, omega_reduction)).to(velocity.dtype)


class AceStepV1HeunScheduler(_Scheduler):
    """Heun's steps: along the velocity, then, from where they began, along the mean of it and the one there.

    Two denoiser calls each, so that all timesteps but the first are there twice; the last step, to 0, has one.
    """

    order = 2

    _begun: tuple[Sigma, Latents, Latents] | None = (
        None  # length, first velocity and start of a half-done step
    )

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """As for the others; also forgets a step that is half done."""
        super().set_timesteps(num_inference_steps, device)
        self._begun = None

    def step(
        self,
        velocity: Latents,
        timestep: Timestep,
        sample: Latents,
        omega: float = 10.0,
        omega_reduction: OmegaReduction = "sample",
        generators: list[torch.Generator] | None = None,  # noqa: ARG002  one signature for all three
    ) -> Latents:
        """The latents to call the denoiser at next, in the velocity's dtype; arguments as for Euler.

        The mean shift is applied in both halves of a step.

        Raises:
            UserError: for a timestep that the schedule does not have.
        """
        velocity_there, start = _wide(velocity), _wide(sample)
        if self._begun is None:
            sigma, following = self._interval(timestep)
            length, direction = following - sigma, velocity_there
            # The step to 0 ends here: no velocity is asked for at 0.
            self._begun = (length, direction, start) if following > 0 else None
        else:
            length, first, start = self._begun
            direction = (first + velocity_there) / 2
            self._begun = None
        change = mean_shifted(length * direction, omega, omega_reduction)
        return (start + change).to(velocity.dtype)

    def _calls(self, timesteps: Float[torch.Tensor, "point"]) -> Float[torch.Tensor, "call"]:
        return torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])


class AceStepV1PingPongScheduler(_Scheduler):
    """Ping-pong steps: to the data that the velocity points at, and back to the next sigma with fresh noise.

    One denoiser call each. This is the sampler of consistency models (Song et al. 2023), and has no mean shift.
    """

    def step(
        self,
        velocity: Latents,
        timestep: Timestep,
        sample: Latents,
        omega: float = 10.0,  # noqa: ARG002  one signature for all three
        omega_reduction: OmegaReduction = "sample",  # noqa: ARG002
        generators: list[torch.Generator] | None = None,
    ) -> Latents:
        """The latents at the next point, in the velocity's dtype; computed in float32 at least.

        Args:
            velocity: What the network (with guidance) says at `sample`.
            timestep: One of `timesteps`.
            sample: The latents at that timestep.
            omega: Not used.
            omega_reduction: Not used.
            generators: One for each row, so that a row's noise does not depend on its neighbours; without them
                noise comes from torch's own generator.

        Raises:
            UserError: for a timestep that the schedule does not have.
        """
        sigma, following = self._interval(timestep)
        data = _wide(sample) - sigma * _wide(velocity)
        noise = randn_tensor(data.shape, generator=generators, device=data.device, dtype=data.dtype)
        return ((1 - following) * data + following * noise).to(velocity.dtype)


def omega_gain(omega: float) -> float:
    """What the mean shift multiplies by: a logistic from 0.9 to 1.1, which is 1 at omega = 0."""
    return 0.9 + 0.2 / (1 + math.exp(-0.1 * omega))


def mean_shifted(change: Latents, omega: float, omega_reduction: OmegaReduction) -> Latents:
    """A step's change with its deviations from its mean multiplied by `omega_gain(omega)`.

    The published sampler's mean is over the whole batch ("batch"), where a row depends on its neighbours; with
    "sample" each row has its own.

    Raises:
        UserError: for another reduction.
    """
    if omega_reduction not in ("sample", "batch"):
        raise UserError(f"omega_reduction is '{omega_reduction}'; it can be 'sample' or 'batch'.")
    mean = change.mean(dim=(1, 2, 3), keepdim=True) if omega_reduction == "sample" else change.mean()
    return (change - mean) * omega_gain(omega) + mean


def _wide(values: Latents) -> Latents:
    """In float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
