"""Verify, repair, describe, find, remove and merge: damage of every kind, and interruptions at every operation."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import ActivationCache, CacheError, CachePlan, CacheWriter, UserError
from cache.local_storage import LocalStorage
from cache.maintenance import Damage, describe, find, remove, remove_shards, remove_unwritten, repair, verify
from cache.manifest import Manifest
from cache.merge import merge
from cache.object_storage import ObjectStorage, memory_storage
from cache.protocol import ENTRIES, GROUP
from cache.storage import Location, Storage, open_storage
from tests.cache import helpers
from tests.cache.helpers import contents, make_clips, make_values, shard_values, write_cache

OPERATIONS = ("read", "read_into", "size", "sizes", "put", "delete", "claim")
SHARD_FILE = "tf1.mlp/c.1.0.0.0.0"


# Two sites of two formats, five clips in three shards.
make_plan = functools.partial(
    helpers.make_plan,
    dtypes={"tf0.cross_attn": "float16", "tf1.mlp": "bfloat16"},
    steps=(0, 7),
    sigmas=(1.0, 0.25),
)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


class StoppedError(Exception):
    """The process was killed here."""


def stop_at(storage: Storage, number: int) -> Callable[[], int]:
    """Make a storage's operation of some number, and all after it, raise; gives how many were begun."""
    count = 0

    def counted(operation: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > number:
            raise StoppedError
        return operation(*arguments, **named)

    for name in OPERATIONS:
        setattr(storage, name, functools.partial(counted, getattr(storage, name)))
    return lambda: count


def interrupted(storage: Storage, number: int, job: Callable[[Storage], Any]) -> bool:
    """Run a job on a storage that stops at some operation; whether it came to that."""
    stop_at(storage, number)
    try:
        job(storage)
    except StoppedError:
        return True
    return False


def assert_is_repaired(folder: Path, plan: CachePlan, whole: dict[str, bytes]) -> None:
    """A repair leaves no damage, and writing what is missing makes the cache whole."""
    repair(folder)
    assert verify(folder) == []
    write_cache(folder, plan)
    assert contents(folder) == whole


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_an_intact_cache_has_no_damage(tmp_path: Path, place: str) -> None:
    location = tmp_path / "a" if place == "folder" else memory_storage()
    write_cache(location, make_plan())
    reports: list[tuple[int, int]] = []
    assert verify(location, lambda done, total: reports.append((done, total))) == []
    assert reports[-1][0] == reports[-1][1] == make_plan().total_bytes()
    assert len(reports) == 6


def test_files_without_a_committed_shard_are_no_damage(tmp_path: Path) -> None:
    write_cache(tmp_path / "a", make_plan(), [0])
    (tmp_path / "a" / SHARD_FILE).write_bytes(b"half a shard")
    assert verify(tmp_path / "a") == []


@pytest.mark.parametrize("zstd_level", [0, 3])
def test_a_flipped_bit_anywhere_in_a_shard_file_is_found_and_repaired(
    tmp_path: Path, zstd_level: int
) -> None:
    plan = make_plan(zstd_level=zstd_level)
    folder = tmp_path / "a"
    whole = contents(write_cache(folder, plan))
    for byte in range(0, len(whole[SHARD_FILE]), 5):
        flip(folder / SHARD_FILE, byte, byte % 8)
        assert verify(folder) == [Damage(SHARD_FILE, "differs from its checksum", 1, (2, 3))]
        flip(folder / SHARD_FILE, byte, byte % 8)
    flip(folder / SHARD_FILE, 40)
    assert [found.shard for found in repair(folder)] == [1]
    assert list(ActivationCache(folder, allow_partial=True).manifest.entries) == [0, 2]
    assert not (folder / SHARD_FILE).exists()
    assert not (folder / "tf0.cross_attn/c.1.0.0.0.0").exists()
    assert verify(folder) == []
    write_cache(folder, plan)
    assert contents(folder) == whole


def test_missing_and_cut_files_are_named_and_repaired(tmp_path: Path) -> None:
    plan, folder = make_plan(), tmp_path / "a"
    whole = contents(write_cache(folder, plan))
    (folder / "tf0.cross_attn/c.2.0.0.0.0").unlink()
    (folder / SHARD_FILE).write_bytes(whole[SHARD_FILE][:-1])
    sentences = [str(found) for found in verify(folder)]
    assert sentences == [
        f"{SHARD_FILE} has {len(whole[SHARD_FILE]) - 1} bytes, not {len(whole[SHARD_FILE])} (shard 1, clips 2 to 3)",
        "tf0.cross_attn/c.2.0.0.0.0 is missing (shard 2, clips 4 to 4)",
    ]
    assert_is_repaired(folder, plan, whole)


def test_a_damaged_manifest_line_and_entry_are_named_and_repaired(tmp_path: Path) -> None:
    plan, folder = make_plan(), tmp_path / "a"
    whole = contents(write_cache(folder, plan))
    flip(folder / "manifest.jsonl", whole["manifest.jsonl"].index(b"\n") + 30)
    assert [found.name for found in verify(folder)] == ["manifest.jsonl line 2"]
    assert_is_repaired(folder, plan, whole)

    partial = tmp_path / "b"
    write_cache(partial, plan, [0, 1])
    flip(partial / "manifest/1.json", 30)
    assert [found.name for found in verify(partial)] == ["manifest/1.json"]
    repair(partial)
    assert not (partial / "manifest/1.json").exists()
    write_cache(partial, plan)
    assert contents(partial) == whole


@pytest.mark.parametrize("name", ["clips.parquet", "calls.parquet", "tf1.mlp/zarr.json"])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_damaged_metadata_is_named_and_repaired(tmp_path: Path, name: str, how: str) -> None:
    plan, folder = make_plan(), tmp_path / "a"
    whole = contents(write_cache(folder, plan))
    if how == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[name][:-9])
    assert [found.name for found in verify(folder)] == [name]
    repair(folder)
    if name == "clips.parquet":  # only who captures knows it
        assert not (folder / name).exists()
        write_cache(folder, plan)
    assert contents(folder) == whole


