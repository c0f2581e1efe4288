"""Interrupted captures: a killed writer loses at most the shard in flight, and the finished cache is the same."""

import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import ActivationCache, CacheError, CachePlan, CacheWriter
from cache.object_storage import ObjectStorage, memory_storage
from cache.storage import Location
from tests.cache.faults import Interrupted, Killed, Meddled, Moment, expire_claims, survey, write_missing
from tests.cache.helpers import contents, make_clips, make_plan, shard_values, tree, write_cache
from tests.cache.killed_writer import Victim, victims

SMALL = make_plan(n_clips=3)
SMALLER = make_plan(n_clips=2, clips_per_shard=1, sites={"tf1.mlp": 5})
# Shards of some MiB, so that a kill meets a write under way.
LARGER = make_plan(n_clips=8, sites={"tf0.cross_attn": 128, "tf1.mlp": 256}, tokens=256)


@pytest.fixture(scope="module")
def whole_larger(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    return tree(write_cache(tmp_path_factory.mktemp("larger") / "a", LARGER))


def interrupt(
    storage: ObjectStorage, plan: CachePlan, at: int, moment: Moment
) -> tuple[list[int], list[str]]:
    """Kill a writer at one operation; the shards that it was told are written, and its operations."""
    interrupted = Interrupted(storage, at, moment)
    acknowledged: list[int] = []
    try:
        write_missing(interrupted, plan, acknowledged.append)
    except Killed:
        interrupted.bury()
        expire_claims(storage)
    return acknowledged, interrupted.log


def check_kills(new_store: Callable[[], ObjectStorage], plan: CachePlan, moment: Moment) -> None:
    """Kill writers at every operation in turn, and resume each."""
    uninterrupted = new_store()
    _, operations = interrupt(uninterrupted, plan, 0, moment)
    whole = contents(uninterrupted)
    for at, operation in enumerate(operations, start=1):
        if moment == "halfway" and not operation.startswith("put"):
            continue
        storage = new_store()
        acknowledged, _ = interrupt(storage, plan, at, moment)
        found = survey(storage, plan)
        assert found.faults(acknowledged) == [], operation
        CacheWriter(storage, plan, make_clips(plan)).close()
        files = {f"{site}/c.{shard}.0.0.0.0" for site in plan.sites for shard in found.committed}
        assert {name for name in storage.sizes() if "/c." in name} == files, operation
        write_cache(storage, plan)
        assert contents(storage) == whole, operation
        assert storage._claims() == []


@pytest.mark.parametrize("moment", ["before", "halfway", "after"])
def test_killed_at_any_operation_in_memory(moment: Moment) -> None:
    check_kills(memory_storage, SMALL, moment)


@pytest.mark.parametrize("moment", ["halfway", "after"])
def test_killed_at_any_operation_on_a_server(
    object_server: Callable[[], ObjectStorage], moment: Moment
) -> None:
    check_kills(object_server, SMALLER, moment)


def test_killed_at_any_call_that_touches_the_disk(tmp_path: Path) -> None:
    whole = tree(write_cache(tmp_path / "whole", SMALL))
    for call in range(1, 1000):
        folder = tmp_path / str(call)
        victim = Victim(folder, SMALL, kill_at=call)
        victim.end()
        if victim.exit_code == 0:
            break
        assert victim.exit_code == -signal.SIGKILL
        assert survey(folder, SMALL).faults(victim.acknowledged) == [], call
        assert tree(write_cache(folder, SMALL)) == whole, call
    # Twelve names are stored; each is at least opened, written, synced and moved, and its folder synced.
    assert 12 * 5 < call < 999


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_killed_at_random_moments(tmp_path: Path, whole_larger: dict, is_pipelined: bool) -> None:
    moments = random.Random(is_pipelined)
    for number in range(4):
        folder = tmp_path / str(number)
        victim = Victim(folder, LARGER, is_pipelined=is_pipelined)
        with victims(victim):
            for _ in range(moments.randrange(1, LARGER.n_shards)):
                victim.wait_for_a_shard()
            victim.kill_after(moments.uniform(0, 0.01))
        assert survey(folder, LARGER).faults(victim.acknowledged) == []
        assert tree(write_cache(folder, LARGER)) == whole_larger


def test_writers_of_disjoint_shards_killed_at_random_moments(tmp_path: Path, whole_larger: dict) -> None:
    moments = random.Random(0)
    for number in range(4):
        folder = tmp_path / str(number)
        acknowledged: set[int] = set()
        for _ in range(2):
            pair = Victim(folder, LARGER, (0, 1)), Victim(folder, LARGER, (2, 3))
            with victims(*pair):
                for victim in pair:
                    victim.wait_until_ready()
                for victim in pair:
                    victim.kill_after(moments.uniform(0, 0.03))
            assert {victim.error for victim in pair} == {None}
            acknowledged.update(*(victim.acknowledged for victim in pair))
            assert survey(folder, LARGER).faults(acknowledged, in_flight=4) == []
        assert tree(write_cache(folder, LARGER)) == whole_larger


def test_the_other_writer_goes_on_when_one_is_killed(tmp_path: Path, whole_larger: dict) -> None:
    killed, other = (
        Victim(tmp_path / "a", LARGER, (0, 1), stop_after=1),
        Victim(tmp_path / "a", LARGER, (2, 3)),
    )
    with victims(killed, other):
        killed.wait_for_a_shard()
        killed.kill_after(0)
        other.end()
    assert (other.exit_code, other.error, other.acknowledged) == (0, None, [2, 3])
    write_cache(tmp_path / "a", LARGER, shards=(0, 1))
    assert tree(tmp_path / "a") == whole_larger


def test_writers_that_begin_and_end_together_make_the_same_cache(tmp_path: Path, whole_larger: dict) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        writers = [Victim(folder, LARGER, (shard, shard)) for shard in range(LARGER.n_shards)]
        with victims(*writers):
            for writer in writers:
                writer.end()
        assert [writer.error for writer in writers] == [None] * len(writers)
        assert [writer.exit_code for writer in writers] == [0] * len(writers)
        assert tree(folder) == whole_larger


@pytest.mark.parametrize("shards", [(0, 2), (1, 1), (2, 2)])
def test_a_second_process_is_refused_while_the_first_writes(tmp_path: Path, shards: tuple[int, int]) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, make_clips(plan), (1, 2)) as writer:
        refused, admitted = Victim(tmp_path / "a", plan, shards), Victim(tmp_path / "a", plan, (0, 0))
        with victims(refused, admitted):
            refused.end()
            admitted.end()
        writer.write_shard(1, shard_values(plan, 1))
    assert "one writer at a time" in str(refused.error)
    assert (admitted.error, admitted.acknowledged) == (None, [0])
    assert CacheWriter(tmp_path / "a", plan, make_clips(plan)).missing() == [2]


