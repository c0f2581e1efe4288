"""The pipeline: the same bytes as `write_shard`, memory for two shards, and errors that arrive."""

import errno
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from obstore.store import MemoryStore

import cache.pipeline
from cache import ActivationCache, CachePlan, CacheWriter, UserError
from cache.object_storage import ObjectStorage, memory_storage
from cache.pipeline import SLOTS, ShardPipeline
from cache.tokens import reduce_tokens
from tests.cache.helpers import contents, make_clips, make_plan, make_values, shard_values

LONG_SECONDS = 60  # until a test that hangs fails


def fill(pipeline: ShardPipeline, plan: CachePlan, shard: int, dtype: torch.dtype = torch.float32) -> None:
    """Give a shard of `make_values` to a pipeline, the last step and site first."""
    pipeline.begin(shard)
    for site, values in reversed(shard_values(plan, shard).items()):
        for position, step in reversed(list(enumerate(plan.steps))):
            pipeline.add(site, step, torch.from_numpy(values[:, position]).to(dtype))
    pipeline.end()


def threads() -> set[threading.Thread]:
    """The cache's threads that live now."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("cache-")}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threads()  # such as the lease of a writer that another test has killed
    yield
    assert threads() <= before


# The same bytes


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("given_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_pipeline_writes_what_write_shard_writes(stored: str, given_dtype: torch.dtype) -> None:
    plan = make_plan(dtypes={"tf0.cross_attn": stored, "tf1.mlp": "float16"})
    direct, piped = memory_storage(), memory_storage()
    with CacheWriter(direct, plan, make_clips(plan)) as writer:
        for shard in writer.missing():
            arrays = shard_values(plan, shard)
            writer.write_shard(
                shard, {site: torch.from_numpy(values).to(given_dtype) for site, values in arrays.items()}
            )
    with CacheWriter(piped, plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:
        for shard in reversed(writer.missing()):
            fill(pipeline, plan, shard, given_dtype)
    assert contents(piped) == contents(direct)
    site = "tf0.cross_attn"
    expected = torch.from_numpy(make_values(plan, site)).to(given_dtype).to(getattr(torch, stored)).float()
    np.testing.assert_array_equal(ActivationCache(piped).read(site), expected.numpy())


@pytest.mark.parametrize("kind", ["stride", "mean"])
@pytest.mark.parametrize("zstd_level", [0, 3])
def test_reduced_tokens_are_those_of_reduce_tokens(kind: str, zstd_level: int) -> None:
    plan = make_plan(token_reduction={"kind": kind, "size": 3}, zstd_level=zstd_level)
    rng = np.random.default_rng(0)
    whole = {
        site: torch.from_numpy(rng.standard_normal((5, 3, 2, 11, channels), dtype=np.float32))
        for site, channels in plan.sites.items()
    }
    direct, piped = memory_storage(), memory_storage()
    with CacheWriter(direct, plan, make_clips(plan)) as writer:
        for shard in writer.missing():
            first, last = plan.shard_clips(shard)
            writer.write_shard(
                shard,
                {
                    site: reduce_tokens(values[first : last + 1], plan.token_reduction)
                    for site, values in whole.items()
                },
            )
    with CacheWriter(piped, plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:
        for shard in writer.missing():
            first, last = plan.shard_clips(shard)
            pipeline.begin(shard)
            for site, values in whole.items():
                for position, step in enumerate(plan.steps):
                    pipeline.add(site, step, values[first : last + 1, position])
            pipeline.end()
    assert contents(piped) == contents(direct)


def test_values_may_change_as_soon_as_they_were_added() -> None:
    """The model reuses its memory."""
    plan = make_plan(n_clips=2, steps=(0,), sigmas=(1.0,))
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:
        pipeline.begin(0)
        for site, values in shard_values(plan, 0).items():
            tensor = torch.from_numpy(values[:, 0].copy())
            pipeline.add(site, 0, tensor)
            tensor.fill_(7)
        pipeline.end()
    for site in plan.sites:
        expected = make_values(plan, site).astype(np.float16)
        np.testing.assert_array_equal(ActivationCache(storage).read(site), expected)


# Waiting


class GatedStorage(ObjectStorage):
    """Lets shard files through when its gate is opened."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory://gated")
        self.gate = threading.Event()
        self.is_waiting = threading.Event()

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        if "/c." in name:
            self.is_waiting.set()
            assert self.gate.wait(LONG_SECONDS)
        super().put(name, pieces, new)


