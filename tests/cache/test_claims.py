"""One writer per shard: in one process, in several, and in an object store."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from cache import ActivationCache, CacheError, CacheWriter, UserError
from cache.object_storage import ObjectStorage, memory_storage
from cache.storage import Storage
from tests.cache.helpers import contents, make_clips, make_plan, shard_values, tree, write_cache

PLAN = make_plan(n_clips=16)
REFUSED = r"is being written by another writer \(shards {} to {}\).* one writer at a time"
LONG_SECONDS = 60  # until a test that hangs fails


def writer(location: Path | Storage, *shards: int) -> CacheWriter:
    return CacheWriter(location, PLAN, make_clips(PLAN), (shards[0], shards[-1]) if shards else None)


def write(writer: CacheWriter) -> None:
    for shard in writer.missing():
        writer.write_shard(shard, shard_values(PLAN, shard))


@pytest.fixture(params=["folder", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Storage:
    return tmp_path / "a" if request.param == "folder" else memory_storage()


# In one process


@pytest.mark.parametrize("others", [(2, 4), (4, 4), (3, 3), (0, 7), (4, 7)])
def test_a_second_writer_of_a_shard_is_refused(location: Path | Storage, others: tuple[int, int]) -> None:
    with writer(location, 3, 4) as first:
        with pytest.raises(CacheError, match=REFUSED.format(3, 4)):
            writer(location, *others)
        write(first)
    with writer(location, *others) as second:
        assert second.missing() == [shard for shard in range(others[0], others[1] + 1) if shard not in (3, 4)]


def test_a_refused_writer_changes_nothing(location: Path | Storage) -> None:
    with writer(location, 3, 4) as first:
        first.write_shard(3, shard_values(PLAN, 3))
        before = contents(location)
        for _ in range(2):
            with pytest.raises(CacheError):
                writer(location)
        assert contents(location) == before
        with writer(location, 0, 2):
            pass
        first.write_shard(4, shard_values(PLAN, 4))


def test_writers_of_other_shards_take_turns_and_make_the_same_bytes(
    location: Path | Storage, tmp_path: Path
) -> None:
    whole = contents(write_cache(tmp_path / "whole", PLAN))
    with writer(location, 0, 2) as a, writer(location, 3, 3) as b, writer(location, 4, 7) as c:
        for shard, its_writer in [(4, c), (2, a), (3, b), (0, a), (7, c), (5, c), (1, a)]:
            its_writer.write_shard(shard, shard_values(PLAN, shard))
        assert (a.missing(), b.missing(), c.missing()) == ([], [], [6])
        assert "manifest.jsonl" not in contents(location)
        c.write_shard(6, shard_values(PLAN, 6))
    assert contents(location) == whole


def test_a_closed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    with writer(tmp_path / "a", 0, 3) as a, writer(tmp_path / "a", 4, 7) as b:
        assert set(tree(tmp_path / "a")) >= {".writers/0-3", ".writers/4-7"}
        write(a)
        write(b)
    hidden = {name: content for name, content in tree(tmp_path / "a").items() if name.startswith(".")}
    assert hidden == {".lock": b""}


def test_a_writer_that_cannot_start_gives_its_claim_back(location: Path | Storage) -> None:
    writer(location).close()
    other = make_clips(PLAN).assign(prompt="another")
    with pytest.raises(UserError, match="a different clip table"):
        CacheWriter(location, PLAN, other)
    writer(location).close()


@pytest.mark.parametrize("shards", [(0, 8), (-1, 2), (3, 2)])
def test_shards_that_the_plan_does_not_have(location: Path | Storage, shards: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"from 0 to 7 in this plan; got {shards[0]} to {shards[1]}"):
        writer(location, *shards)


def test_a_writer_writes_its_own_shards_only(location: Path | Storage) -> None:
    with (
        writer(location, 2, 3) as own,
        pytest.raises(UserError, match=r"Shard 4 .* belongs to another writer.*\[2, 3\]"),
    ):
        own.write_shard(4, shard_values(PLAN, 4))


def test_resuming_touches_the_claimed_shards_only(location: Path | Storage) -> None:
    """Shard files without an entry, and entries without files, of others' ranges are theirs to clear up."""
    write_cache(location, PLAN, order=[0, 1, 2])
    with writer(location, 6, 7) as other:
        other.write_shard(7, shard_values(PLAN, 7))
        storage = other.storage
        storage.delete(["tf1.mlp/c.1.0.0.0.0"])
        storage.put("tf1.mlp/c.6.0.0.0.0", [b"half of it"])
        with writer(location, 4, 5) as own:
            assert own.missing() == [4, 5]
            assert sorted(ActivationCache(location, allow_partial=True).manifest.entries) == [0, 1, 2, 7]
            assert storage.size("tf1.mlp/c.6.0.0.0.0") == 10
    with writer(location, 0, 3) as own:
        assert own.missing() == [1, 3]


