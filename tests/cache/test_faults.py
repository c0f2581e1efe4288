"""Full, failing and read-only disks, failing object stores, racing writers, flipped bits: nothing is silently wrong."""

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks.faults import run
from cache import ActivationCache, CacheError, CacheWriter, UserError, room
from cache.local_storage import LocalStorage
from cache.maintenance import repair, verify
from cache.object_storage import memory_storage
from cache.protocol import chunk_grid
from cache.storage import Storage
from tests.cache.faults import (
    FAILING,
    FailingDisk,
    Interrupted,
    Meddled,
    Survey,
    flip,
    survey,
    write_missing,
    wrong_tables,
)
from tests.cache.helpers import contents, make_clips, make_plan, shard_values, tree, write_cache

PLAN = make_plan(n_clips=3)


def refusal(location: Path | Storage, written: list[int]) -> UserError | None:
    """Write what is missing; what stopped it, which must be one clear sentence."""
    try:
        write_missing(location, PLAN, written.append)
    except UserError as error:
        assert "\n" not in str(error)
        assert "again" in str(error)
        return error
    return None


# Disks


@pytest.mark.parametrize("code", FAILING, ids=errno.errorcode.get)
@pytest.mark.parametrize("is_lasting", [True, False])
def test_a_disk_that_fails_at_any_call(tmp_path: Path, code: int, is_lasting: bool) -> None:
    whole = tree(write_cache(tmp_path / "whole", PLAN))
    with FailingDisk(tmp_path / "counted", code, at=0).failing() as disk:
        write_cache(tmp_path / "counted", PLAN)
    assert disk.calls > 40
    # Only the sentence depends on the error, so one fails at every call, once and lastingly, and the others at some.
    step = 1 if (code, is_lasting) in ((errno.EIO, False), (errno.EROFS, True)) else 3
    for at in range(1, disk.calls + 1, step):
        folder = tmp_path / str(at)
        written: list[int] = []
        with FailingDisk(folder, code, at, is_lasting).failing():
            error = refusal(folder, written)
        assert error is None or str(folder) in str(error)
        # The two last calls only remove what writers share.
        assert error is not None or sorted(written) == list(range(PLAN.n_shards)), at
        assert survey(folder, PLAN).faults(written) == [], at
        assert tree(write_cache(folder, PLAN)) == whole, at


def test_a_writer_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    whole = tree(write_cache(tmp_path / "whole", PLAN))
    folder = tmp_path / "a"
    with CacheWriter(folder, PLAN, make_clips(PLAN)) as writer:
        with (
            FailingDisk(folder, errno.ENOSPC, at=3).failing(),
            pytest.raises(UserError, match=r"The disk of .* is full"),
        ):
            writer.write_shard(0, shard_values(PLAN, 0))
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(PLAN, shard))
    assert tree(folder) == whole


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory; skips the test where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 4096, 12288, 20480, 28672, 36864])
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(room, "MARGIN_BYTES", 0)
    whole = tree(write_cache(tmp_path / "whole", PLAN))
    with mounted(tmp_path / "small", "1m") as disk:
        written: list[int] = []
        with CacheWriter(disk / "a", PLAN, make_clips(PLAN)) as writer:
            writer.write_shard(0, shard_values(PLAN, 0))
            written.append(0)
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize - free))
            try:
                writer.write_shard(1, shard_values(PLAN, 1))
            except UserError as error:
                assert "is full" in str(error)
            else:
                written.append(1)
                assert free
        assert survey(disk / "a", PLAN).faults(written) == []
        ballast.unlink()
        assert tree(write_cache(disk / "a", PLAN)) == whole


def test_a_file_system_that_is_really_read_only(tmp_path: Path) -> None:
    whole = tree(write_cache(tmp_path / "whole", PLAN))
    with mounted(tmp_path / "small", "128m") as disk:
        write_cache(disk / "a", PLAN, shards=(0, 0))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for folder in (disk / "a", disk / "b"):
            with pytest.raises(UserError, match="Read-only file system"):
                write_cache(folder, PLAN)
        assert survey(disk / "a", PLAN).faults([0], in_flight=0) == []
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert tree(write_cache(disk / "a", PLAN)) == whole


# Object stores


@pytest.mark.parametrize("moment", ["before", "halfway", "after"])
def test_an_object_store_that_fails_at_any_operation(moment: str) -> None:
    whole = contents(write_cache(memory_storage(), PLAN))
    counted = Interrupted(memory_storage())
    write_cache(counted, PLAN)
    for at in range(1, len(counted.log) + 1):
        storage = memory_storage()
        written: list[int] = []
        failure = CacheError("memory://cache cannot be reached: run again")
        error = refusal(Interrupted(storage, at, moment, failure), written)
        assert error is failure or (moment == "halfway" and not counted.log[at - 1].startswith("put"))
        assert survey(storage, PLAN).faults(written) == [], counted.log[at - 1]
        for name in storage._claims():
            storage.delete([name])
        assert contents(write_cache(storage, PLAN)) == whole, counted.log[at - 1]


