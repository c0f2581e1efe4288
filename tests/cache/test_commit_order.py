"""What is stored, synced and moved in which order: no power cut loses a shard or names one that is not there."""

import os
from pathlib import Path

import pytest

from cache import CachePlan, CacheWriter
from cache.local_storage import LocalStorage
from cache.object_storage import memory_storage
from tests.cache.faults import Image, Interrupted, Killed, RecordedDisk, restore, survey, write_missing
from tests.cache.helpers import make_clips, make_plan, shard_values, tree, write_cache

PLAN = make_plan(n_clips=3)


def check_power_cuts(disk: RecordedDisk, plan: CachePlan, tmp_path: Path, in_flight: int) -> int:
    """Resume what each power cut may have left; how many different things there are."""
    whole = tree(write_cache(tmp_path / "whole", plan))
    seen: list[tuple[frozenset[int], Image]] = []
    for number, (acknowledged, image) in enumerate(disk.cuts):
        if (acknowledged, image) in seen:
            continue
        seen.append((acknowledged, image))
        folder = tmp_path / f"cut {number}"
        restore(image, folder)
        assert survey(folder / "a", plan).faults(acknowledged, in_flight) == [], disk.events
        assert tree(write_cache(folder / "a", plan)) == whole
    return len(seen)


def test_power_cuts_of_one_writer(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(tmp_path / "disk", patch)
        with CacheWriter(tmp_path / "disk" / "a", PLAN, make_clips(PLAN)) as writer:
            for shard in writer.missing():
                writer.write_shard(shard, shard_values(PLAN, shard))
                disk.acknowledged.add(shard)
    assert check_power_cuts(disk, PLAN, tmp_path, in_flight=1) > 100


def test_power_cuts_of_two_writers_and_a_second_attempt(tmp_path: Path) -> None:
    plan = make_plan(n_clips=4, clips_per_shard=1, sites={"tf1.mlp": 5})
    folder = tmp_path / "disk" / "a"
    write_cache(folder, plan, shards=(1, 1))
    (folder / "tf1.mlp" / "c.1.0.0.0.0").write_bytes(b"cut off")
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(tmp_path / "disk", patch, seed=1)
        with (
            CacheWriter(folder, plan, make_clips(plan), (0, 1)) as first,
            CacheWriter(folder, plan, make_clips(plan), (2, 3)) as second,
        ):
            for shard, writer in enumerate((first, first, second, second)):
                writer.write_shard(shard, shard_values(plan, shard))
                disk.acknowledged.add(shard)
    disk.cuts = [(acknowledged, image) for acknowledged, image in disk.cuts if acknowledged]
    assert check_power_cuts(disk, plan, tmp_path, in_flight=1) > 40


def test_a_power_cut_after_a_kill_between_making_a_folder_and_syncing_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    folder = tmp_path / "disk" / "a"
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(tmp_path / "disk", patch)
        fsync = os.fsync

        def killed_fsync(descriptor: int) -> None:
            if disk.events[-1] == "mkdir a/manifest":
                raise Killed
            fsync(descriptor)

        patch.setattr(os, "fsync", killed_fsync)
        interrupted = Interrupted(LocalStorage(folder))
        with pytest.raises(Killed):
            write_missing(interrupted, PLAN, disk.acknowledged.add)
        interrupted.bury()
        patch.setattr(os, "fsync", fsync)
        write_missing(folder, PLAN, disk.acknowledged.add)
    disk.cuts = [(acknowledged, image) for acknowledged, image in disk.cuts if acknowledged]
    assert check_power_cuts(disk, PLAN, tmp_path, in_flight=1) > 20


def test_a_file_is_synced_before_it_is_moved_and_its_folder_afterwards(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(tmp_path, patch)
        with CacheWriter(tmp_path / "a", PLAN, make_clips(PLAN)) as writer:
            disk.events.clear()
            writer.write_shard(0, shard_values(PLAN, 0))
    events = [event.split("~")[0] if ".staging" in event else event for event in disk.events]
    assert events.index("sync a/.staging/manifest") < events.index("replace a/.staging/manifest")
    for site in PLAN.sites:
        staged = f"a/.staging/{site}"
        order = [f"sync {staged}", f"replace {staged}", f"sync a/{site}", "sync a/.staging/manifest"]
        places = [events.index(event) for event in order]
        assert places == sorted(places)
    assert events.index("replace a/.staging/manifest") < events.index("sync a/manifest")


def test_the_plan_comes_first_and_an_entry_after_its_files() -> None:
    storage = Interrupted(memory_storage())
    write_cache(storage, PLAN)
    stored = [entry.removeprefix("put ") for entry in storage.log if entry.startswith("put ")]
    assert stored[0] == "zarr.json"
    for shard in range(PLAN.n_shards):
        entry = stored.index(f"manifest/{shard}.json")
        assert {f"{site}/c.{shard}.0.0.0.0" for site in PLAN.sites} <= set(stored[:entry])
        assert storage.log[storage.log.index(f"put manifest/{shard}.json") - 1] == "check"
    settled = storage.log.index("put manifest.jsonl")
    assert storage.log.index("delete manifest/0.json manifest/1.json") > settled