# In several processes

HOLDER = """
import sys
from pathlib import Path
from tests.cache.test_claims import shard_values, writer, PLAN
holder = writer(Path(sys.argv[1]), 0, 3)
holder.write_shard(0, shard_values(PLAN, 0))
print("held", flush=True)
sys.stdin.read()
"""

# One interpreter that forks the writers, because each new one imports for seconds.
FOUR_WRITERS = """
import multiprocessing, sys
from pathlib import Path
from tests.cache.test_claims import write_range
context = multiprocessing.get_context("fork")
for round in range(int(sys.argv[2])):
    start = context.Barrier(4)
    folder = Path(sys.argv[1], str(round))
    writers = [context.Process(target=write_range, args=(folder, 2 * k, start)) for k in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    if any(process.exitcode for process in writers):
        sys.exit(1)
"""


def write_range(folder: Path, first: int, start: Any) -> None:
    """Write two shards, beginning when all writers are there."""
    start.wait(LONG_SECONDS)
    with writer(folder, first, first + 1) as own:
        write(own)


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_another_process_holds_its_shards_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with python(HOLDER, str(folder)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CacheError, match=REFUSED.format(0, 3)):
            writer(folder)
        with writer(folder, 4, 7) as others:
            write(others)
        holder.kill()
        holder.wait()
    assert (folder / ".writers" / "0-3").exists()
    with writer(folder) as heir:
        assert heir.missing() == [1, 2, 3]
        write(heir)
    assert contents(folder) == contents(write_cache(tmp_path / "whole", PLAN))


def test_four_processes_create_and_write_one_cache_at_once(tmp_path: Path) -> None:
    rounds = 10
    with python(FOUR_WRITERS, str(tmp_path), str(rounds)) as run:
        _, errors = run.communicate(timeout=10 * LONG_SECONDS)
    assert (run.returncode, errors) == (0, "")
    whole = tree(write_cache(tmp_path / "whole", PLAN))
    for number in range(rounds):
        assert tree(tmp_path / str(number)) == whole


