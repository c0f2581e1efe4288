"""Memory that was freed is used again."""

import ctypes
import resource
import sys

import pytest
import torch

from workbench.freed_memory import KEPT_BYTES, LARGEST_BYTES, keep_freed_memory

PAGE = resource.getpagesize()
ROUNDS, TENSORS = 10, 3


def pages_mapped(n_bytes: int) -> int:
    """Pages that the system maps while three tensors of this size are written and freed ten times, after five."""
    before = 0
    for place in range(5 + ROUNDS):
        if place == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.empty(n_bytes, dtype=torch.uint8).fill_(1) for _ in range(TENSORS)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
@pytest.mark.parametrize("n_bytes", [LARGEST_BYTES // 4, LARGEST_BYTES // 2])
def test_freed_memory_is_not_mapped_again(n_bytes: int) -> None:
    keep_freed_memory()
    assert TENSORS * n_bytes < KEPT_BYTES
    # The place of a tensor may change between rounds, and a new one is mapped once.
    assert pages_mapped(n_bytes) < ROUNDS * TENSORS * n_bytes // PAGE // 2
