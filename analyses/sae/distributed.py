"""SAEs trained by several processes (data parallel): each takes a part of every batch; they share gradients.

They train what one process trains on the whole batch, up to rounding: what is an average over rows is averaged, and
what depends on a batch in another way is told (`Told`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cache.errors import UserError
from workbench.sae.base import Sharing

Value = TypeVar("Value")


class Ranks(NamedTuple):
    """This process, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is kept."""
        return self.rank == 0


ALONE = Ranks()
"""A process that trains alone."""


def is_first() -> bool:
    """Whether this process is the one that writes and prints, before it has joined the others."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the other processes that `torchrun` started, if it did; yields the ranks.

    Raises:
        UserError: if the environment of `torchrun` is incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"WORLD_SIZE is {size}, but the other processes were not found ({error}). Start all of them with torchrun."
        ) from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class Told(Sharing):
    """What processes tell one another about their rows, with collective operations."""

    def __init__(self, size: int) -> None:
        self.size = size

    def gathered(self, values: Float[Tensor, " value"]) -> Float[Tensor, " gathered"]:
        """Return the values of all processes, each of which gives equally many."""
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def mean(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the mean of a number over all processes."""
        return self.gathered(value.detach()[None]).mean()


def sharing(ranks: Ranks) -> Sharing:
    """Return how a process shares its batches."""
    return Told(ranks.size) if ranks.size > 1 else Sharing()


def average(module: nn.Module, ranks: Ranks) -> None:
    """Replace every gradient by its mean over all processes."""
    if ranks.size == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks.size


def total(counts: Int64[Tensor, " feature"], ranks: Ranks) -> Int64[Tensor, " feature"]:
    """Return counts summed over all processes."""
    if ranks.size > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts


def of_first(value: Value, ranks: Ranks) -> Value:
    """Return the first process's value in all processes."""
    values = [value]
    if ranks.size > 1:
        dist.broadcast_object_list(values)
    return values[0]