def test_what_may_not_be_read_is_an_error_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(tmp_path / "a", make_plan())
    whole = contents(tmp_path / "a")

    def refuse(self: Any, name: str, offset: int, buffer: memoryview) -> None:
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read_into", refuse)
        with pytest.raises(CacheError, match=r"cannot be read .Permission denied..*Make it readable"):
            repair(tmp_path / "a")
        patch.setattr(
            LocalStorage, "read_into", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
        )
        assert {found.problem for found in verify(tmp_path / "a")} == {"cannot be read (Input/output error)"}
    assert contents(tmp_path / "a") == whole


def test_a_repair_that_is_stopped_anywhere_can_be_repeated(tmp_path: Path) -> None:
    plan, number = make_plan(), 0
    whole = contents(write_cache(tmp_path / "whole", plan))
    stopped = True
    while stopped:
        folder = tmp_path / str(number)
        write_cache(folder, plan)
        flip(folder / SHARD_FILE, 40)
        (folder / "calls.parquet").write_bytes(b"")
        stopped = interrupted(LocalStorage(folder), number, repair)
        entries = Manifest(LocalStorage(folder), plan).entries
        assert all((folder / name).exists() for entry in entries.values() for name in entry.sizes())
        assert_is_repaired(folder, plan, whole)
        number += 1
    assert number > 20


def test_repair_and_removal_are_refused_while_a_writer_is_at_work(tmp_path: Path) -> None:
    plan, folder = make_plan(), tmp_path / "a"
    with CacheWriter(folder, plan, make_clips(plan), shards=(1, 2)):
        for job in (repair, remove, lambda place: remove_shards(place, [0])):
            with pytest.raises(CacheError, match="being written by another writer"):
                job(folder)
        with pytest.raises(CacheError, match="being written by another writer"):
            merge([write_cache(tmp_path / "b", plan)], folder)
    assert (folder / GROUP).exists()


def test_a_description_adds_up(tmp_path: Path) -> None:
    plan = make_plan(zstd_level=1)
    write_cache(tmp_path / "a", plan, [0, 2])
    info = describe(tmp_path / "a")
    assert (info.plan_hash, info.shards, info.committed, info.n_clips) == (plan.hash, 3, 2, 5)
    assert (info.steps, info.sigmas, info.passes) == (plan.steps, plan.sigmas, plan.passes)
    assert info.bytes == sum(map(len, contents(tmp_path / "a").values()))
    site = info.sites["tf1.mlp"]
    assert (site.channels, site.dtype) == (5, "bfloat16")
    assert site.planned_bytes == plan.bytes_of([0, 2])["tf1.mlp"]
    files = [f"tf1.mlp/c.{shard}.0.0.0.0" for shard in (0, 2)]
    assert site.bytes == sum((tmp_path / "a" / name).stat().st_size for name in files)
    values = make_values(plan, "tf1.mlp")[[0, 1, 4]]
    stored = ActivationCache(tmp_path / "a", allow_partial=True).read("tf1.mlp", clips=[0, 1, 4])
    assert site.largest == pytest.approx(abs(values).max(), rel=0.01)
    assert site.max_error == pytest.approx(abs(values - stored).max(), rel=0.01)
    # Within what the clips' differing norms allow.
    assert site.rms_error == pytest.approx(np.linalg.norm(values - stored) / np.linalg.norm(values), rel=0.1)