# Two writers


def test_two_writers_that_store_the_same_name_at_once(tmp_path: Path) -> None:
    one, other = LocalStorage(tmp_path / "a"), LocalStorage(tmp_path / "a")

    def interleaved() -> Iterator[bytes]:
        yield b"first half, "
        other.put("name", [b"first half, ", b"second half"])
        yield b"second half"
        assert other.read("name") == b"first half, second half"

    with closing(one.claim(0, 0)), closing(other.claim(1, 1)):
        one.put("name", interleaved())
    assert one.read("name") == b"first half, second half"
    assert tree(tmp_path / "a").keys() == {".lock", "name"}


def test_names_that_go_while_a_reader_lists_them_do_not_matter(tmp_path: Path) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, order=[0, 1])
    counted = Interrupted(LocalStorage(tmp_path / "a"))
    survey(counted, plan)
    reading = counted.log.index("sizes manifest/") + 2
    meddled = Meddled(LocalStorage(tmp_path / "a"), reading, (tmp_path / "a" / "manifest" / "1.json").unlink)
    assert survey(meddled, plan).faults([0], in_flight=0) == []
    assert not (tmp_path / "a" / "manifest" / "1.json").exists()


# Bits


def is_named(name: str, location: Path) -> bool:
    """Whether verifying a cache finds a file damaged, or refuses the cache because of it."""
    try:
        return any(damage.name.startswith(name) for damage in verify(location))
    except CacheError as error:
        return name in str(error) or "version" in str(error)


@pytest.mark.parametrize(
    ("name", "zstd_level"),
    [
        ("tf1.mlp/c.0.0.0.0.0", 0),
        ("tf1.mlp/c.0.0.0.0.0", 3),
        ("tf1.mlp/c.1.0.0.0.0", 3),
        ("manifest.jsonl", 3),
        ("tf1.mlp/zarr.json", 3),
        ("zarr.json", 3),
    ],
)
def test_a_flipped_bit_is_never_another_number(tmp_path: Path, name: str, zstd_level: int) -> None:
    plan = make_plan(n_clips=3, zstd_level=zstd_level, dtypes="bfloat16")
    whole = tree(write_cache(tmp_path / "a", plan))
    path = tmp_path / "a" / name
    content = path.read_bytes()
    chance = random.Random(name)
    places = [0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(40))]
    for number, place in enumerate(places):
        path.write_bytes(flip(content, place, chance.randrange(8)))
        found = survey(tmp_path / "a", plan)
        assert not found.wrong and not found.wrong_tables, place
        if name == "zarr.json":
            assert found.intact in ({0, 1}, set())
            continue
        if name == "manifest.jsonl":
            assert found.intact in ({0}, {1}, set()), place
        else:
            assert is_named(name, tmp_path / "a"), place
        if number in (0, 2, 3):
            assert repair(tmp_path / "a") != []
            assert verify(tmp_path / "a") == [] or name.endswith("zarr.json")
            assert tree(write_cache(tmp_path / "a", plan)) == whole


def test_chunks_that_changed_places_in_the_index_are_noticed(tmp_path: Path) -> None:
    plan = make_plan(n_clips=1, sites={"tf1.mlp": 512}, tokens=1024)
    path = write_cache(tmp_path / "a", plan) / "tf1.mlp" / "c.0.0.0.0.0"
    content = path.read_bytes()
    _, steps, passes = chunk_grid(plan.shard_shape("tf1.mlp"), plan.chunk_shape("tf1.mlp"))
    start = len(content) - 4 - 16 * steps * passes
    first, second = content[start : start + 16], content[start + 16 : start + 32]
    path.write_bytes(content[:start] + second + first + content[start + 32 :])
    assert survey(tmp_path / "a", plan) == Survey(committed=frozenset({0}))
    with pytest.raises(CacheError, match="its checksum is not the one in the manifest"):
        ActivationCache(tmp_path / "a").read("tf1.mlp")


@pytest.mark.parametrize("name", ["clips.parquet", "calls.parquet"])
def test_a_flipped_bit_in_a_table_is_never_another_value(tmp_path: Path, name: str) -> None:
    path = write_cache(tmp_path / "a", PLAN) / name
    content = path.read_bytes()
    chance = random.Random(name)
    for _ in range(300):
        path.write_bytes(flip(content, chance.randrange(len(content)), chance.randrange(8)))
        assert not wrong_tables(tmp_path / "a", PLAN)


# All at once


def test_kills_and_faults_in_short() -> None:
    tally = run(kills=4)
    assert tally.is_clean(), tally.metrics()
    assert tally.kills.total() >= 4
    assert tally.faults.total() >= 20
