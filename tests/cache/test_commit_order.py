"""What is synced and moved in which order: a power cut must not leave a manifest line without its files."""

import os
from pathlib import Path
from typing import Any

import pytest

from cache import CacheWriter
from tests.cache.helpers import make_clips, make_plan, shard_values


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each sync and each move below tmp_path / "a", in order."""
    happened: list[str] = []
    replace = os.replace

    def name(path: Any) -> str:
        return str(Path(path).relative_to(tmp_path))

    def note_fsync(descriptor: int) -> None:
        happened.append(f"sync {name(os.readlink(f'/proc/self/fd/{descriptor}'))}")

    def note_replace(source: Any, target: Any) -> None:
        happened.append(f"move {name(source)} to {name(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    return happened


def test_a_shard_is_synced_then_moved_then_entered(tmp_path: Path, events: list[str]) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        events.clear()
        writer.write_shard(0, shard_values(plan, 0))
    assert events == [
        "sync a/.staging/tf0.cross_attn",
        "sync a/.staging/tf1.mlp",
        "move a/.staging/tf0.cross_attn to a/tf0.cross_attn/c.0.0.0.0.0",
        "move a/.staging/tf1.mlp to a/tf1.mlp/c.0.0.0.0.0",
        "sync a/tf0.cross_attn",
        "sync a/tf1.mlp",
        "sync a/manifest.jsonl",
    ]


def test_the_group_is_created_last(tmp_path: Path, events: list[str]) -> None:
    plan = make_plan()
    CacheWriter(tmp_path / "a", plan, make_clips(plan)).close()
    moves = [
        index for index, event in enumerate(events) if " to a/" in event and " to a/.staging" not in event
    ]
    group = events.index("move a/.staging/zarr.json to a/zarr.json")
    assert group == moves[-1]
    assert events[group - 1] == events[group + 1] == "sync a"
    synced_first = {event for event in events[: moves[0]] if event.startswith("sync a/.staging/")}
    for moved in (
        "clips.parquet",
        "calls.parquet",
        "manifest.jsonl",
        "zarr.json",
        "tf1.mlp",
        "tf1.mlp/zarr.json",
    ):
        assert f"sync a/.staging/{moved}" in synced_first
