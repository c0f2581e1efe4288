"""Fault injection: kill writers at random moments, break disks, stores and bits, and count lost or wrong data.

Run as `python -m benchmarks.faults` for everything, or `python -m benchmarks.faults 8` for 8 kills without a result
file. Exits with 1 if a written shard was lost, a number was silently wrong, or a resumed cache differs from an
uninterrupted one in any byte.
"""

import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from benchmarks._result import write_result
from cache import CacheError, CachePlan, UserError
from cache.maintenance import repair, verify
from cache.object_storage import ObjectStorage, memory_storage
from cache.storage import Location, Storage
from tests.cache.faults import (
    FAILING,
    FailingDisk,
    Interrupted,
    RecordedDisk,
    expire_claims,
    flip,
    restore,
    survey,
    write_missing,
)
from tests.cache.helpers import contents, make_plan, tree, write_cache
from tests.cache.killed_writer import Victim, victims
from tests.forks import CONTEXT

KILLS = 100
SEED = 0
# Ways to write the caches, in turn.
WAYS = ("plain", "pipelined", "plain", "server", "pipelined", "plain")
BUCKET = "caches"
LARGE = make_plan(n_clips=12, sites={"tf0.cross_attn": 128, "tf1.mlp": 256}, tokens=128)
SMALL = make_plan(n_clips=3)


