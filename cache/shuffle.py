"""Activation vectors in random order at the speed of sequential reading."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

from cache.encoding import STORED, decode
from cache.errors import UserError

if TYPE_CHECKING:
    from cache.reader import ActivationCache

BUFFER_BYTES = 512 * 2**20


def shuffled_rows(
    cache: "ActivationCache",
    site: str,
    batch_size: int,
    seed: int,
    steps: Sequence[int] | None = None,
    passes: Sequence[str] | None = None,
) -> Iterator[Float[np.ndarray, "row channel"]]:
    """Every vector (clip, step, pass, token) of a site exactly once, as float32 batches.

    Shards are visited in random order and read whole, as many at a time as fit 512 MiB and at least two; the
    vectors of those are mixed with each other. Where all shards fit at once the order is uniformly random.
    The same seed gives the same order. Of a partial cache, the shards that are there.

    Args:
        cache: where to read.
        site: name of the site.
        batch_size: rows of a batch; only the last batch has fewer.
        seed: of the order; use another one for each epoch.
        steps, passes: labels to keep; None means all.

    Raises:
        UserError: for an unknown site or label, or a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    source = _Shards(cache, site, cache.positions("step", steps), cache.positions("pass", passes))
    return _batches(source, batch_size, np.random.default_rng(seed))


class _Shards:
    """The wanted rows of each committed shard of one site."""

    def __init__(
        self, cache: "ActivationCache", site: str, steps: Sequence[int], passes: Sequence[int]
    ) -> None:
        self.cache = cache
        self.site = site
        self.channels = cache.channels(site)
        self.numbers = sorted(cache.manifest.entries)
        self._steps = steps
        self._passes = passes
        self._tokens = range(cache.plan.tokens)
        self._rows_per_clip = len(steps) * len(passes) * len(self._tokens)

    def rows(self, shard: int) -> int:
        """How many rows a shard has."""
        first, last = self.cache.plan.shard_clips(shard)
        return (last - first + 1) * self._rows_per_clip

    def read(self, shard: int) -> Shaped[np.ndarray, "row channel"]:
        """The rows of a shard as stored."""
        first, last = self.cache.plan.shard_clips(shard)
        positions = (range(first, last + 1), self._steps, self._passes, self._tokens, range(self.channels))
        return self.cache.read_stored(self.site, positions).reshape(-1, self.channels)


def _batches(
    source: _Shards, batch_size: int, rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "row channel"]]:
    plan = source.cache.plan
    order = rng.permutation(source.numbers).tolist()
    shard_bytes = math.prod(plan.shard_shape(source.site)) * plan.itemsize
    together = max(2, BUFFER_BYTES // shard_bytes)
    left = np.empty((0, source.channels), STORED[plan.dtype])
    for start in range(0, len(order), together):
        shards = order[start : start + together]
        buffer = _fill(source, shards, left)
        mixed = rng.permutation(len(buffer))
        is_last = start + together >= len(order)
        whole = len(buffer) if is_last else len(buffer) // batch_size * batch_size
        for first in range(0, whole, batch_size):
            yield decode(buffer[mixed[first : first + batch_size]], plan.dtype)
        # What does not fill a batch is mixed with the next shards.
        left = buffer[mixed[whole:]]


def _fill(
    source: _Shards, shards: Sequence[int], left: Shaped[np.ndarray, "left channel"]
) -> Shaped[np.ndarray, "row channel"]:
    """The rows left over from before and those of some shards, one after the other."""
    total = len(left) + sum(source.rows(shard) for shard in shards)
    buffer = np.empty((total, source.channels), left.dtype)
    buffer[: len(left)] = left
    end = len(left)
    for shard in shards:
        rows = source.read(shard)
        buffer[end : end + len(rows)] = rows
        end += len(rows)
    return buffer
