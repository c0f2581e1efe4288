"""Shuffled rows: all of them, once each, in an order without a trace of the disk's, resumable anywhere."""

import json
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from cache import ActivationCache, CacheError, CachePlan, CacheWriter, UserError, protocol
from cache.object_storage import ObjectStorage, memory_storage
from cache.protocol import Dtype, shard_file_name
from cache.shuffle import ShuffledRows
from tests.cache import helpers
from tests.cache.helpers import living_threads

ROW_BYTES = 2 * 4 + 8  # two float32 channels and the place in the order


class WatchedStorage(ObjectStorage):
    """An object store in memory that counts how often each chunk is read."""

    def __init__(self) -> None:
        super().__init__(memory_storage().store, "memory://watched")
        self.chunks_read: Counter[tuple[str, int]] = Counter()
        self._counted = threading.Condition()

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        super().read_into(name, offset, *buffers)
        if offset + sum(map(len, buffers)) < (self.size(name) or 0):  # not the index
            with self._counted:
                self.chunks_read[name, offset] += 1
                self._counted.notify_all()

    def wait_for_chunks(self, count: int) -> bool:
        """Whether that many chunks are read within ten seconds."""
        with self._counted:
            return self._counted.wait_for(lambda: self.chunks_read.total() >= count, timeout=10)


def make_plan(**changes: Any) -> CachePlan:
    """One site of two channels."""
    return helpers.make_plan(**({"sites": {"x": 2}, "dtypes": "float32", "identity": {}} | changes))


def row_numbers_on_disk(plan: CachePlan) -> Float[np.ndarray, "clip step pass token"]:
    shape = plan.shape("x")[:4]
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def numbered_cache(
    plan: CachePlan, storage: ObjectStorage | None = None, shards: list[int] | None = None
) -> ActivationCache:
    """A cache in memory whose site "x" holds (row number on disk, the same / 2) in its two channels."""
    storage = storage or memory_storage()
    numbers = row_numbers_on_disk(plan)
    values = np.stack([numbers, numbers / 2], axis=-1)
    with CacheWriter(storage, plan, pd.DataFrame({"clip": range(plan.n_clips)})) as writer:
        for shard in writer.missing() if shards is None else shards:
            first, last = plan.shard_clips(shard)
            writer.write_shard(shard, {"x": values[first : last + 1]})
    return ActivationCache(storage, allow_partial=shards is not None)


def shuffled(cache: ActivationCache, batch_size: int = 8, seed: int = 0, **options: Any) -> ShuffledRows:
    return ShuffledRows(cache, "x", batch_size, seed, **options)


def epoch_of(rows: ShuffledRows) -> Int[np.ndarray, " row"]:
    """Row numbers of what is left of the epoch."""
    values = torch.cat(list(rows)).numpy()
    np.testing.assert_array_equal(values[:, 1], values[:, 0] / 2)
    return values[:, 0].astype(int)


@st.composite
def selections(draw: st.DrawFn) -> tuple[CachePlan, dict[str, list[Any]]]:
    """A plan and labels to keep of each dimension."""
    steps, passes = (
        draw(st.sampled_from([(3,), (0, 7, 21)])),
        draw(st.sampled_from([("cond",), ("cond", "null")])),
    )
    plan = make_plan(
        n_clips=draw(st.integers(1, 9)),
        steps=steps,
        sigmas=tuple(float(step) for step in steps),
        passes=passes,
        tokens=draw(st.integers(1, 4)),
        clips_per_shard=draw(st.integers(1, 6)),
    )
    labels = {"clips": range(plan.n_clips), "steps": steps, "passes": passes}
    return plan, {
        name: draw(st.lists(st.sampled_from(list(known)), min_size=1)) for name, known in labels.items()
    }


