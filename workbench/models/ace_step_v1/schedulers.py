"""Schedulers of ACE-Step v1: flow matching with Euler, Heun and ping-pong steps, and the omega mean shift.

Sigma falls from 1 (noise) to 0; the network's velocity is noise minus data; a timestep is 1000 sigma.
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

    `timesteps` (float32) has one entry per denoiser call, each followed by one `step`. `sigmas`, on the CPU, are the
    points of the schedule and the final 0.
    """

    order = 1

    timesteps: Float[torch.Tensor, " call"]
    sigmas: Float[torch.Tensor, " point"]

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 3.0) -> None:  # noqa: ARG002  in self.config
        self.timesteps = torch.empty(0)
        self.sigmas = torch.zeros(1)
        self._points: dict[float, int] = {}  # index in the schedule by timestep

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Prepare a generation with this many steps, discarding the previous one.

        The published sampler shifts twice: its last point before 0 is the smallest training sigma, shifted; points
        spaced evenly from 1 to it are then shifted again.

        Raises:
            UserError: if there is less than one step.
        """
        if num_inference_steps < 1:
            raise UserError(f"The number of denoising steps must be at least 1; got {num_inference_steps}.")
        n_train = self.config.num_train_timesteps
        smallest = self._shifted(np.array([1 / n_train], np.float32))[0]
        even = np.linspace(n_train, float(smallest) * n_train, num_inference_steps) / n_train
        points = torch.from_numpy(self._shifted(even)).to(torch.float32)
        self.sigmas = torch.cat([points, torch.zeros(1, dtype=torch.float32)])
        self._points = {timestep: point for point, timestep in enumerate((points * n_train).tolist())}
        self.timesteps = self._calls(points * n_train).to(device)

    def __len__(self) -> int:
        """Return the number of steps of the training schedule."""
        return self.config.num_train_timesteps

    def _calls(self, timesteps: Float[torch.Tensor, " point"]) -> Float[torch.Tensor, " call"]:
        """Return the timesteps of the denoiser's calls, given those of the schedule's points."""
        return timesteps

    def _shifted(self, sigmas: np.ndarray) -> np.ndarray:
        """Shift sigmas towards noise (Esser et al. 2024, "Scaling Rectified Flow Transformers")."""
        shift = self.config.shift
        return shift * sigmas / (1 + (shift - 1) * sigmas)

    def _interval(self, timestep: Timestep) -> tuple[Sigma, Sigma]:
        """Return sigma at a timestep and at the next point.

        Raises:
            UserError: if the schedule does not have this timestep.
        """
        point = self._points.get(float(timestep))
        if point is None:
            raise UserError(
                f"The schedule has no timestep {float(timestep)}. Give one of the scheduler's timesteps."
            )
        return self.sigmas[point], self.sigmas[point + 1]


class AceStepV1EulerScheduler(_Scheduler):
    """Euler steps along the velocity, with one denoiser call each."""

    def step(
        self,
        velocity: Latents,
        timestep: Timestep,
        sample: Latents,
        omega: float = 10.0,
        omega_reduction: OmegaReduction = "sample",
        generators: list[torch.Generator] | None = None,  # noqa: ARG002  one signature for all three
    ) -> Latents:
        """Return the latents at the next point, in the velocity's dtype; computed in float32 or wider.

        Args:
            velocity: the network's velocity at `sample`, with guidance.
            timestep: one of `timesteps`.
            sample: the latents at that timestep.
            omega: strength of the mean shift (see `mean_shifted`).
            omega_reduction: whether its mean is over each row ("sample") or over the whole batch ("batch").
            generators: not used.

        Raises:
            UserError: if the schedule does not have this timestep.
        """
        sigma, following = self._interval(timestep)
        change = (following - sigma) * _wide(velocity)
        return (_wide(sample) + mean_shifted(change, omega, omega_reduction)).to(velocity.dtype)


class AceStepV1HeunScheduler(_Scheduler):
    """Heun steps: an Euler step, then again from its start along the mean of the velocities at its two ends.

    Each step has two denoiser calls, so all timesteps but the first appear twice; the last step, to 0, has one call.
    """

    order = 2

    _begun: tuple[Sigma, Latents, Latents] | None = (
        None  # length, first velocity and start of a half-done step
    )

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Prepare a generation as the other schedulers do, and discard a half-done step."""
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
        """Return the latents for the next denoiser call, in the velocity's dtype; arguments as for Euler.

        The mean shift is applied in both halves of a step.

        Raises:
            UserError: if the schedule does not have this timestep.
        """
        velocity_there, start = _wide(velocity), _wide(sample)
        if self._begun is None:
            sigma, following = self._interval(timestep)
            length, direction = following - sigma, velocity_there
            # The step to 0 ends here: the denoiser is not called at 0.
            self._begun = (length, direction, start) if following > 0 else None
        else:
            length, first, start = self._begun
            direction = (first + velocity_there) / 2
            self._begun = None
        change = mean_shifted(length * direction, omega, omega_reduction)
        return (start + change).to(velocity.dtype)

    def _calls(self, timesteps: Float[torch.Tensor, " point"]) -> Float[torch.Tensor, " call"]:
        return torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])


class AceStepV1PingPongScheduler(_Scheduler):
    """Ping-pong steps: to the predicted data, then back to the next sigma with fresh noise.

    Each step has one denoiser call. This is the sampler of consistency models (Song et al. 2023); it has no mean shift.
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
        """Return the latents at the next point, in the velocity's dtype; computed in float32 or wider.

        Args:
            velocity: the network's velocity at `sample`, with guidance.
            timestep: one of `timesteps`.
            sample: the latents at that timestep.
            omega: not used.
            omega_reduction: not used.
            generators: one for each row, so that its noise does not depend on other rows; by default, noise comes from
                torch's global generator.

        Raises:
            UserError: if the schedule does not have this timestep.
        """
        sigma, following = self._interval(timestep)
        data = _wide(sample) - sigma * _wide(velocity)
        noise = randn_tensor(data.shape, generator=generators, device=data.device, dtype=data.dtype)
        return ((1 - following) * data + following * noise).to(velocity.dtype)


def omega_gain(omega: float) -> float:
    """Return the mean shift's factor: a logistic function from 0.9 to 1.1, which is 1 at omega = 0."""
    return 0.9 + 0.2 / (1 + math.exp(-0.1 * omega))


def mean_shifted(change: Latents, omega: float, omega_reduction: OmegaReduction) -> Latents:
    """Return a step's change with its deviations from its mean multiplied by `omega_gain(omega)`.

    With the reduction "batch", as published, the mean is over the whole batch, so that rows depend on each other; with
    "sample" each row has its own.

    Raises:
        UserError: if the reduction is unknown.
    """
    if omega_reduction not in ("sample", "batch"):
        raise UserError(f"omega_reduction must be 'sample' or 'batch'; got '{omega_reduction}'.")
    mean = change.mean(dim=(1, 2, 3), keepdim=True) if omega_reduction == "sample" else change.mean()
    return (change - mean) * omega_gain(omega) + mean


def _wide(values: Latents) -> Latents:
    """Convert values to float32, unless they are wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
