"""Interrupted captures: killed writers, torn manifests, lost files. The finished folder is the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import ActivationCache, CacheError, CacheWriter
from tests.cache.helpers import make_clips, make_plan, make_values, shard_values, tree, write_cache

REPOSITORY = Path(__file__).parents[2]


def test_killed_at_any_point_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.cache.killed_writer", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # Each of 2 shards: 2 chunks and 2 indexes summed up, 2 files synced and 2 moved, 2 folders, 1 line.
    assert int(run.stdout) > 22


def test_a_second_process_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    plan = make_plan()
    code = (
        "import sys; from cache import CacheWriter; from tests.cache.helpers import make_clips, make_plan\n"
        "try: CacheWriter(sys.argv[1], make_plan(), make_clips(make_plan()))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print('opened')"
    )

    def second() -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "a")]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        refusal = second()
        writer.write_shard(0, shard_values(plan, 0))
    assert refusal.startswith("CacheError")
    assert "one writer at a time" in refusal
    assert second() == "opened\n"


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    plan = make_plan()
    first = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    with pytest.raises(CacheError, match="one writer at a time"):
        CacheWriter(tmp_path / "a", plan, make_clips(plan))
    first.close()
    assert CacheWriter(tmp_path / "a", plan, make_clips(plan)).missing() == [0, 1, 2]


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
    for length in range(0, len(content), 3):
        manifest.write_bytes(content[:length])
        there = ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries
        assert list(there) == list(range(sum(end <= length for end in ends)))
    for length in (0, ends[0] - 1, ends[1] + 10, len(content) - 1):
        manifest.write_bytes(content[:length])
        write_cache(tmp_path / "a", plan)
        assert tree(tmp_path / "a") == whole


def test_a_flipped_bit_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    write_cache(tmp_path / "a", make_plan())
    manifest = tmp_path / "a" / "manifest.jsonl"
    content = manifest.read_bytes()
    last_line = content[:-1].rindex(b"\n") + 1
    for place in range(0, len(content), 7):
        if content[place : place + 1] == b"\n":
            continue
        manifest.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if place >= last_line:
            assert list(ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries) == [0, 1]
        else:
            with pytest.raises(
                CacheError, match=r"manifest.jsonl is damaged in line [12] .* delete that line"
            ):
                ActivationCache(tmp_path / "a", allow_partial=True)


def test_a_lost_or_cut_shard_file_is_written_anew(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "a", plan))
    (tmp_path / "a" / "tf1.mlp" / "c.1.0.0.0.0").unlink()
    with (tmp_path / "a" / "tf0.cross_attn" / "c.0.0.0.0.0").open("r+b") as file:
        file.truncate(10)
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    assert writer.missing() == [0, 1]
    for shard in writer.missing():
        writer.write_shard(shard, shard_values(plan, shard))
    assert tree(tmp_path / "a") == whole


def test_staged_leftovers_are_removed_though_nothing_is_missing(tmp_path: Path) -> None:
    plan = make_plan()
    whole = tree(write_cache(tmp_path / "a", plan))
    (tmp_path / "a" / ".staging").mkdir()
    (tmp_path / "a" / ".staging" / "tf1.mlp").write_bytes(b"half a shard")
    write_cache(tmp_path / "a", plan)
    assert tree(tmp_path / "a") == whole


def test_a_failed_append_does_not_spoil_the_next(tmp_path: Path) -> None:
    plan = make_plan()
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    writer.write_shard(0, shard_values(plan, 0))
    with (tmp_path / "a" / "manifest.jsonl").open("ab") as file:
        file.write(b'{"shard":1,"cl')
    writer.write_shard(1, shard_values(plan, 1))
    writer.write_shard(2, shard_values(plan, 2))
    cache = ActivationCache(tmp_path / "a")
    assert cache.verify() == []
    np.testing.assert_array_equal(
        cache.read("tf1.mlp"), make_values(plan, "tf1.mlp").astype(np.float16).astype(np.float32)
    )
