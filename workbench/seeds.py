"""Seeds: what random numbers are drawn from."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Shaped
from pydantic import Field

from cache.errors import UserError

LARGEST_SEED = 2**64 - 1
"""The largest that torch takes, and that ComfyUI and ACE-Step give."""

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def consecutive_seeds(first: int, n: int) -> Shaped[np.ndarray, " seed"]:
    """`n` seeds from `first` on, as int64 where they all fit and else as uint64.

    Raises:
        UserError: where the last one would be larger than seeds can be.
    """
    if first + n - 1 > LARGEST_SEED:
        raise UserError(
            f"The seeds of this run would be {first} to {first + n - 1}, and {LARGEST_SEED} is the largest: "
            "give a smaller seed."
        )
    return seed_array([first + place for place in range(n)])


def seed_array(seeds: Sequence[int]) -> Shaped[np.ndarray, " seed"]:
    """Seeds as int64 where they all fit and else as uint64."""
    return np.array(seeds, dtype=np.int64 if max(seeds, default=0) <= np.iinfo(np.int64).max else np.uint64)


def random_state(seed: int) -> np.random.RandomState:
    """Random numbers as scikit-learn draws them from a seed, which it takes below 2³² only."""
    return np.random.RandomState(seed if seed < 2**32 else [seed % 2**32, seed >> 32])