@given(
    selection=selections(),
    chunk_bytes=st.sampled_from([1, 64, 150, 2**20]),
    batch_size=st.integers(1, 60),
    buffer_bytes=st.integers(0, 300 * ROW_BYTES),
)
@settings(max_examples=100, deadline=None)
def test_every_row_once_an_epoch_in_full_batches(
    selection: tuple[CachePlan, dict[str, list[Any]]], chunk_bytes: int, batch_size: int, buffer_bytes: int
) -> None:
    plan, labels = selection
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", chunk_bytes)
        cache = numbered_cache(plan)
        rows = shuffled(cache, batch_size, seed=1, buffer_bytes=buffer_bytes, **labels)
        epochs = [list(rows), []]
        for batch, step in rows.with_steps():
            epochs[1].append(batch)
            number = batch[:, 0].long()
            after = len(plan.passes) * plan.tokens
            assert step.tolist() == (number // after % len(plan.steps)).tolist()
    steps = [plan.steps.index(step) for step in set(labels["steps"])]
    passes = [plan.passes.index(name) for name in set(labels["passes"])]
    wanted = row_numbers_on_disk(plan)[np.ix_(list(set(labels["clips"])), steps, passes)].ravel()
    assert rows.n_rows == len(wanted)
    for batches in epochs:
        given_rows = torch.cat(batches).numpy()
        np.testing.assert_array_equal(np.sort(given_rows[:, 0]), np.sort(wanted))
        np.testing.assert_array_equal(given_rows[:, 1], given_rows[:, 0] / 2)
        assert len(batches) == len(rows)
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert 1 <= len(batches[-1]) <= batch_size


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rows_are_the_stored_bits(dtype: Dtype) -> None:
    plan = make_plan(sites={"x": 5}, dtypes=dtype)
    values = np.random.default_rng(0).standard_normal(plan.shape("x"), dtype=np.float32)
    storage = memory_storage()
    with CacheWriter(storage, plan, pd.DataFrame({"clip": range(plan.n_clips)})) as writer:
        for shard, (first, last) in enumerate(plan.shards):
            writer.write_shard(shard, {"x": values[first : last + 1]})
    batches = list(ActivationCache(storage).shuffled_rows("x", 11, seed=0))
    assert {batch.dtype for batch in batches} == {getattr(torch, dtype)}
    expected = torch.from_numpy(values).to(batches[0].dtype).reshape(-1, 5)
    assert sorted(torch.cat(batches).tolist()) == sorted(expected.tolist())


@pytest.mark.usefixtures("small_chunks")
def test_the_order_is_the_same_for_any_workers_and_batch_size() -> None:
    cache = numbered_cache(make_plan(), WatchedStorage())
    orders = [
        epoch_of(shuffled(cache, batch_size, workers=workers, buffer_bytes=2 * 30 * ROW_BYTES))
        for workers, batch_size in [(1, 1), (2, 7), (5, 7), (5, 64), (2, 1000)]
    ]
    for order in orders[1:]:
        np.testing.assert_array_equal(order, orders[0])


@pytest.mark.parametrize("buffer_rows", [30, 1000])
@pytest.mark.usefixtures("small_chunks")
def test_seed_and_epoch_decide_the_order(buffer_rows: int) -> None:
    cache = numbered_cache(make_plan())
    options = {"buffer_bytes": 2 * buffer_rows * ROW_BYTES}
    rows, other = shuffled(cache, seed=3, **options), shuffled(cache, seed=4, **options)
    orders = [epoch_of(rows), epoch_of(rows), epoch_of(rows), epoch_of(other), epoch_of(other)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert (first != second).mean() > 0.9
    again = shuffled(cache, seed=3, **options)
    for order in orders[:3]:
        np.testing.assert_array_equal(epoch_of(again), order)


@pytest.mark.parametrize("buffer_rows", [0, 10, 30, 1000])
@pytest.mark.usefixtures("small_chunks")
def test_resuming_at_any_row_gives_the_uninterrupted_rest(buffer_rows: int) -> None:
    cache = numbered_cache(make_plan(n_clips=3))
    options = {"seed": 5, "buffer_bytes": 2 * buffer_rows * ROW_BYTES}
    whole = shuffled(cache, **options)
    epochs = [epoch_of(whole) for _ in range(3)]
    state = shuffled(cache, **options).state_dict()
    for row in range(whole.n_rows):
        resumed = shuffled(cache, **options)
        resumed.load_state_dict(state | {"epoch": 1, "row": row})
        np.testing.assert_array_equal(epoch_of(resumed), epochs[1][row:])
        np.testing.assert_array_equal(epoch_of(resumed), epochs[2])


@pytest.mark.usefixtures("small_chunks")
def test_a_state_taken_between_batches_goes_on_with_the_next_one() -> None:
    cache = numbered_cache(make_plan())
    whole, interrupted = shuffled(cache, 7, buffer_bytes=2 * 30 * ROW_BYTES), None
    expected = np.concatenate([epoch_of(whole), epoch_of(whole)])
    seen: list[float] = []
    while len(seen) < len(expected):
        rows = shuffled(cache, 7, buffer_bytes=2 * 30 * ROW_BYTES)
        if interrupted:
            rows.load_state_dict(json.loads(interrupted))
        for batch, _ in zip(rows, range(3), strict=False):
            seen += batch[:, 0].tolist()
            interrupted = json.dumps(rows.state_dict())
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.usefixtures("small_chunks")
def test_resuming_reads_only_the_groups_that_are_left() -> None:
    storage = WatchedStorage()
    rows = shuffled(
        numbered_cache(make_plan(), storage), buffer_bytes=0
    )  # each chunk is a group: 30 of 4 rows
    rows.load_state_dict(rows.state_dict() | {"row": 101})
    list(rows)
    assert storage.chunks_read.total() == 5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seed", {"seed": 1}),
        ("buffer_bytes", {"buffer_bytes": 77}),
        ("selection", {"clips": [0, 1]}),
        ("selection", {"steps": [0, 7]}),
        ("selection", {"passes": ["null"]}),
    ],
)
def test_the_state_of_another_order_is_refused(name: str, options: dict[str, Any]) -> None:
    cache = numbered_cache(make_plan())
    with pytest.raises(UserError, match=f"another order: its {name} is"):
        shuffled(cache).load_state_dict(shuffled(cache, **options).state_dict())


