"""The sampling loops of two pipelines, written by hand for three prompts, with torch alone.

`Loop.run` gives the latents of the first prompt's run. In each step, `states` says which prompt's states every pass
reads, by the prompt's number, and `push` what multiplies the difference of the second and third prompts' velocities.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step_v1.adapter import guidance
from workbench.models.ace_step_v1.guidance import Momentum
from workbench.models.ace_step_v1.pipeline import _noise
from workbench.models.ace_step_v1.schedulers import AceStepV1EulerScheduler

Velocities = dict[str, torch.Tensor]


class Loop(ABC):
    """The loop of one pipeline."""

    latents: torch.Tensor
    steps: int

    @abstractmethod
    def velocity(self, prompt: int, pass_name: str, step: int) -> torch.Tensor:
        """One call of the network for one prompt and pass, at the latents."""

    @abstractmethod
    def passes(self, step: int) -> Sequence[str]:
        """The passes of a step."""

    @abstractmethod
    def guided(self, velocities: Velocities, step: int) -> torch.Tensor:
        """The velocity that guidance makes of the passes'."""

    @abstractmethod
    def move(self, velocity: torch.Tensor, step: int) -> None:
        """Change the latents as the scheduler does."""

    def run(self, states: Sequence[Mapping[str, int]], push: Sequence[float]) -> torch.Tensor:
        with torch.no_grad():
            for step in range(self.steps):
                velocities = {
                    name: self.velocity(states[step].get(name, 0), name, step) for name in self.passes(step)
                }
                difference = self.velocity(1, "cond", step) - self.velocity(2, "cond", step)
                self.move(self.guided(velocities, step) + push[step] * difference, step)
        return self.latents


class LoopOfAceStep(Loop):
    """ACE-Step 1.5: what its network gets is recorded from a run of the pipeline."""

    def __init__(self, model: Any, clips: Sequence[Clip], settings: GenerationSettings) -> None:
        self.network, self.scale, self.steps = (
            model.pipeline.transformer,
            settings.guidance_scale,
            settings.num_steps,
        )
        calls: list[dict[str, Any]] = []
        hook = self.network.register_forward_pre_hook(
            lambda module, args, given: calls.append(given), with_kwargs=True
        )
        try:
            model.pipeline(
                prompt=[clip.prompt for clip in clips],
                lyrics=[clip.lyrics for clip in clips],
                audio_duration=settings.duration,
                num_inference_steps=settings.num_steps,
                guidance_scale=settings.guidance_scale,
                latents=model.noise(clips, settings.duration),
                output_type="latent",
            )
        finally:
            hook.remove()
        self.given, self.n = calls[0], len(clips)
        self.latents = self.given["hidden_states"][:1]
        self.times = [call["timestep"][:1] for call in calls]
        self.momentum = MomentumBuffer(momentum=-0.75)
        schedule = model.pipeline.scheduler
        self.scheduler = type(schedule).from_config(schedule.config)
        self.scheduler.set_timesteps(sigmas=[float(time) for time in schedule.sigmas[:-1]])

    def velocity(self, prompt: int, pass_name: str, step: int) -> torch.Tensor:
        row = prompt + self.n * (pass_name == "null")
        return self.network(
            hidden_states=self.latents,
            timestep=self.times[step],
            timestep_r=self.times[step],
            encoder_hidden_states=self.given["encoder_hidden_states"][row : row + 1],
            context_latents=self.given["context_latents"][row : row + 1],
            return_dict=False,
        )[0]

    def passes(self, step: int) -> Sequence[str]:
        return ("cond", "null")

    def guided(self, velocities: Velocities, step: int) -> torch.Tensor:
        return normalized_guidance(
            velocities["cond"],
            velocities["null"],
            guidance_scale=self.scale - 1,
            momentum_buffer=self.momentum,
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(1,),
        )

    def move(self, velocity: torch.Tensor, step: int) -> None:
        time = self.scheduler.timesteps[step]
        self.latents = self.scheduler.step(velocity, time, self.latents, return_dict=False)[0]


class LoopOfAceStepV1(Loop):
    """ACE-Step v1, with the parts of its pipeline."""

    def __init__(self, model: Any, clips: Sequence[Clip], settings: GenerationSettings) -> None:
        pipeline = model.pipeline
        self.network, self.guidance, self.steps = pipeline.transformer, guidance(settings), settings.num_steps
        self.encoded = pipeline._encode([(clip.prompt, clip.lyrics) for clip in clips], self.guidance)
        generator = torch.Generator().manual_seed(clips[0].seed)
        self.latents = _noise(pipeline._latent_shape(settings.duration), [generator]).to(self.network.dtype)
        self.scheduler = AceStepV1EulerScheduler(shift=3.0)
        self.scheduler.set_timesteps(self.steps)
        self.momentum = Momentum()

    def velocity(self, prompt: int, pass_name: str, step: int) -> torch.Tensor:
        row = slice(prompt, prompt + 1)
        return self.network(
            hidden_states=self.latents,
            timestep=self.scheduler.timesteps[step].expand(1),
            encoder_hidden_states=self.encoded.states[pass_name][row],
            encoder_attention_mask=self.encoded.mask[row],
            encoder_positions=self.encoded.positions[row],
            weak_queries=torch.tensor([pass_name == "null"]),
            return_dict=False,
        )[0]

    def passes(self, step: int) -> Sequence[str]:
        return self.guidance.passes_at(step, self.steps)

    def guided(self, velocities: Velocities, step: int) -> torch.Tensor:
        return self.guidance.combine(velocities, step, self.steps, self.momentum)

    def move(self, velocity: torch.Tensor, step: int) -> None:
        time = self.scheduler.timesteps[step]
        self.latents = self.scheduler.step(velocity, time, self.latents, 10.0, "sample", [])

    def run(self, states: Sequence[Mapping[str, int]], push: Sequence[float]) -> torch.Tensor:
        return super().run(states, push).permute(0, 3, 1, 2).flatten(2)