def test_the_model_waits_while_all_slots_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class CountedSlot(cache.pipeline._Slot):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(cache.pipeline, "_Slot", CountedSlot)
    plan = make_plan(n_clips=12)
    storage = GatedStorage()
    begun = threading.Event()
    with CacheWriter(storage, plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:

        def model() -> None:
            pipeline.begin(SLOTS)
            begun.set()

        for shard in range(SLOTS):
            fill(pipeline, plan, shard)
        waiting = threading.Thread(target=model)
        waiting.start()
        assert storage.is_waiting.wait(LONG_SECONDS)
        waiting.join(0.1)
        assert waiting.is_alive()
        assert not begun.is_set()
        assert not storage.sizes("manifest/")

        storage.gate.set()
        waiting.join(LONG_SECONDS)
        assert begun.is_set()
        assert "manifest/0.json" in storage.sizes()
        for shard in range(SLOTS, plan.n_shards):
            fill(pipeline, plan, shard)
    assert len(made) == SLOTS == 2
    assert ActivationCache(storage).read("tf1.mlp").shape[0] == 12


def test_leaving_waits_until_all_is_committed() -> None:
    plan = make_plan()
    storage = GatedStorage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        with ShardPipeline(writer) as pipeline:
            fill(pipeline, plan, 0)
            fill(pipeline, plan, 1)
            threading.Timer(0, storage.gate.set).start()
        assert writer.missing() == [2]


# Errors


class FullStorage(ObjectStorage):
    """Has room for the files of shard 0 only."""

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        if "/c." in name and "/c.0." not in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put(name, pieces, new)


def test_a_full_disk_stops_the_model_and_keeps_what_is_committed() -> None:
    plan = make_plan(n_clips=20)
    storage = FullStorage(MemoryStore(), "memory://full")
    full = r"The disk of memory://full is full.* resumes with shard 1\.$"
    with CacheWriter(storage, plan, make_clips(plan)) as writer, pytest.raises(UserError, match=full):
        with ShardPipeline(writer) as pipeline:
            for shard in writer.missing():
                fill(pipeline, plan, shard)
        pytest.fail("the model went on")
    assert list(ActivationCache(storage, allow_partial=True).manifest.entries) == [0]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7e4, "Cannot store site tf1.mlp of shard 1: .* exceeds the largest of float16"),
        (np.nan, "Cannot store site tf1.mlp of shard 1: the values must be finite, but contain NaN"),
        (-np.inf, "Cannot store site tf1.mlp of shard 1: the values must be finite, but contain infinity"),
    ],
)
def test_values_that_cannot_be_stored_are_named_at_the_end(value: float, sentence: str) -> None:
    plan = make_plan(n_clips=4)
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        with pytest.raises(UserError, match=sentence), ShardPipeline(writer) as pipeline:
            fill(pipeline, plan, 0)
            pipeline.begin(1)
            for site, values in shard_values(plan, 1).items():
                for position, step in enumerate(plan.steps):
                    given = torch.from_numpy(values[:, position])
                    if (site, step) == ("tf1.mlp", 7):
                        given[1, 0, 2, 3] = value
                    pipeline.add(site, step, given)
            pipeline.end()
        assert writer.missing() == [1]


def test_an_error_of_the_model_is_not_replaced_by_one_of_writing() -> None:
    plan = make_plan(n_clips=20)
    storage = FullStorage(MemoryStore(), "memory://full")
    with (
        CacheWriter(storage, plan, make_clips(plan)) as writer,
        pytest.raises(ZeroDivisionError),
        ShardPipeline(writer) as pipeline,
    ):
        fill(pipeline, plan, 1)
        raise ZeroDivisionError


def test_what_is_not_planned_or_not_given() -> None:
    plan = make_plan()
    storage = memory_storage()
    values = torch.zeros(2, 2, 4, 5)
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        with ShardPipeline(writer) as pipeline:
            pipeline.begin(0)
            with pytest.raises(UserError, match=r"tf9.mlp at step 0 is not in the cache's plan"):
                pipeline.add("tf9.mlp", 0, values)
            with pytest.raises(UserError, match=r"tf1.mlp at step 1 is not in the cache's plan"):
                pipeline.add("tf1.mlp", 1, values)
            for wrong in (torch.zeros(1, 2, 4, 5), torch.zeros(2, 2, 3, 5), torch.zeros(2, 2, 4, 3)):
                with pytest.raises(
                    UserError, match=r"tf1.mlp at step 7 must have the planned shape .* = \(2, 2, 4, 5\)"
                ):
                    pipeline.add("tf1.mlp", 7, wrong)
            for site, arrays in shard_values(plan, 0).items():
                for position, step in enumerate(plan.steps):
                    if (site, step) != ("tf1.mlp", 21):
                        pipeline.add(site, step, torch.from_numpy(arrays[:, position]))
            with pytest.raises(UserError, match=r"Shard 0 lacks the values of tf1.mlp at step 21"):
                pipeline.end()
        assert writer.missing() == [0, 1, 2]


def test_a_reused_slot_forgets_what_it_was_given() -> None:
    plan = make_plan(n_clips=8)
    with CacheWriter(memory_storage(), plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:
        for shard in range(SLOTS):
            fill(pipeline, plan, shard)
        pipeline.begin(SLOTS)
        with pytest.raises(UserError, match=f"Shard {SLOTS} lacks the values of tf0.cross_attn at step 0"):
            pipeline.end()


def test_a_shard_that_is_written_already() -> None:
    plan = make_plan()
    with CacheWriter(memory_storage(), plan, make_clips(plan)) as writer:
        writer.write_shard(0, shard_values(plan, 0))
        with (
            pytest.raises(UserError, match=r"Shard 0 .* is already written"),
            ShardPipeline(writer) as pipeline,
        ):
            fill(pipeline, plan, 0)