def test_relative_errors_are_combined_by_clips(tmp_path: Path) -> None:
    plan = make_plan(sites={"tf0.mlp": 3}, dtypes="float16", n_clips=3)
    write_cache(tmp_path / "a", plan)
    files = [
        entry.files["tf0.mlp"]
        for entry in ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries.values()
    ]
    squares = 2 * files[0].rms_error ** 2 + files[1].rms_error ** 2
    assert files[0].rms_error != files[1].rms_error
    assert describe(tmp_path / "a").sites["tf0.mlp"].rms_error == pytest.approx(math.sqrt(squares / 3))


def test_nothing_is_said_of_values_that_are_not_there(tmp_path: Path) -> None:
    write_cache(tmp_path / "a", make_plan(), [])
    site = describe(tmp_path / "a").sites["tf1.mlp"]
    assert (site.bytes, site.largest, site.max_error, site.rms_error) == (0, None, None, None)


@pytest.mark.usefixtures("s3_environment")
def test_caches_are_found_in_a_bucket(object_server: Callable[[], ObjectStorage]) -> None:
    top = object_server()
    write_cache(f"{top.location}/studies/one", make_plan())
    top.put("two/zarr.json", [b'{"attributes":{"protocol":"activation-cache","version":1}}'])
    top.put("other/zarr.json", [b"{}"])
    one, two = find(top.location)
    assert (one.location, two.location) == (f"{top.location}/studies/one", f"{top.location}/two")
    assert one.info is not None
    assert one.info.committed == 3
    assert "version 1" in str(two.problem)


def test_caches_are_found_wherever_they_are(tmp_path: Path) -> None:
    top = tmp_path / "top"
    write_cache(top / "one", make_plan())
    write_cache(top / "studies" / "s" / "activations.zarr", make_plan(n_clips=2), [])
    write_cache(tmp_path / "elsewhere", make_plan())
    (top / "link").symlink_to(tmp_path / "elsewhere")
    (top / "plain").mkdir()
    (top / "plain" / GROUP).write_text('{"zarr_format":3,"node_type":"group","attributes":{}}')
    (top / "old").mkdir()
    (top / "old" / GROUP).write_text('{"attributes":{"protocol":"activation-cache","version":1}}')
    found = find(top)
    assert [item.location for item in found] == [
        f"{top}/{name}" for name in ("old", "one", "studies/s/activations.zarr")
    ]
    old, one, empty = found
    assert old.info is None
    assert "version 1" in str(old.problem)
    assert one.info is not None
    assert (one.info.committed, one.bytes) == (3, sum(map(len, contents(top / "one").values())))
    assert empty.info is not None
    assert (empty.info.committed, empty.info.shards) == (0, 1)
    assert [item.location for item in find(top / "one")] == [str(top / "one")]


def test_looking_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        find(tmp_path / "nowhere")


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    write_cache(tmp_path / "a", make_plan())
    remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    memory = memory_storage()
    write_cache(memory, make_plan())
    remove(memory)
    assert memory.sizes() == {}
    assert memory._claims() == []


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_only_a_cache_without_a_shard_is_removed_as_unwritten(tmp_path: Path, place: str) -> None:
    location: Location = tmp_path / "a" if place == "folder" else memory_storage()
    called: list[str] = []
    write_cache(location, make_plan(), order=[])
    with (
        CacheWriter(location, make_plan(), make_clips(make_plan()), (1, 1)),
        pytest.raises(CacheError, match="writer"),
    ):
        remove_unwritten(location, lambda: called.append("while another writes"))
    write_cache(location, make_plan(), order=[1])
    before = contents(location)
    remove_unwritten(location, lambda: called.append("though a shard is there"))
    assert (contents(location), called) == (before, [])
    remove_shards(location, [1])
    remove_unwritten(location, lambda: called.append("now"))
    assert called == ["now"]
    assert not open_storage(location).is_there()
    assert place == "memory" or not (tmp_path / "a").exists()


