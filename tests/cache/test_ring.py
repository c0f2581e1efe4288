"""The device ring: rows of the store under a byte budget, sampled uniformly, the oldest replaced."""

import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare

from cache import ActivationCache, CacheError, CachePlan, CacheWriter, UserError
from cache.object_storage import memory_storage
from cache.protocol import shard_file_name
from cache.ring import DeviceRing
from cache.shuffle import ShuffledRows
from tests.cache.helpers import living_threads

N_ROWS = 6 * 2 * 4 * 5
ROW_BYTES = 3 * 2


pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def cache() -> ActivationCache:
    """240 rows of 3 float16 channels: the row number, the same / 2, the same / 4."""
    plan = CachePlan(
        sites={"x": 3},
        dtypes="float16",
        n_clips=6,
        steps=(0, 1, 2, 3),
        sigmas=(4.0, 3.0, 2.0, 1.0),
        passes=("cond", "null"),
        tokens=5,
        token_seconds=0.04,
        clips_per_shard=2,
        identity={},
    )
    numbers = np.arange(N_ROWS, dtype=np.float32).reshape(plan.shape("x")[:4])
    values = np.stack([numbers, numbers / 2, numbers / 4], axis=-1)
    storage = memory_storage()
    with CacheWriter(storage, plan, pd.DataFrame({"clip": range(6)})) as writer:
        for shard, (first, last) in enumerate(plan.shards):
            writer.write_shard(shard, {"x": values[first : last + 1]})
    return ActivationCache(storage)


def make_rows(cache: ActivationCache, **options: Any) -> ShuffledRows:
    """Groups of at most 50 of the 240 rows, in batches of 7."""
    return ShuffledRows(cache, "x", batch_size=7, seed=0, buffer_bytes=100 * (ROW_BYTES + 8), **options)


def numbers_in(values: torch.Tensor) -> list[int]:
    """Row numbers of rows, having checked that they are rows of the store."""
    numbers = values[:, 0]
    assert values.dtype == torch.float16
    assert torch.equal(values, torch.stack([numbers, numbers / 2, numbers / 4], dim=-1))
    return numbers.int().tolist()


def held(ring: DeviceRing) -> set[int]:
    """Every row of the ring: so many are drawn that none is missed (with odds of 1 in a million)."""
    return set(numbers_in(ring.sample(40 * ring.capacity, torch.Generator().manual_seed(0))))


def stream(cache: ActivationCache, epochs: int) -> list[int]:
    """What the ring is filled from, row by row."""
    rows = make_rows(cache)
    return [number for _ in range(epochs) for number in numbers_in(torch.cat(list(rows)))]


@pytest.mark.parametrize("budget", [ROW_BYTES, 100, 601, 10**9])
def test_within_its_budget_and_no_more_than_an_epoch(cache: ActivationCache, budget: int) -> None:
    with DeviceRing(make_rows(cache), budget) as ring:
        assert ring.capacity == ring.filled == min(budget // ROW_BYTES, N_ROWS)
        tensors = [value for value in vars(ring).values() if isinstance(value, torch.Tensor)]
        owned = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        assert sum(owned.values()) <= budget + 7 * ROW_BYTES  # the batch that is being taken in
        assert held(ring) == set(stream(cache, 1)[: ring.capacity])


def test_refresh_replaces_the_oldest_rows(cache: ActivationCache) -> None:
    order = stream(cache, 4)
    begin, capacity = 0, 50
    with DeviceRing(make_rows(cache), capacity * ROW_BYTES) as ring:
        for n_rows in (1, 13, 0, 50, 49, 120, 240, 99):
            ring.refresh(n_rows)
            begin += n_rows
            assert ring.filled == capacity
            assert held(ring) == set(order[begin : begin + capacity])


def test_every_row_has_been_held_after_an_epoch(cache: ActivationCache) -> None:
    with DeviceRing(make_rows(cache), 30 * ROW_BYTES) as ring:
        seen = held(ring)
        for _ in range(N_ROWS // 30 - 1):
            ring.refresh(30)
            assert not seen & held(ring)
            seen |= held(ring)
    assert seen == set(range(N_ROWS))


def test_sampling_is_uniform_and_with_replacement(cache: ActivationCache) -> None:
    with DeviceRing(make_rows(cache), 60 * ROW_BYTES) as ring:
        drawn = numbers_in(ring.sample(60_000, torch.Generator().manual_seed(1)))
        counts = np.bincount(drawn, minlength=N_ROWS)
    assert (counts > 0).sum() == 60
    assert chisquare(counts[counts > 0]).pvalue > 1e-3


def test_the_generator_decides_and_out_is_filled(cache: ActivationCache) -> None:
    with DeviceRing(make_rows(cache), 60 * ROW_BYTES) as ring:
        first, again = (ring.sample(40, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, ring.sample(40, torch.Generator().manual_seed(2)))
        out = torch.empty_like(first)
        assert ring.sample(40, torch.Generator().manual_seed(1), out=out) is out
        assert torch.equal(out, first)


def test_a_ring_of_all_rows_reads_no_more(cache: ActivationCache) -> None:
    rows = make_rows(cache)
    ring = DeviceRing(rows, N_ROWS * ROW_BYTES)
    assert not living_threads()
    before = ring.sample(500, torch.Generator().manual_seed(0))
    ring.refresh(100)
    assert torch.equal(ring.sample(500, torch.Generator().manual_seed(0)), before)
    assert rows.state_dict()["epoch"] == 1


def test_a_closed_ring_can_be_sampled_but_not_refreshed(cache: ActivationCache) -> None:
    with DeviceRing(make_rows(cache), 30 * ROW_BYTES) as ring:
        assert living_threads()
    assert not living_threads()
    assert len(held(ring)) == 30
    with pytest.raises(UserError, match="The ring was closed"):
        ring.refresh(30)


def test_a_forgotten_ring_stops_its_threads(cache: ActivationCache) -> None:
    ring = DeviceRing(make_rows(cache), 30 * ROW_BYTES)
    forgotten = weakref.ref(ring)
    del ring
    assert forgotten() is None
    assert not living_threads()


def test_a_budget_below_one_row_is_refused(cache: ActivationCache) -> None:
    with pytest.raises(UserError, match="at least one row of 6 bytes; got 5"):
        DeviceRing(make_rows(cache), ROW_BYTES - 1)


def test_damage_reaches_the_caller(cache: ActivationCache) -> None:
    for shard in range(3):
        name = shard_file_name("x", shard)
        content = bytearray(cache.storage.read(name))
        content[3] ^= 1
        cache.storage.put(name, [bytes(content)])
    with pytest.raises(CacheError, match="is damaged"), DeviceRing(make_rows(cache), 10**6) as ring:
        ring.refresh(N_ROWS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_ring_on_a_gpu_holds_the_same_rows(cache: ActivationCache) -> None:
    with DeviceRing(make_rows(cache, device="cuda"), 50 * ROW_BYTES, "cuda") as ring:
        ring.refresh(20)
        drawn = ring.sample(2000)
        assert drawn.device.type == "cuda"
        assert set(numbers_in(drawn.cpu())) == set(stream(cache, 1)[20:70])
