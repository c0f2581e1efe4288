"""One SAE trained by several processes (data parallel): each takes a part of every batch; they share gradients."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor, nn

from cache.errors import UserError


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


def average_gradients(module: nn.Module, ranks: Ranks) -> None:
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
