"""A cache that gets more clips: equal to one written at once, whatever happens on the way, and never another one."""

import numpy as np
import pandas as pd
import pytest

from cache import ActivationCache, CachePlan, CacheWriter
from cache.errors import UserError
from cache.growth import can_shrink, shrink
from cache.object_storage import ObjectStorage, memory_storage
from cache.storage import Location
from tests.cache.faults import Interrupted, Killed, expire_claims
from tests.cache.helpers import contents, make_clips, make_plan, make_values

WHOLE = make_plan(n_clips=7)


def smaller(n_clips: int) -> CachePlan:
    return WHOLE.model_copy(update={"n_clips": n_clips})


def write(location: Location, plan: CachePlan) -> list[int]:
    """Write what is missing, with the values of the whole; gives the shards that were missing."""
    with CacheWriter(location, plan, make_clips(plan)) as writer:
        missing = writer.missing()
        for shard in missing:
            first, last = plan.shard_clips(shard)
            values = {site: make_values(WHOLE, site)[first : last + 1] for site in plan.sites}
            writer.write_shard(shard, values)
    return missing


def written(plan: CachePlan) -> ObjectStorage:
    storage = memory_storage()
    write(storage, plan)
    return storage


@pytest.mark.parametrize(
    ("n_clips", "missing"), [(1, [0, 1, 2, 3]), (2, [1, 2, 3]), (3, [1, 2, 3]), (6, [3])]
)
def test_a_grown_cache_is_the_one_written_at_once(n_clips: int, missing: list[int]) -> None:
    storage = written(smaller(n_clips))
    assert write(storage, WHOLE) == missing, "full shards stay"
    assert contents(storage) == contents(written(WHOLE))


def test_it_may_grow_more_than_once() -> None:
    storage = written(smaller(3))
    write(storage, smaller(5))
    write(storage, WHOLE)
    assert contents(storage) == contents(written(WHOLE))


def test_killed_at_any_operation_while_it_grows() -> None:
    whole = contents(written(WHOLE))
    for at in range(1, 1000):
        storage = written(smaller(3))
        interrupted = Interrupted(storage, at, "after")
        try:
            write(interrupted, WHOLE)
        except Killed:
            interrupted.bury()
            expire_claims(storage)
        else:
            break
        cache = ActivationCache(storage, allow_partial=True)
        for site in WHOLE.sites:
            there = [clip for clip in range(cache.plan.n_clips) if clip // 2 in cache.manifest.entries]
            read = cache.read(site, clips=there)
            expected = make_values(WHOLE, site)[there].astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(read, expected)
        write(storage, WHOLE)
        assert contents(storage) == whole, at
    assert at > 20


def test_another_start_of_the_clip_table_is_refused() -> None:
    storage = written(smaller(3))
    before = contents(storage)
    clips = make_clips(WHOLE).assign(prompt="another")
    with pytest.raises(UserError, match="n_clips"):
        CacheWriter(storage, WHOLE, clips)
    assert contents(storage) == before


@pytest.mark.parametrize(
    "changes", [{"n_clips": 2}, {"tokens": 3, "n_clips": 9}, {"clips_per_shard": 3, "n_clips": 9}]
)
def test_fewer_clips_or_another_plan_are_refused(changes: dict[str, int]) -> None:
    storage = written(smaller(3))
    before = contents(storage)
    plan = make_plan(**changes)
    with pytest.raises(UserError, match=min(changes)):
        CacheWriter(storage, plan, make_clips(plan))
    assert contents(storage) == before


def test_a_writer_of_some_shards_does_not_extend() -> None:
    storage = written(smaller(3))
    with pytest.raises(UserError, match="one writer of all shards"):
        CacheWriter(storage, WHOLE, make_clips(WHOLE), (2, 3))


def test_it_does_not_grow_below_another_writer() -> None:
    storage = memory_storage()
    plan = smaller(3)
    with CacheWriter(storage, plan, make_clips(plan)), pytest.raises(UserError, match="another writer"):
        CacheWriter(storage, WHOLE, make_clips(WHOLE))


def test_extra_columns_make_another_table() -> None:
    storage = written(smaller(3))
    clips = pd.concat([make_clips(WHOLE), pd.Series(range(7), name="extra")], axis=1)
    with pytest.raises(UserError, match="n_clips"):
        CacheWriter(storage, WHOLE, clips)


def half_grown() -> ObjectStorage:
    """A cache of 3 clips on the way to 7."""
    storage = written(smaller(3))
    with CacheWriter(storage, WHOLE, make_clips(WHOLE)) as writer:
        for shard in (1, 2):  # one that the smaller cache has with fewer clips, and one that it has not
            first, last = WHOLE.shard_clips(shard)
            values = {site: make_values(WHOLE, site)[first : last + 1] for site in WHOLE.sites}
            writer.write_shard(shard, values)
    return storage


def test_killed_at_any_operation_while_it_goes_back() -> None:
    plan, expected = smaller(3), contents(written(smaller(3)))
    for at in range(1, 1000):
        storage = half_grown()
        try:
            shrink(Interrupted(storage, at, "after"), plan, make_clips(plan), lambda: None)
        except Killed:
            expire_claims(storage)
            if can_shrink(storage, plan):
                shrink(storage, plan, make_clips(plan), lambda: None)
            write(storage, plan)
            assert contents(storage) == expected
        else:
            assert write(storage, plan) == [1], "the shard that had room for more"
            assert contents(storage) == expected
            assert at > 5
            return
    raise AssertionError("it never ended")


def test_only_an_unfinished_cache_of_the_same_plan_goes_back() -> None:
    assert not can_shrink(memory_storage(), smaller(3))
    assert not can_shrink(written(WHOLE), smaller(3)), "it is whole"
    assert can_shrink(half_grown(), smaller(3))
    other = smaller(3).model_copy(update={"identity": {"seed": 9}})
    assert not can_shrink(half_grown(), other)
    assert not can_shrink(half_grown(), WHOLE)