def test_writers_may_finish_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settles the manifest, and removes the entries' folder, as soon as B's last entry has its name."""
    with writer(tmp_path / "a", 0, 3) as a, writer(tmp_path / "a", 4, 7) as b:
        write(a)
        for shard in (4, 5, 6):
            b.write_shard(shard, shard_values(PLAN, shard))
        settled = threading.Thread(target=a._settle)
        replace = os.replace
        entry = tmp_path / "a" / "manifest" / "7.json"

        def replace_and_let_a_settle(*names: Any, **folders: Any) -> None:
            replace(*names, **folders)
            if entry.exists():
                monkeypatch.undo()
                settled.start()
                settled.join(0.2)  # no longer: it may have to wait for this very writer

        monkeypatch.setattr(os, "replace", replace_and_let_a_settle)
        b.write_shard(7, shard_values(PLAN, 7))
        settled.join(LONG_SECONDS)
        assert not entry.exists()
    assert contents(tmp_path / "a") == contents(write_cache(tmp_path / "whole", PLAN))


# Leases in object stores


def claims(storage: ObjectStorage) -> list[str]:
    return [meta["path"] for batch in storage.store.list(".writers") for meta in batch]


def put_claim(storage: ObjectStorage, name: str, expires_in: float) -> None:
    content = json.dumps({"expires": time.time() + expires_in}).encode()
    storage.put(f".writers/{name}", [content])


def test_the_claim_of_a_killed_process_holds_until_it_expires() -> None:
    storage = memory_storage()
    put_claim(storage, "2-3-0123abcd", 600)
    with pytest.raises(
        CacheError, match=r"\(shards 2 to 3\).*if it was killed, its claim ends in (600|599) s"
    ):
        writer(storage)
    assert claims(storage) == [".writers/2-3-0123abcd"]
    writer(storage, 4, 7).close()
    put_claim(storage, "2-3-0123abcd", -1)
    with writer(storage, 3, 3) as heir:
        (claim,) = claims(storage)
        assert claim.startswith(".writers/3-3-")
        assert 0 < json.loads(storage.read(claim))["expires"] - time.time() <= 60
        write(heir)
    assert claims(storage) == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_lost_its_claim_commits_nothing() -> None:
    storage = memory_storage()
    own = writer(storage, 0, 3)
    own.write_shard(0, shard_values(PLAN, 0))
    storage.delete(claims(storage))
    with pytest.raises(CacheError, match=r"The claim on memory://cache was lost to another writer"):
        own.write_shard(1, shard_values(PLAN, 1))
    assert list(ActivationCache(storage, allow_partial=True).manifest.entries) == [0]
    own.close()
    with writer(storage, 0, 3) as heir:
        assert heir.missing() == [1, 2, 3]
        assert storage.size("tf1.mlp/c.1.0.0.0.0") is None


class WatchedPuts:
    """Counts how often a claim is put, and can make that fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_down = False
        self._count = threading.Semaphore(0)
        self._put = obstore.put
        monkeypatch.setattr(obstore, "put", self.put)

    def put(self, store: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self.is_down and name.startswith(".writers/"):
                raise GenericError("the network is down")
            return self._put(store, name, *args, **kwargs)
        finally:
            if name.startswith(".writers/"):
                self._count.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._count.acquire(timeout=LONG_SECONDS)


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> WatchedPuts:
    return WatchedPuts(monkeypatch)


def short_lease() -> ObjectStorage:
    return ObjectStorage(MemoryStore(), "memory://short", lease_seconds=0.05)


def leases() -> set[threading.Thread]:
    """The threads that keep claims; those of a writer that another test left behind are among them."""
    return {thread for thread in threading.enumerate() if thread.name == "cache-lease"}


def expiry(storage: ObjectStorage) -> float:
    (claim,) = claims(storage)
    return float(json.loads(storage.read(claim))["expires"])


def test_a_living_writer_renews_its_claim_until_it_closes(puts: WatchedPuts) -> None:
    storage, before = short_lease(), leases()
    with writer(storage, 0, 3):
        names, expires = claims(storage), expiry(storage)
        puts.wait_for(3)
        assert claims(storage) == names
        assert expiry(storage) > expires
    assert claims(storage) == []
    assert leases() <= before


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_survives_a_moment_without_network(puts: WatchedPuts) -> None:
    storage = short_lease()
    with writer(storage, 0, 3) as own:
        puts.is_down = True
        puts.wait_for(3)
        puts.is_down = False
        before = expiry(storage)
        puts.wait_for(3)
        assert expiry(storage) > before
        write(own)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_claim_that_was_lost_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if it is removed in the middle of its renewal."""
    storage = short_lease()
    head, tried = obstore.head, threading.Semaphore(0)

    def lose(store: Any, name: str) -> Any:
        found = head(store, name)
        if name.startswith(".writers/") and threading.current_thread().name == "cache-lease":
            obstore.delete(store, name)
            tried.release()
        return found

    monkeypatch.setattr(obstore, "head", lose)
    with writer(storage, 0, 3) as own:
        assert tried.acquire(timeout=LONG_SECONDS)
        with pytest.raises(CacheError, match="was lost to another writer"):
            own.write_shard(0, shard_values(PLAN, 0))
        assert claims(storage) == []


def test_a_claim_that_cannot_be_compared_with_others_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, before = memory_storage(), leases()

    def unreachable(*_: Any) -> None:
        raise CacheError("the network is down")

    monkeypatch.setattr(storage, "_claims", unreachable)
    with pytest.raises(CacheError, match="the network is down"):
        storage.claim(0, 3)
    assert claims(storage) == []
    assert leases() <= before


def test_claims_on_a_server(object_server: Callable[[], ObjectStorage], puts: WatchedPuts) -> None:
    storage = object_server()
    storage.lease_seconds = 0.5
    with writer(storage, 0, 3) as own:
        with pytest.raises(CacheError, match=REFUSED.format(0, 3)):
            writer(storage, 2, 5)
        before = expiry(storage)
        puts.wait_for(4)
        assert expiry(storage) > before
        storage.delete(claims(storage))
        with pytest.raises(CacheError, match="was lost to another writer"):
            own.write_shard(0, shard_values(PLAN, 0))
    assert claims(storage) == []
