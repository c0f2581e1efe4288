"""Rows of activations for a sparse autoencoder: which clips train it, in which order, and which judge it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from cache import ActivationCache
from cache.errors import UserError

# Rows of as many clips as fit are mixed with each other.
BUFFER_BYTES = 512 * 2**20

Rows = Iterator[Float[np.ndarray, "row channel"]]


def split_by_prompt(clips: pd.DataFrame, held_out_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Clip numbers (training, held out): a random share of the prompts, at least one, is held out whole.

    Raises:
        UserError: there are fewer than two prompts.
    """
    prompts = clips["prompt_id"].unique()
    if len(prompts) < 2:
        raise UserError(
            "A sparse autoencoder needs clips of at least two prompts, one of them held out: trace more."
        )
    count = min(max(1, round(held_out_share * len(prompts))), len(prompts) - 1)
    held_out = clips["prompt_id"].isin(np.random.default_rng(seed).permutation(prompts)[:count])
    return clips["clip"][~held_out].tolist(), clips["clip"][held_out].tolist()


def training_rows(
    cache: ActivationCache, site: str, pass_name: str, clips: Sequence[int], batch_size: int
) -> Callable[[int], Rows]:
    """A function `rows(seed)`: one pass over the activations of `clips` at a site, all steps and tokens.

    Clips come in random order, as many at a time as fit `BUFFER_BYTES`, and the rows of those are mixed.
    Batches have `batch_size` rows; what is left of a buffer after whole batches is dropped, other rows each
    time.
    """
    clip_bytes = 4 * len(cache.plan.steps) * cache.plan.tokens * cache.channels(site)
    together = max(1, BUFFER_BYTES // clip_bytes)

    def rows(seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        order = rng.permutation(clips)
        for start in range(0, len(order), together):
            buffer = _rows_of(cache, site, pass_name, np.sort(order[start : start + together]).tolist())
            mixed = rng.permutation(len(buffer))
            size = min(batch_size, len(buffer))
            for first in range(0, len(buffer) - size + 1, size):
                yield buffer[mixed[first : first + size]]

    return rows


def by_clip(
    cache: ActivationCache, site: str, pass_name: str, clips: Sequence[int]
) -> Iterator[Float[np.ndarray, "step token channel"]]:
    """Activations of one clip after another; they are read as many at a time as a shard has clips."""
    size = cache.plan.clips_per_shard
    for start in range(0, len(clips), size):
        yield from cache.read(site, clips=clips[start : start + size], passes=[pass_name])[:, :, 0]


def _rows_of(
    cache: ActivationCache, site: str, pass_name: str, clips: Sequence[int]
) -> Float[np.ndarray, "row channel"]:
    acts = cache.read(site, clips=clips, passes=[pass_name])
    return acts.reshape(-1, acts.shape[-1])