def test_a_removal_stopped_anywhere_can_be_repeated(tmp_path: Path) -> None:
    plan, number, stopped = make_plan(), 0, True
    while stopped:
        folder = tmp_path / str(number)
        write_cache(folder, plan)
        before = contents(folder)
        stopped = interrupted(LocalStorage(folder), number, remove)
        if stopped and contents(folder) != before:
            with pytest.raises(CacheError, match=r"half-written|not an activation cache"):
                ActivationCache(folder)
        if stopped:
            remove(folder)
        assert not folder.exists()
        number += 1
    assert number > 5


def test_a_removal_stopped_at_its_very_end_can_be_repeated(tmp_path: Path) -> None:
    for number, left in enumerate([(), (".lock",), (".lock", ".writers/0-2"), (".lock", ".staging/half")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in left:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        remove(folder)
        assert not folder.exists()
    (tmp_path / ".git").mkdir()
    with pytest.raises(CacheError, match="not an activation cache"):
        remove(tmp_path)


def test_a_removal_stopped_between_two_files_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store removes one name after the other; each may be the last."""
    plan, number, stopped = make_plan(), 0, True
    delete = ObjectStorage.delete
    while stopped:
        memory, count = memory_storage(), 0
        write_cache(memory, plan, [0, 1])
        write_cache(memory, plan, [2])

        def one_by_one(self: ObjectStorage, names: Any) -> None:
            nonlocal count
            for name in names:
                count += 1
                if count > number:  # noqa: B023
                    raise StoppedError
                delete(self, [name])

        stopped = False
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorage, "delete", one_by_one)
            try:
                remove(memory)
            except StoppedError:
                stopped = True
        for name in memory._claims():  # of the killed remover: it would have to expire first
            memory.delete([name])
        if stopped and memory.size(GROUP) is not None:
            files = set(memory.sizes())
            entries = Manifest(memory, plan).entries
            assert len(entries) in (0, plan.n_shards)
            assert all(entry.sizes().keys() <= files for entry in entries.values())
            remove(memory)
        assert memory.sizes() == {}
        number += 1
    assert number > 12


def test_what_is_no_cache_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match="not an activation cache"):
        remove(tmp_path / "a")
    write_cache(tmp_path / "b", make_plan())
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match=r"files that do not belong to the cache \(notes.txt\)"):
        remove(tmp_path / "b")
    with pytest.raises(CacheError, match="not an activation cache"):
        remove(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert verify(tmp_path / "b") == []
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]


def test_removed_shards_are_captured_again(tmp_path: Path) -> None:
    plan, folder = make_plan(), tmp_path / "a"
    whole = contents(write_cache(folder, plan))
    remove_shards(folder, [0, 2])
    assert not list(folder.glob("*/c.[02].*"))
    with CacheWriter(folder, plan, make_clips(plan)) as writer:
        assert writer.missing() == [0, 2]
    write_cache(folder, plan)
    assert contents(folder) == whole
    with pytest.raises(UserError, match="has no shard 3; its shards are 0 to 2"):
        remove_shards(folder, [1, 3])
    assert contents(folder) == whole


@pytest.mark.parametrize("target", ["folder", "memory"])
def test_merged_parts_equal_what_one_writer_writes(tmp_path: Path, target: str) -> None:
    plan = make_plan()
    whole = contents(write_cache(tmp_path / "whole", plan))
    memory = memory_storage()
    parts = [write_cache(tmp_path / "a", plan, [2]), write_cache(memory, plan, [0, 2])]
    location = tmp_path / "merged" if target == "folder" else memory_storage()
    merge(parts, location)
    assert describe(location).committed == 2
    reports: list[tuple[int, int]] = []
    merge(
        [write_cache(tmp_path / "c", plan, [1])], location, lambda done, total: reports.append((done, total))
    )
    assert contents(location) == whole
    assert verify(location) == []
    shard_bytes = sum(plan.bytes_of([1]).values())
    assert reports == [(shard_bytes, shard_bytes)]


def test_a_cache_goes_to_an_object_store_to_another_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(zstd_level=2)
    whole = contents(write_cache(tmp_path / "a", plan))
    memory, other = memory_storage(), memory_storage()
    monkeypatch.setattr("cache.merge._PIECE_BYTES", 50)
    merge([tmp_path / "a"], memory)
    merge([memory], other)
    merge([other], tmp_path / "b")
    assert contents(memory) == contents(other) == contents(tmp_path / "b") == whole


def test_a_merge_stopped_anywhere_goes_on(tmp_path: Path) -> None:
    plan, number, stopped = make_plan(), 0, True
    whole = contents(write_cache(tmp_path / "whole", plan))
    parts = [write_cache(tmp_path / "a", plan, [0, 2]), write_cache(tmp_path / "b", plan, [1])]
    while stopped:
        folder = tmp_path / str(number)
        stopped = interrupted(LocalStorage(folder), number, functools.partial(merge, parts))
        if (folder / GROUP).exists():
            damage = {found.shard for found in verify(folder)}
            assert damage <= {None}, "what is committed is there"
        merge(parts, folder)
        assert contents(folder) == whole
        number += 1
    assert number > 15


def test_shards_that_differ_are_not_merged(tmp_path: Path) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, [0, 1])
    with CacheWriter(tmp_path / "b", plan, make_clips(plan)) as writer:
        writer.write_shard(1, {site: 2 * values for site, values in shard_values(plan, 1).items()})
    with pytest.raises(UserError, match=r"Shard 1 differs between .*a and .*b .in tf0.cross_attn, tf1.mlp"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(UserError, match=r"Shard 1 differs between .*a and .*b"):
        merge([tmp_path / "b"], tmp_path / "a")
    assert verify(tmp_path / "a") == []


def test_what_does_not_belong_together_is_not_merged(tmp_path: Path) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, [0])
    write_cache(tmp_path / "other", make_plan(tokens=3))
    with pytest.raises(UserError, match="differs from the first in tokens"):
        merge([tmp_path / "a", tmp_path / "other"], tmp_path / "merged")
    with pytest.raises(UserError, match="differs from the first in tokens"):
        merge([tmp_path / "a"], tmp_path / "other")
    CacheWriter(tmp_path / "clips", plan, make_clips(plan).assign(prompt="another")).close()
    with pytest.raises(UserError, match="must have the same clip table"):
        merge([tmp_path / "a", tmp_path / "clips"], tmp_path / "merged")
    with pytest.raises(UserError, match="must have the same clip table"):
        merge([tmp_path / "a"], tmp_path / "clips")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match="not an activation cache"):
        merge([tmp_path / "a"], tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="Nothing to merge"):
        merge([], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_damaged_source_is_not_merged(tmp_path: Path, how: str) -> None:
    plan = make_plan()
    whole = contents(write_cache(tmp_path / "a", plan))
    file = tmp_path / "a" / SHARD_FILE
    if how == "flipped":
        flip(file, 50)
    elif how == "cut":
        file.write_bytes(whole[SHARD_FILE][:-1])
    else:
        file.unlink()
    for target in (tmp_path / "merged", memory_storage()):
        with pytest.raises(CacheError, match=f"a/{SHARD_FILE} is missing or damaged. Run"):
            merge([tmp_path / "a"], target)
        assert 1 not in ActivationCache(target, allow_partial=True).manifest.entries
        assert verify(target) == []
    file.write_bytes(whole[SHARD_FILE])
    merge([tmp_path / "a"], tmp_path / "merged")
    assert contents(tmp_path / "merged") == whole


def test_a_full_disk_stops_a_merge_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan)
    put = LocalStorage.put

    def full(self: LocalStorage, name: str, pieces: Any, new: bool = False) -> None:
        if name == SHARD_FILE:
            raise OSError(28, "No space left on device")
        put(self, name, pieces, new)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "put", full)
        with pytest.raises(UserError, match=r"Cannot write .* .No space left on device.. Fix this"):
            merge([tmp_path / "a"], tmp_path / "b")
    assert 1 not in Manifest(LocalStorage(tmp_path / "b"), plan).entries
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda self: 0)
    with pytest.raises(UserError, match="has only 0 bytes free"):
        merge([tmp_path / "a"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_entries_hold_what_the_sources_measured(tmp_path: Path) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, [1])
    merge([tmp_path / "a"], tmp_path / "b")
    entry = (tmp_path / "b" / ENTRIES / "1.json").read_bytes()
    assert entry == (tmp_path / "a" / ENTRIES / "1.json").read_bytes()
    assert json.loads(entry)["files"]["tf1.mlp"]["max_error"] > 0


def test_the_clip_table_is_copied_as_it_is(tmp_path: Path) -> None:
    """Other versions of the libraries write other bytes for the same table."""
    plan = make_plan()
    write_cache(tmp_path / "a", plan)
    make_clips(plan).to_parquet(tmp_path / "a" / "clips.parquet", index=False, compression=None)
    merge([tmp_path / "a"], tmp_path / "b")
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
