"""The LoRA of a network in training, and its checkpoints."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import UserError
from workbench.files import locked, remove_partials
from workbench.provenance import content_hash
from workbench.tensor_files import is_whole, load_tensors, sealed, write_tensors
from workbench.validation import must_be

EVERY = 10
"""Iterations from one checkpoint to the next."""
_FILE, _LOCK, _HEADER = "checkpoint.safetensors", "lock", "slider_training"
_ADAPTER = "slider"
_ELSEWHERE = "use another folder (on the command line, another --name)"
_LOSSES = "losses"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Lora:
    """A LoRA inside a network: its weights by name, `<module>.down` (rank, in) and `<module>.up` (out, rank)."""

    weights: Mapping[str, torch.nn.Parameter]
    tuner: Any

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The trained weights."""
        return list(self.weights.values())

    def factors(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of a module's change."""
        return self.weights[f"{module}.down"], self.weights[f"{module}.up"]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the network without it."""
        self.tuner.disable_adapter_layers()
        try:
            yield
        finally:
            self.tuner.enable_adapter_layers()


@contextmanager
def adapted(
    network: torch.nn.Module, modules: Sequence[str], rank: int, alpha: float, seed: int
) -> Iterator[Lora]:
    """Put a new LoRA of PEFT into linear modules of a network; afterwards the network is as it was."""
    from peft import LoraConfig, LoraModel

    original = {name: network.get_submodule(name) for name in modules}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    exactly = "|".join(map(re.escape, modules))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=exactly)
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT draws the first weights on the CPU
            torch.default_generator.manual_seed(seed)
            tuner = LoraModel(network, config, _ADAPTER)
        weights = {}
        for name in modules:
            layer: Any = network.get_submodule(name)
            weights[f"{name}.down"] = layer.lora_A[_ADAPTER].weight
            weights[f"{name}.up"] = layer.lora_B[_ADAPTER].weight
        for weight in weights.values():
            # A half precision is too coarse for small steps; PEFT computes in the LoRA's own precision.
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
        yield Lora(weights, tuner)
    finally:
        for name, module in original.items():
            network.set_submodule(name, module)
        if hasattr(network, "peft_config"):
            del network.peft_config
        for parameter in trained:
            parameter.requires_grad_(True)


class Checkpoints:
    """The state of a training in a folder, or nowhere; `identity` is everything that determines it but its length."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        must_be((str, os.PathLike, type(None)), folder, "The folder of checkpoints must be given by its path")
        self._folder = None if folder is None else Path(folder)
        self._identity = content_hash(identity)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder, and remove what killed ones left half-written."""
        if self._folder is None:
            yield
            return
        busy = f"Another process is training a slider in {self._folder}. Wait for it, or {_ELSEWHERE}."
        made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        with locked(self._folder / _LOCK, self._folder, busy):
            try:
                remove_partials(self._folder, self._folder)
                yield
            finally:
                self._remove_unused(made)

    def _remove_unused(self, made: Sequence[Path]) -> None:
        """Remove the folders that this training made, inner ones first, if it kept no state."""
        if self._folder is not None and made and not (self._folder / _FILE).exists():
            (self._folder / _LOCK).unlink()
            with suppress(OSError):  # something else is in them
                for folder in made:
                    folder.rmdir()

    def load(self, lora: Lora, optimiser: torch.optim.Optimizer, iterations: int) -> list[float]:
        """Restore the last state, if there is one, and return the losses so far.

        Raises:
            UserError: if it is of another or a longer training, or damaged.
        """
        if self._folder is None:
            return []
        try:
            arrays, texts = load_tensors(self._folder, _FILE)
        except FileNotFoundError:
            return []
        what = f"{self._folder / _FILE} is the state of"
        if texts.get(_HEADER) != self._identity or not (is_whole(texts, arrays) and _fits(arrays, lora)):
            raise UserError(
                f"{what} another training than this one, or damaged. To start anew, {_ELSEWHERE}, or remove "
                f"{self._folder}."
            )
        losses: list[float] = arrays[_LOSSES].tolist()
        if len(losses) > iterations:
            raise UserError(
                f"{what} {len(losses)} iterations; this training has only {iterations}. Ask for at least as many, or "
                f"{_ELSEWHERE}."
            )
        for name, weight in lora.weights.items():
            own, *moments = (torch.from_numpy(arrays[each]) for each in _names(name))
            weight.data.copy_(own)
            optimiser.state[weight] = {
                "step": torch.tensor(float(len(losses))),
                **{key: moment.to(weight) for key, moment in zip(_MOMENTS, moments, strict=True)},
            }
        return losses

    def save(
        self, lora: Lora, optimiser: torch.optim.Optimizer, losses: Sequence[float], iterations: int
    ) -> None:
        """Write the state, whole or not at all, if it is time."""
        if self._folder is None or (len(losses) % EVERY and len(losses) < iterations):
            return
        arrays = {_LOSSES: np.array(losses)}
        for name, weight in lora.weights.items():
            values = (weight, *(optimiser.state[weight][key] for key in _MOMENTS))
            for each, value in zip(_names(name), values, strict=True):
                arrays[each] = value.detach().cpu().numpy()
        write_tensors(self._folder / _FILE, arrays, sealed({_HEADER: self._identity}, arrays), self._folder)


def _names(weight: str) -> tuple[str, ...]:
    """Return the names of a weight's arrays: itself and its moments in AdamW."""
    return (weight, *(f"{weight}.{key}" for key in _MOMENTS))


def _fits(arrays: Mapping[str, np.ndarray], lora: Lora) -> bool:
    """Whether arrays are the state of a LoRA."""
    shapes = {name: tuple(weight.shape) for own, weight in lora.weights.items() for name in _names(own)}
    given = {name: array.shape for name, array in arrays.items() if name != _LOSSES}
    return _LOSSES in arrays and arrays[_LOSSES].ndim == 1 and given == shapes
