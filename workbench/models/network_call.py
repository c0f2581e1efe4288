"""One call of a denoiser for one clip, as its pipeline makes it, to be repeated without the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.architecture import Architecture
from workbench.models.pipeline_call import select_rows


@dataclass(frozen=True)
class NetworkCall:
    """The arguments of a call by name, and the pass of each of its rows.

    `of_step` are the names of the arguments that belong to the step: latents and times. All others are the same in
    every call of a generation.
    """

    arguments: dict[str, Any]
    passes: tuple[str, ...]
    of_step: tuple[str, ...]

    def of_pass(self, name: str) -> "NetworkCall":
        """Return the call with only the row of a pass."""
        rows = [self.passes.index(name)]
        return replace(self, arguments=select_rows(self.arguments, rows, len(self.passes)), passes=(name,))

    def at_step_of(self, other: "NetworkCall") -> "NetworkCall":
        """Return the call with the latents and times of another one, which has as many rows."""
        arguments = {**self.arguments, **{name: other.arguments[name] for name in self.of_step}}
        return replace(self, arguments=arguments)

    def run(self, network: torch.nn.Module) -> torch.Tensor:
        """Return the network's output, in its own layout."""
        output: torch.Tensor = network(**self.arguments)[0]
        return output


class _Reached(Exception):
    """Raised inside a pipeline to end it, once the wanted call is reached."""


def _named_arguments(names: Sequence[str], args: Sequence[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return positional arguments, which have these names, and the others by name."""
    return {**dict(zip(names, args, strict=False)), **given}


def call_at(model: Architecture, clip: Clip, settings: GenerationSettings, step: int) -> NetworkCall:
    """Run the pipeline for a clip up to a step, with the denoiser as it is, and return the call of that step.

    Its arguments are those of the pipeline, without the workbench's edits and masks.
    """
    access, found = model.call_class, []

    def stop(_: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        arguments = _named_arguments(access.argument_names, args, given)
        label = model.label_call(arguments, n_clips=1)
        if label.step == step:
            found.append(NetworkCall(arguments, label.passes, (access.latents, *access.times)))
            raise _Reached

    hook = model.denoiser.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            model.pipeline(**model.pipeline_arguments([clip], settings))
    except _Reached:
        return found[0]
    finally:
        hook.remove()
    raise ValueError(f"step {step} was not reached in {settings.num_steps} steps")