@pytest.fixture(params=["folder", "memory", "server"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A place for a cache, of each kind."""
    if request.param == "folder":
        return tmp_path / "a"
    if request.param == "memory":
        return memory_storage()
    return request.getfixturevalue("object_server")()


def test_a_second_writer_in_the_same_process_is_refused(location: Location) -> None:
    plan = make_plan()
    first = CacheWriter(location, plan, make_clips(plan), (0, 1))
    with pytest.raises(CacheError, match="one writer at a time"):
        CacheWriter(location, plan, make_clips(plan), (1, 2))
    with CacheWriter(location, plan, make_clips(plan), (2, 2)):
        first.close()
        with CacheWriter(location, plan, make_clips(plan), (0, 1)) as again:
            assert again.missing() == [0, 1]


def test_the_claim_of_a_killed_writer_holds_until_it_ends(
    object_server: Callable[[], ObjectStorage],
) -> None:
    storage = object_server()
    victim = Victim(storage, LARGER, stop_after=1)
    with victims(victim):
        victim.wait_for_a_shard()
        victim.kill_after(0)
    with pytest.raises(CacheError, match=r"if it was killed, its claim ends in \d+ s"):
        write_cache(storage, LARGER)
    expire_claims(storage)
    assert survey(storage, LARGER).faults(victim.acknowledged) == []
    whole = contents(write_cache(memory_storage(), LARGER))
    assert contents(write_cache(storage, LARGER)) == whole


def test_a_writer_whose_claim_was_taken_commits_nothing(object_server: Callable[[], ObjectStorage]) -> None:
    storage, plan = object_server(), make_plan()
    late = CacheWriter(storage, plan, make_clips(plan))
    late.write_shard(0, shard_values(plan, 0))
    expire_claims(storage)
    with CacheWriter(storage, plan, make_clips(plan)) as other:
        with pytest.raises(CacheError, match="was lost to another writer"):
            late.write_shard(1, shard_values(plan, 1))
        assert list(ActivationCache(storage, allow_partial=True).manifest.entries) == [0]
        for shard in other.missing():
            other.write_shard(shard, shard_values(plan, shard))
    late.close()
    assert contents(storage) == contents(write_cache(object_server(), plan))


@given(order=st.permutations([0, 1, 2]), stop=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_order_and_interruption_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], stop: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    plan = make_plan()
    whole = tree(write_cache(folder / "whole", plan))
    if stop:
        write_cache(folder / "cache", plan, order[:stop])
    write_cache(folder / "cache", plan, order[stop:])
    assert tree(folder / "cache") == whole


def test_a_manifest_cut_anywhere_loses_its_last_shards_only(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "a", plan))
    manifest = tmp_path / "a" / "manifest.jsonl"
    content = manifest.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for length in range(0, len(content), 7):
        manifest.write_bytes(content[:length])
        there = ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries
        assert list(there) == list(range(sum(end <= length for end in ends)))
    for length in (0, ends[0] - 1, ends[1] + 10, len(content) - 1):
        manifest.write_bytes(content[:length])
        assert tree(write_cache(tmp_path / "a", plan)) == whole


def test_an_entry_cut_anywhere_is_no_entry(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "whole", plan))
    write_cache(tmp_path / "a", plan, shards=(0, 1))
    entry = tmp_path / "a" / "manifest" / "1.json"
    content = entry.read_bytes()
    for length in range(0, len(content) - 1, 13):
        entry.write_bytes(content[:length])
        assert list(ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries) == [0]
    assert tree(write_cache(tmp_path / "a", plan)) == whole


def test_a_reader_finds_every_shard_while_the_manifest_is_settled() -> None:
    def unsettled() -> ObjectStorage:
        storage = memory_storage()
        interrupt(storage, SMALL, settling, "before")
        return storage

    _, operations = interrupt(memory_storage(), SMALL, 0, "before")
    settling = operations.index("put manifest.jsonl") + 1
    counted = Interrupted(unsettled())
    ActivationCache(counted)
    for at in range(1, len(counted.log) + 1):
        storage = unsettled()
        ActivationCache(Meddled(storage, at, partial(write_cache, storage, SMALL)))


def test_a_lost_or_cut_shard_file_is_written_anew(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "a", plan))
    (tmp_path / "a" / "tf1.mlp" / "c.1.0.0.0.0").unlink()
    with (tmp_path / "a" / "tf0.cross_attn" / "c.0.0.0.0.0").open("r+b") as file:
        file.truncate(10)
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        assert writer.missing() == [0, 1]
    assert tree(write_cache(tmp_path / "a", plan)) == whole


def test_staged_leftovers_are_removed_though_nothing_is_missing(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "a", plan))
    (tmp_path / "a" / ".staging").mkdir()
    (tmp_path / "a" / ".staging" / "tf1.mlp").write_bytes(b"half a shard")
    (tmp_path / "a" / ".writers").mkdir()
    (tmp_path / "a" / ".writers" / "0-2").touch()
    assert tree(write_cache(tmp_path / "a", plan)) == whole
