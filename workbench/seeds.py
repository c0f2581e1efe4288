"""Seeds of random numbers."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Shaped
from pydantic import Field

from cache.errors import UserError

LARGEST_SEED = 2**64 - 1
"""Largest seed of torch, which ComfyUI and ACE-Step also use."""

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def consecutive_seeds(first: int, n: int) -> Shaped[np.ndarray, " seed"]:
    """Return `n` seeds from `first` on, as int64 if all fit, otherwise as uint64.

    Raises:
        UserError: if the last one is too large.
    """
    last = first + n - 1
    if last > LARGEST_SEED:
        raise UserError(
            f"Seeds must be at most {LARGEST_SEED}; this run would use {first} to {last}. Give a smaller seed."
        )
    return seed_array([first + place for place in range(n)])


def seed_array(seeds: Sequence[int]) -> Shaped[np.ndarray, " seed"]:
    """Return seeds as int64 if all fit, otherwise as uint64."""
    return np.array(seeds, dtype=np.int64 if max(seeds, default=0) <= np.iinfo(np.int64).max else np.uint64)


def random_state(seed: int) -> np.random.RandomState:
    """Return the random state of scikit-learn for a seed, which scikit-learn limits to below 2³²."""
    return np.random.RandomState(seed if seed < 2**32 else [seed % 2**32, seed >> 32])