@dataclass
class Tally:
    """Counts of the kills, faults and losses of all caches of a run."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    shards_acknowledged: int = 0
    lost_beyond_flight: int = 0
    silently_wrong: int = 0
    unreadable: int = 0
    surplus: int = 0
    caches: int = 0
    resumed_equal: int = 0

    def look(self, location: Location, plan: CachePlan, acknowledged: Collection[int]) -> frozenset[int]:
        """Count what a reader finds, given the shards that `write_shard` returned from; returns the committed ones."""
        found = survey(location, plan)
        surplus = found.committed - set(acknowledged)
        self.moments[f"{len(found.committed)} of {plan.n_shards} shards committed"] += 1
        self.lost_beyond_flight += len(set(acknowledged) - found.intact)
        self.silently_wrong += len(found.wrong) + len(found.wrong_tables)
        self.unreadable += len(found.committed - found.intact)
        self.surplus += max(0, len(surplus) - 1)
        return found.committed

    def resume(self, location: Location, plan: CachePlan, whole: dict[str, Any]) -> None:
        """Write what is missing and compare every byte with an uninterrupted cache."""
        write_cache(location, plan)
        made = tree(location) if isinstance(location, Path) else contents(location)
        self.caches += 1
        self.resumed_equal += made == whole

    def is_clean(self) -> bool:
        """Whether nothing was lost, wrong or different."""
        bad = self.lost_beyond_flight + self.silently_wrong + self.unreadable + self.surplus
        return bad == 0 and self.resumed_equal == self.caches

    def metrics(self) -> dict[str, Any]:
        """The counts for the result file."""
        return {
            "kills": sum(self.kills.values()),
            "kills_by_way": dict(sorted(self.kills.items())),
            "faults": sum(self.faults.values()),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "found_after_kills_and_faults": dict(sorted(self.moments.items())),
            "shards_acknowledged": self.shards_acknowledged,
            "lost_beyond_flight": self.lost_beyond_flight,
            "silently_wrong": self.silently_wrong,
            "committed_but_unreadable": self.unreadable,
            "committed_beyond_flight": self.surplus,
            "caches": self.caches,
            "resumed_equal": self.resumed_equal,
        }


# Kills


def kill_writers(kills: int, server: Callable[[], ObjectStorage], folder: Path, tally: Tally) -> None:
    """Kill writers at random moments, one to three times per cache, and resume."""
    moments = random.Random(SEED)
    places = _places(server, folder)
    whole = {way: _uninterrupted(place()) for way, place in places.items()}
    seconds = {way: _seconds(place(), way) for way, place in places.items()}
    while (done := tally.kills.total()) < kills:
        way = WAYS[tally.caches % len(WAYS)]
        location = places[way]()
        acknowledged: set[int] = set()
        for _ in range(min(moments.randint(1, 3), kills - done)):
            victim = _victim(location, way)
            with victims(victim):
                victim.wait_until_ready()
                victim.kill_after(moments.uniform(0, seconds[way]))
            tally.kills[way] += victim.exit_code == -signal.SIGKILL
            tally.shards_acknowledged += len(victim.acknowledged)
            acknowledged.update(victim.acknowledged)
            if isinstance(location, Storage):
                expire_claims(location)
            # What is committed now must not be lost by the next kill, acknowledged or not.
            acknowledged |= tally.look(location, LARGE, acknowledged)
        tally.resume(location, LARGE, whole[way])
        _remove(location)


def _places(server: Callable[[], ObjectStorage], folder: Path) -> dict[str, Callable[[], Location]]:
    def new_folder() -> Path:
        return Path(tempfile.mkdtemp(dir=folder)) / "a"

    return {"plain": new_folder, "pipelined": new_folder, "server": server}


def _victim(location: Location, way: str) -> Victim:
    return Victim(location, LARGE, is_pipelined=way == "pipelined")


def _uninterrupted(location: Location) -> dict[str, Any]:
    write_cache(location, LARGE)
    return tree(location) if isinstance(location, Path) else contents(location)


def _seconds(location: Location, way: str) -> float:
    """Seconds that a writer takes from its first call to the cache until it ends."""
    victim = _victim(location, way)
    with victims(victim):
        victim.wait_until_ready()
        started = time.perf_counter()
        victim.end()
    return time.perf_counter() - started


def _remove(location: Location) -> None:
    if isinstance(location, Path):
        shutil.rmtree(location)


# Faults


def inject_faults(folder: Path, tally: Tally) -> None:
    """Inject faults of every kind; after each, count what a reader finds and resume."""
    chance = random.Random(SEED)
    whole = tree(write_cache(folder / "whole", SMALL))
    for number, code in enumerate([*FAILING] * 2):
        fail_disk(folder / f"disk {number}", code, bool(number % 2), chance, whole, tally)
    for _ in range(2):
        fail_store(chance, tally)
    cut_power(folder / "power", 4, chance, whole, tally)
    for number in range(4):
        write_twice(folder / f"two writers {number}", bool(number % 2), whole, tally)
    names = [
        name for name, content in whole.items() if content and "parquet" not in name and name != "zarr.json"
    ]
    for number in range(8):
        flip_a_bit(folder / f"bit {number}", names[number % len(names)], chance, whole, tally)


def fail_disk(
    folder: Path, code: int, is_lasting: bool, chance: random.Random, whole: dict[str, Any], tally: Tally
) -> None:
    """Make a disk full, failing or read-only from a random call on (or for that call only)."""
    counting = FailingDisk(folder, code, at=0)
    with counting.failing():
        write_cache(folder, SMALL)
    shutil.rmtree(folder)
    written: list[int] = []
    with FailingDisk(folder, code, chance.randint(1, counting.calls - 4), is_lasting).failing():
        _expect_refusal(folder, written)
    _judge(f"disk: {errno.errorcode[code]}", folder, written, whole, tally)


def fail_store(chance: random.Random, tally: Tally) -> None:
    """Make an object store unreachable at a random operation."""
    whole = contents(write_cache(memory_storage(), SMALL))
    counting = Interrupted(memory_storage())
    write_cache(counting, SMALL)
    storage = memory_storage()
    written: list[int] = []
    failure = CacheError("not reached")
    _expect_refusal(Interrupted(storage, chance.randint(1, len(counting.log)), "after", failure), written)
    expire_claims(storage)
    _judge("object store: not reached", storage, written, whole, tally)


def cut_power(folder: Path, cuts: int, chance: random.Random, whole: dict[str, Any], tally: Tally) -> None:
    """Cut the power at random moments, which may lose, keep or tear recent renames."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(folder, patch, SEED)
        write_missing(folder / "a", SMALL, disk.acknowledged.add)
    for number, (written, image) in enumerate(chance.sample(disk.cuts, cuts)):
        restore(image, folder / f"cut {number}")
        _judge("power cut: torn renames", folder / f"cut {number}" / "a", written, whole, tally)