def test_the_state_of_another_store_is_refused() -> None:
    here, there = (numbered_cache(make_plan(identity={"model": name})) for name in "ab")
    with pytest.raises(UserError, match="another order: its selection is"):
        shuffled(here).load_state_dict(shuffled(there).state_dict())


def test_uniform_where_all_rows_fit_at_once() -> None:
    cache = numbered_cache(make_plan(n_clips=30, tokens=20, clips_per_shard=1))
    rows = shuffled(cache, 64)
    for _ in range(3):
        order = epoch_of(rows)
        n = len(order)
        assert abs(spearmanr(order, np.arange(n)).statistic) < 4 / np.sqrt(n)
        # Neighbours on disk come one after the other as rarely as in any random order: 2 times on average.
        assert (np.abs(np.diff(order)) == 1).sum() < 12


@pytest.mark.usefixtures("small_chunks")
def test_no_correlation_with_the_disk_where_few_chunks_fit() -> None:
    cache = numbered_cache(make_plan(n_clips=50, clips_per_shard=10))
    rows = shuffled(cache, 32, buffer_bytes=2 * 60 * ROW_BYTES)  # 300 chunks of 4 rows; 15 fit a group
    correlations = []
    for _ in range(6):
        order = epoch_of(rows)
        correlations.append(spearmanr(order, np.arange(len(order))).statistic)
        assert len(set(order[:32] // 4)) >= 10  # the first batch mixes the group's chunks
    # The order of 300 chunks is random, so a correlation has a standard deviation of 1 / sqrt(299) at most.
    assert np.abs(correlations).max() < 4 / np.sqrt(299)
    assert abs(np.mean(correlations)) < 4 / np.sqrt(6 * 299)


@pytest.mark.usefixtures("small_chunks")
def test_each_chunk_is_read_once_an_epoch_and_those_of_a_group_in_the_order_of_the_files() -> None:
    storage = WatchedStorage()
    cache = numbered_cache(make_plan(), storage)
    rows = shuffled(cache, 5, buffer_bytes=2 * 30 * ROW_BYTES, workers=1)  # 30 chunks in 5 groups
    list(rows)
    chunks = list(storage.chunks_read)
    assert len(chunks) == 30
    assert set(storage.chunks_read.values()) == {1}
    assert 1 <= sum(first > second for first, second in pairwise(chunks)) <= 4
    list(rows)
    assert set(storage.chunks_read.values()) == {2}


@pytest.mark.usefixtures("small_chunks")
def test_only_the_chunks_asked_for_are_read() -> None:
    storage = WatchedStorage()
    list(shuffled(numbered_cache(make_plan(), storage), clips=[1, 4], steps=[21]))
    assert storage.chunks_read.total() == 2 * 1 * 2


@pytest.mark.usefixtures("small_chunks")
def test_what_fits_one_group_is_read_in_the_first_epoch_only() -> None:
    storage = WatchedStorage()
    rows = shuffled(numbered_cache(make_plan(), storage), buffer_bytes=2 * 120 * ROW_BYTES)
    for _ in range(3):
        list(rows)
    assert set(storage.chunks_read.values()) == {1}


@pytest.mark.usefixtures("small_chunks")
def test_two_groups_are_in_memory_and_no_more() -> None:
    storage = WatchedStorage()
    cache = numbered_cache(make_plan(n_clips=20), storage)
    rows = shuffled(cache, 4, buffer_bytes=2 * 27 * ROW_BYTES)  # half holds 6 chunks of 4 rows
    ahead = []
    for given_out, _ in enumerate(rows):  # a batch has as many rows as a chunk
        if given_out == 0:
            assert storage.wait_for_chunks(7)  # the second group is read while the first is given out
        ahead.append(storage.chunks_read.total() - given_out)
    assert max(ahead) <= 2 * 6


@pytest.mark.usefixtures("small_chunks")
def test_an_abandoned_iteration_stops_reading() -> None:
    storage = WatchedStorage()
    cache = numbered_cache(make_plan(n_clips=20), storage)
    rows = shuffled(cache, 4, buffer_bytes=2 * 240 * ROW_BYTES)  # 120 chunks in 3 groups of 40
    batches = iter(rows)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not living_threads()
    assert storage.chunks_read.total() <= 80  # the third group was not begun
    for _ in rows:
        break
    assert not living_threads()
    assert rows.state_dict()["row"] == 8


@pytest.mark.usefixtures("small_chunks")
def test_no_thread_outlives_an_error_that_is_still_looked_at() -> None:
    batches = iter(shuffled(numbered_cache(make_plan()), buffer_bytes=0))
    next(batches)
    with pytest.raises(KeyboardInterrupt) as kept:
        batches.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert kept.tb
    assert not living_threads()


@pytest.mark.parametrize("buffer_bytes", [0, 2**20])
@pytest.mark.usefixtures("small_chunks")
def test_damage_reaches_the_caller(buffer_bytes: int) -> None:
    storage = memory_storage()
    cache = numbered_cache(make_plan(), storage)
    name = shard_file_name("x", 1)
    content = bytearray(storage.read(name))
    content[100] ^= 1
    storage.put(name, [bytes(content)])
    with pytest.raises(CacheError, match=r"x/c\.1\.0\.0\.0\.0 \(clips 2 to 3\) is damaged"):
        list(shuffled(cache, buffer_bytes=buffer_bytes))
    assert not living_threads()


def test_a_partial_cache_gives_what_is_there() -> None:
    plan = make_plan()
    cache = numbered_cache(plan, shards=[2])
    numbers = row_numbers_on_disk(plan)
    np.testing.assert_array_equal(np.sort(epoch_of(shuffled(cache))), numbers[4].ravel())
    with pytest.raises(CacheError, match=r"Shard 0 of .* is not written yet"):
        list(shuffled(cache, clips=[0, 1]))


def test_rows_of_a_folder(tmp_path: Path) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, pd.DataFrame({"clip": range(5)})) as writer:
        for shard, (first, last) in enumerate(plan.shards):
            writer.write_shard(shard, {"x": np.ones((last - first + 1, *plan.shape("x")[1:]), np.float32)})
    (batch,) = ActivationCache(tmp_path / "a").shuffled_rows("x", 1000, seed=0)
    assert torch.equal(batch, torch.ones(120, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_on_a_gpu_are_those_of_the_cpu() -> None:
    cache = numbered_cache(make_plan())
    on_gpu = list(shuffled(cache, 7, device="cuda"))
    assert {batch.device.type for batch in on_gpu} == {"cuda"}
    assert torch.equal(torch.cat(on_gpu).cpu(), torch.cat(list(shuffled(cache, 7))))


def test_nonsense_is_refused_at_once() -> None:
    cache = numbered_cache(make_plan())
    with pytest.raises(UserError, match="batch_size must be at least 1; got 0"):
        cache.shuffled_rows("x", 0, 0)
    with pytest.raises(UserError, match="seed must not be negative; got -1"):
        cache.shuffled_rows("x", 1, -1)
    with pytest.raises(UserError, match="no site 'y'"):
        cache.shuffled_rows("y", 1, 0)
    with pytest.raises(UserError, match="no clip 5"):
        cache.shuffled_rows("x", 1, 0, clips=[5])
    with pytest.raises(UserError, match="no step 3"):
        cache.shuffled_rows("x", 1, 0, steps=[3])
    with pytest.raises(UserError, match="No rows of x in memory://cache are selected"):
        cache.shuffled_rows("x", 1, 0, clips=[])
    with pytest.raises(UserError, match="No rows of x in memory://cache are selected"):
        cache.shuffled_rows("x", 1, 0, steps=[])
