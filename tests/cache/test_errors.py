"""What goes wrong is said in one sentence that names the file or value and the way out."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cache.writer
from cache import ActivationCache, CacheError, CacheWriter, UserError
from tests.cache.helpers import make_clips, make_plan, shard_values, tree, write_cache

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "a", make_plan())


# Opening


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="nowhere does not exist"):
        ActivationCache(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"attributes": {"protocol": "other"}}'])
def test_not_a_cache(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(CacheError, match=r"is not an activation cache|does not describe an activation cache"):
        ActivationCache(tmp_path)


def test_a_creation_that_was_interrupted(written: Path) -> None:
    (written / "zarr.json").unlink()
    (written / "manifest.jsonl").write_bytes(b"")
    with pytest.raises(CacheError, match="half-written, its creation was interrupted: capture again"):
        ActivationCache(written)
    other = make_plan(sites={"tf2.mlp": 2})
    CacheWriter(written, other, make_clips(other)).close()
    assert not (written / "tf1.mlp").exists()


def test_a_lost_description_does_not_cost_the_shards(written: Path) -> None:
    (written / "zarr.json").unlink()
    before = tree(written)
    with pytest.raises(CacheError, match=r"zarr.json is missing: restore it from a copy"):
        ActivationCache(written)
    with pytest.raises(CacheError, match=r"zarr.json is missing: restore it from a copy"):
        CacheWriter(written, make_plan(), make_clips(make_plan()))
    assert tree(written) == before


def change_attributes(folder: Path, **changes: Any) -> None:
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"] |= changes
    (folder / "zarr.json").write_text(json.dumps(metadata))


def test_another_version(written: Path) -> None:
    change_attributes(written, version=2)
    with pytest.raises(CacheError, match=r"version 2, this program reads activation-cache version 1"):
        ActivationCache(written)
    with pytest.raises(CacheError, match="version 2"):
        CacheWriter(written, make_plan(), make_clips(make_plan()))


def test_a_damaged_plan(written: Path) -> None:
    for plan in (make_plan(tokens=3).model_dump(mode="json"), {"sites": 3}, None):
        change_attributes(written, plan=plan)
        with pytest.raises(CacheError, match=r"zarr.json is damaged \(the plan does not fit its hash\)"):
            ActivationCache(written)


def test_half_written(tmp_path: Path) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, order=[0])
    with pytest.raises(CacheError, match=r"2 of 3 shards are missing \(the first is 1\).*allow_partial"):
        ActivationCache(tmp_path / "a")
    partial = ActivationCache(tmp_path / "a", allow_partial=True)
    assert partial.read("tf1.mlp", clips=[0, 1]).shape == (2, 3, 2, 4, 5)
    for read in (
        lambda: partial.read("tf1.mlp", clips=[1, 2]),
        lambda: partial.read("tf1.mlp"),
        lambda: partial.dataset("tf1.mlp")[4].values,
    ):
        with pytest.raises(CacheError, match=r"shard [12] of .* is not written yet"):
            read()


def test_a_shard_file_without_its_manifest_line_is_not_read(written: Path) -> None:
    manifest = written / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:2]))
    assert (written / "tf1.mlp" / "c.2.0.0.0.0").exists()
    with pytest.raises(CacheError, match=r"shard 2 of .* \(clips 4 to 4\) is not written yet"):
        ActivationCache(written, allow_partial=True).read("tf1.mlp", clips=[4])
    assert CacheWriter(written, make_plan(), make_clips(make_plan())).missing() == [2]
    assert not list(written.glob("*/c.2.*"))


def test_a_missing_manifest(written: Path) -> None:
    (written / "manifest.jsonl").unlink()
    with pytest.raises(CacheError, match=r"manifest.jsonl is missing: restore it"):
        ActivationCache(written)


@pytest.mark.parametrize("name", ["clips.parquet", "calls.parquet"])
def test_a_damaged_table(written: Path, name: str) -> None:
    for damage in (lambda path: path.write_bytes(b"PAR1"), lambda path: path.unlink()):
        damage(written / name)
        with pytest.raises(CacheError, match=f"{name} cannot be read .* restore it from a copy"):
            getattr(ActivationCache(written), name.split(".")[0])


# Shards


def test_a_missing_or_cut_shard_file(written: Path) -> None:
    file = written / "tf1.mlp" / "c.1.0.0.0.0"
    size = file.stat().st_size
    opened = ActivationCache(written)
    for damage in (lambda: file.write_bytes(file.read_bytes()[:-1]), file.unlink):
        damage()
        with pytest.raises(CacheError, match=rf"c.1.0.0.0.0 \(clips 2 to 3\) is missing or not {size} bytes"):
            opened.read("tf1.mlp", clips=[2])
        assert opened.verify() == ["tf1.mlp/c.1.0.0.0.0"]
        assert opened.read("tf1.mlp", clips=[0, 4]).shape[0] == 2


def test_verify_names_the_file_with_a_flipped_bit(written: Path) -> None:
    for name in ("tf0.cross_attn/c.2.0.0.0.0", "tf1.mlp/c.0.0.0.0.0"):
        content = (written / name).read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            (written / name).write_bytes(
                content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
            )
            assert ActivationCache(written).verify() == [name]
        (written / name).write_bytes(content)
    assert ActivationCache(written).verify() == []


def test_a_damaged_index_is_an_error_not_other_values(written: Path) -> None:
    file = written / "tf1.mlp" / "c.1.0.0.0.0"
    content = file.read_bytes()
    file.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    with pytest.raises(CacheError, match=r"tf1.mlp cannot be read .* verify\(\), delete their files"):
        ActivationCache(written).read("tf1.mlp", clips=[2])


@pytest.mark.parametrize("content", [None, "", "{}", '{"shape": [1]}'])
def test_damaged_array_metadata(written: Path, content: str | None) -> None:
    file = written / "tf1.mlp" / "zarr.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(CacheError, match=r"tf1.mlp/zarr.json is missing or damaged"):
        ActivationCache(written).read("tf1.mlp")


def test_array_metadata_of_another_shape(written: Path) -> None:
    shutil.copy(written / "tf0.cross_attn" / "zarr.json", written / "tf1.mlp" / "zarr.json")
    with pytest.raises(CacheError, match=r"tf1.mlp/zarr.json is missing or damaged"):
        ActivationCache(written).read("tf1.mlp")


# Labels


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"site": "tf9.mlp"}, "no site 'tf9.mlp': it has tf0.cross_attn, tf1.mlp"),
        ({"site": "tf1.mlp", "clips": [5]}, "no clip 5: it has 0 to 4"),
        ({"site": "tf1.mlp", "clips": [-1]}, "no clip -1"),
        ({"site": "tf1.mlp", "steps": [0, 1]}, "no step 1: it has 0, 7, 21"),
        ({"site": "tf1.mlp", "passes": ["both"]}, "no pass 'both': it has cond, null"),
    ],
)
def test_unknown_labels(written: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ActivationCache(written).read(**arguments)


# Writing


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": 8}, r"differs in tokens \(tokens: 4 there, 8 given\)"),
        ({"steps": (0, 7, 22), "dtype": "float32"}, r"differs in steps, dtype \(steps: \[0,7,21\] there"),
        (
            {"identity": {"model": "other"}},
            r"differs in identity \(identity: {\"model\":\"made up\",\"seed\":3}",
        ),
    ],
)
def test_another_plan(written: Path, changes: dict[str, Any], sentence: str) -> None:
    before = tree(written)
    plan = make_plan(**changes)
    with pytest.raises(UserError, match=sentence):
        CacheWriter(written, plan, make_clips(plan))
    assert tree(written) == before
    assert CacheWriter(written, make_plan(), make_clips(make_plan())).missing() == []


def test_another_clip_table(written: Path) -> None:
    clips = make_clips(make_plan())
    clips.loc[2, "prompt"] = "a slow song"
    with pytest.raises(UserError, match=r"clips.parquet is another clip table than the one given"):
        CacheWriter(written, make_plan(), clips)


@pytest.mark.parametrize(
    "clips",
    [
        pd.DataFrame({"prompt": list("abcde")}),
        pd.DataFrame({"clip": [0, 1, 2, 3]}),
        pd.DataFrame({"clip": [1, 2, 3, 4, 5]}),
        pd.DataFrame({"clip": [0.0, 1.0, 2.0, 3.0, 4.0]}),
    ],
)
def test_a_clip_table_that_does_not_fit(tmp_path: Path, clips: pd.DataFrame) -> None:
    with pytest.raises(
        UserError, match="one row for each of the plan's 5 clips and an integer column 'clip'"
    ):
        CacheWriter(tmp_path / "a", make_plan(), clips)
    assert not (tmp_path / "a").exists()


def test_a_clip_table_that_parquet_cannot_hold(tmp_path: Path) -> None:
    clips = make_clips(make_plan()).assign(mixed=[1, "a", None, 2.5, ()])
    with pytest.raises(UserError, match="the clip table cannot be stored as parquet"):
        CacheWriter(tmp_path / "a", make_plan(), clips)
    assert CacheWriter(tmp_path / "a", make_plan(), make_clips(make_plan())).missing() == [0, 1, 2]


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(CacheError, match=r"is not an activation cache .* or a new one to write"):
        CacheWriter(tmp_path, make_plan(), make_clips(make_plan()))
    with pytest.raises(CacheError, match=r"thesis.txt is a file: give a folder"):
        CacheWriter(tmp_path / "thesis.txt", make_plan(), make_clips(make_plan()))
    assert tree(tmp_path) == {"thesis.txt": b"chapter 1"}


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    needed = plan.total_bytes() + 64 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed - 1))
    with pytest.raises(UserError, match=f"needs {needed} bytes and its disk has {needed - 1} bytes free"):
        CacheWriter(tmp_path / "deep" / "a", plan, make_clips(plan))
    assert tree(tmp_path) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed))
    assert CacheWriter(tmp_path / "deep" / "a", plan, make_clips(plan)).missing() == [0, 1, 2]


def test_resuming_needs_room_for_what_is_missing_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    write_cache(tmp_path / "a", plan, order=[0, 1])
    needed = sum(plan.bytes_of([2]).values()) + 64 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed - 1))
    with pytest.raises(UserError, match=f"needs {needed} bytes"):
        CacheWriter(tmp_path / "a", plan, make_clips(plan))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed))
    assert CacheWriter(tmp_path / "a", plan, make_clips(plan)).missing() == [2]


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.writer, "write_shard_file", full)
        with pytest.raises(UserError, match=r"the disk of .* is full: make room .* goes on with shard 0"):
            writer.write_shard(0, shard_values(plan, 0))
    assert not (tmp_path / "a" / ".staging").exists()
    writer.write_shard(0, shard_values(plan, 0))
    assert writer.missing() == [1, 2]


def with_value(shard: int, value: float) -> dict[str, Any]:
    values = shard_values(make_plan(), shard)
    values["tf1.mlp"][0, 1, 0, 2, 3] = value
    return values


def without(shard: int, site: str) -> dict[str, Any]:
    return {name: values for name, values in shard_values(make_plan(), shard).items() if name != site}


@pytest.mark.parametrize(
    ("shard", "arrays", "sentence"),
    [
        (0, with_value(0, 7e4), "site tf1.mlp of shard 0 .* 7e.04 does not fit float16.*bfloat16 or float32"),
        (0, with_value(0, np.nan), "site tf1.mlp of shard 0 cannot be stored: the values contain NaN"),
        (0, with_value(0, np.inf), "site tf1.mlp of shard 0 cannot be stored: the values contain infinity"),
        (
            0,
            shard_values(make_plan(), 2),
            r"has the shape \(1, 3, 2, 4, 3\), it must be .* = \(2, 3, 2, 4, 3\)",
        ),
        (0, without(0, "tf1.mlp"), "was given the sites .'tf0.cross_attn'., give exactly those of the plan"),
        (0, shard_values(make_plan(), 0) | {"tf2.mlp": np.zeros(1)}, "give exactly those of the plan"),
        (
            3,
            shard_values(make_plan(), 0),
            r"shard 3 .* not planned: give one of the missing ones: \[0, 1, 2\]",
        ),
        (-1, shard_values(make_plan(), 0), "not planned"),
        (0, {s: np.zeros((2, 3, 2, 4, c), int) for s, c in make_plan().sites.items()}, "numbers, not int64"),
        (0, {s: np.zeros((2, 3, 2, 4, c)).tolist() for s, c in make_plan().sites.items()}, "not list"),
    ],
)
def test_values_that_cannot_be_written(
    tmp_path: Path, shard: int, arrays: dict[str, Any], sentence: str
) -> None:
    plan = make_plan()
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    before = tree(tmp_path)
    with pytest.raises(UserError, match=sentence):
        writer.write_shard(shard, arrays)
    assert tree(tmp_path) == before
    assert writer.missing() == [0, 1, 2]


def test_a_shard_is_written_once(written: Path) -> None:
    writer = CacheWriter(written, make_plan(), make_clips(make_plan()))
    with pytest.raises(UserError, match=r"shard 1 .* is written already"):
        writer.write_shard(1, shard_values(make_plan(), 1))


def test_a_closed_writer(tmp_path: Path) -> None:
    plan = make_plan()
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    writer.close()
    with pytest.raises(UserError, match=r"the writer of .* is closed"):
        writer.write_shard(0, shard_values(plan, 0))