def write_twice(folder: Path, is_disjoint: bool, whole: dict[str, Any], tally: Tally) -> None:
    """Run two writers at once: with different shards both succeed, with the same shards one is refused."""
    first = Victim(folder, SMALL, (0, 0) if is_disjoint else None, stop_after=0 if is_disjoint else 1)
    with victims(first):
        if not is_disjoint:
            first.wait_for_a_shard()
        second = Victim(folder, SMALL, (1, 1))
        with victims(second):
            second.end()
        if is_disjoint:
            first.end()
    assert (second.error is None) == is_disjoint, second.error
    written = [*first.acknowledged, *second.acknowledged]
    kind = "two writers: other shards" if is_disjoint else "two writers: the same shards"
    _judge(kind, folder, written, whole, tally)


def flip_a_bit(folder: Path, name: str, chance: random.Random, whole: dict[str, Any], tally: Tally) -> None:
    """Flip a bit: reading it must raise an error, verifying must report it, repairing must remove it."""
    path = write_cache(folder, SMALL) / name
    content = path.read_bytes()
    path.write_bytes(flip(content, chance.randrange(len(content)), chance.randrange(8)))
    assert any(damage.name.startswith(name) for damage in verify(folder)), f"{name} is not named"
    found = survey(folder, SMALL)
    tally.silently_wrong += len(found.wrong) + len(found.wrong_tables)
    damaged = {damage.shard for damage in repair(folder)}
    _judge("flipped bit", folder, found.intact - damaged, whole, tally)


def _expect_refusal(location: Location, written: list[int]) -> None:
    try:
        write_missing(location, SMALL, written.append)
    except UserError:
        return
    raise AssertionError(f"{location} was written though it failed")


def _judge(
    kind: str, location: Location, written: Collection[int], whole: dict[str, Any], tally: Tally
) -> None:
    tally.faults[kind] += 1
    tally.shards_acknowledged += len(written)
    tally.look(location, SMALL, written)
    tally.resume(location, SMALL, whole)


# The server and the whole run


def _serve(report: Any) -> None:
    """Run an S3 server until this process is stopped."""
    from moto.server import ThreadedMotoServer

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    report.send(server.get_host_and_port())
    report.poll(None)


@contextmanager
def s3_server() -> Iterator[Callable[[], ObjectStorage]]:
    """A function that returns an empty storage on a local server, with a new prefix each time."""
    import requests

    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    host, port = ours.recv()
    requests.put(f"http://{host}:{port}/{BUCKET}", timeout=30).raise_for_status()
    numbers = iter(range(10**6))

    def new_storage() -> ObjectStorage:
        prefix = str(next(numbers))
        store = S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=f"http://{host}:{port}",
            region="us-east-1",
            access_key_id="test",
            secret_access_key="test",
            client_options={"allow_http": True},
        )
        return ObjectStorage(store, f"s3://{BUCKET}/{prefix}")

    try:
        yield new_storage
    finally:
        process.kill()
        process.join()


def run(kills: int) -> Tally:
    """Kill `kills` writers and inject all faults."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as temporary, s3_server() as server:
        kill_writers(kills, server, Path(temporary), tally)
        inject_faults(Path(temporary), tally)
    return tally


def main() -> None:
    """Run everything and write results/faults.json."""
    started = time.perf_counter()
    tally = run(KILLS)
    metrics = {**tally.metrics(), "seed": SEED, "seconds": round(time.perf_counter() - started, 1)}
    file = write_result("faults", metrics)
    print(
        f"{metrics['kills']} kills and {metrics['faults']} faults: {tally.lost_beyond_flight} shards lost beyond "
        f"the one in flight, {tally.silently_wrong} silently wrong, {tally.resumed_equal} of {tally.caches} caches "
        f"resumed byte for byte ({file})"
    )
    sys.exit(0 if tally.is_clean() else 1)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        short = run(int(sys.argv[1]))
        print(json.dumps(short.metrics(), indent=2))
        sys.exit(0 if short.is_clean() else 1)
