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

import cache.local_storage
from cache import ActivationCache, CacheError, CacheWriter, UserError
from tests.cache.helpers import make_clips, make_plan, shard_values, tree, write_cache

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "a", make_plan())


# Opening


def test_nothing_there(tmp_path: Path) -> None:
    for location in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            CacheError, match=rf"^{location} is not an activation cache \(no zarr.json\). Give the"
        ):
            ActivationCache(location)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"attributes": {"protocol": "other"}}', "\u00ff"])
def test_a_group_of_something_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "zarr.json").write_text(content, encoding="latin-1")
    for opened in (ActivationCache, lambda path: CacheWriter(path, make_plan(), make_clips(make_plan()))):
        with pytest.raises(CacheError, match=r"zarr.json does not describe an activation cache"):
            opened(tmp_path)


def test_a_lost_description_does_not_cost_the_shards(written: Path) -> None:
    (written / "zarr.json").unlink()
    before = tree(written)
    with pytest.raises(CacheError, match=r"zarr.json is missing. Restore it from a copy"):
        ActivationCache(written)
    with pytest.raises(CacheError, match=r"zarr.json is missing. Restore it from a copy"):
        CacheWriter(written, make_plan(), make_clips(make_plan()))
    assert tree(written) == before


def change_attributes(folder: Path, **changes: Any) -> None:
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"] |= changes
    (folder / "zarr.json").write_text(json.dumps(metadata))


def test_another_version(written: Path) -> None:
    for changes in ({"version": 1}, {"version": 3}, {"protocol": "other"}):
        change_attributes(written, **({"protocol": "activation-cache", "version": 2} | changes))
        for opened in (ActivationCache, lambda path: CacheWriter(path, make_plan(), make_clips(make_plan()))):
            with pytest.raises(
                CacheError, match=r"has .* version \d, but this program reads activation-cache version 2. Use"
            ):
                opened(written)


def test_a_damaged_hash_of_the_clip_table_is_damage_of_the_group(written: Path) -> None:
    change_attributes(written, clips_hash="0" * 64)
    with pytest.raises(CacheError, match=r"zarr.json is damaged"):
        ActivationCache(written)


def test_a_damaged_plan(written: Path) -> None:
    for plan, problem in (
        (make_plan(tokens=3).model_dump(mode="json"), "its attributes do not match their checksums"),
        ({"sites": 3}, "its plan has no valid sites"),
        (None, "it has no plan"),
    ):
        change_attributes(written, plan=plan)
        with pytest.raises(CacheError, match=rf"zarr.json is damaged \({problem}\)"):
            ActivationCache(written)
        with pytest.raises(CacheError, match=r"zarr.json is damaged"):
            CacheWriter(written, make_plan(), make_clips(make_plan()))


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
        with pytest.raises(CacheError, match=r"Shard [12] of .* is not written yet"):
            read()


def test_a_shard_file_without_its_manifest_line_is_not_read(written: Path) -> None:
    manifest = written / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:2]))
    assert (written / "tf1.mlp" / "c.2.0.0.0.0").exists()
    with pytest.raises(CacheError, match=r"Shard 2 of .* \(clips 4 to 4\) is not written yet"):
        ActivationCache(written, allow_partial=True).read("tf1.mlp", clips=[4])
    with CacheWriter(written, make_plan(), make_clips(make_plan())) as writer:
        assert writer.missing() == [2]
    assert not list(written.glob("*/c.2.*"))


def test_a_missing_manifest_is_one_without_lines(written: Path) -> None:
    (written / "manifest.jsonl").unlink()
    with pytest.raises(CacheError, match=r"half-written: 3 of 3 shards are missing"):
        ActivationCache(written)


def damage(file: Path) -> None:
    """Change a digit of its checksum."""
    content = file.read_bytes()
    place = content.index(b'"xxh3":"') + 9
    file.write_bytes(
        content[:place] + (b"1" if content[place : place + 1] == b"0" else b"0") + content[place + 1 :]
    )


def test_an_invalid_line_of_the_manifest_is_named_and_costs_its_shard(written: Path) -> None:
    before = tree(written)
    damage(written / "manifest.jsonl")
    with pytest.raises(
        CacheError, match=r"1 of 3 shards .*damaged in the manifest: manifest.jsonl line 1 \(checksum"
    ):
        ActivationCache(written)
    with pytest.raises(CacheError, match=r"Shard 0 of .* is not written yet"):
        ActivationCache(written, allow_partial=True).read("tf1.mlp", clips=[0])
    assert tree(write_cache(written, make_plan())) == before


def test_an_invalid_entry_of_a_half_written_cache(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "a", make_plan(), order=[0, 1])
    damage(folder / "manifest" / "1.json")
    with pytest.raises(
        CacheError, match=r"2 of 3 .*damaged in the manifest: manifest/1.json \(checksum mismatch\)"
    ):
        ActivationCache(folder)
    assert list(ActivationCache(folder, allow_partial=True).manifest.entries) == [0]
    assert tree(write_cache(folder, make_plan())) == tree(write_cache(tmp_path / "whole", make_plan()))


@pytest.mark.parametrize("name", ["clips.parquet", "calls.parquet"])
def test_a_damaged_table(written: Path, name: str) -> None:
    before = tree(written)
    for damage_it in (lambda path: path.write_bytes(b"PAR1"), lambda path: path.unlink()):
        damage_it(written / name)
        with pytest.raises(CacheError, match=f"{name} is missing or damaged .*Delete it and capture again"):
            getattr(ActivationCache(written), name.split(".")[0])
        assert ActivationCache(written).read("tf1.mlp").shape[0] == 5
    CacheWriter(written, make_plan(), make_clips(make_plan())).close()
    assert tree(written) == before


@pytest.mark.parametrize("name", ["clips.parquet", "calls.parquet"])
def test_a_damaged_table_is_refused_by_readers_and_mended_by_the_writer(written: Path, name: str) -> None:
    before = tree(written)
    (written / name).write_bytes(b"PAR1")
    with pytest.raises(CacheError, match=rf"{name} is missing or damaged"):
        getattr(ActivationCache(written), name.partition(".")[0])
    CacheWriter(written, make_plan(), make_clips(make_plan())).close()
    assert tree(written) == before


def test_a_table_with_other_values_is_refused(written: Path) -> None:
    clips = make_clips(make_plan())
    clips.loc[2, "prompt"] = "a slow song"
    clips.to_parquet(written / "clips.parquet", index=False)
    with pytest.raises(CacheError, match="its values have changed"):
        _ = ActivationCache(written).clips


def test_arrays_without_metadata_are_read_and_described_anew(written: Path) -> None:
    before = tree(written)
    (written / "tf1.mlp" / "zarr.json").unlink()
    assert ActivationCache(written).read("tf1.mlp").shape == (5, 3, 2, 4, 5)
    CacheWriter(written, make_plan(), make_clips(make_plan())).close()
    assert tree(written) == before


# Shards


def test_a_missing_or_cut_shard_file(written: Path) -> None:
    file = written / "tf1.mlp" / "c.1.0.0.0.0"
    size = file.stat().st_size
    opened = ActivationCache(written)
    for lose in (lambda: file.write_bytes(file.read_bytes()[:-1]), file.unlink):
        lose()
        with pytest.raises(
            CacheError, match=rf"c.1.0.0.0.0 \(clips 2 to 3\) is missing or does not have {size} bytes"
        ):
            opened.read("tf1.mlp", clips=[2])
        assert opened.read("tf1.mlp", clips=[0, 4]).shape[0] == 2


@pytest.mark.parametrize("place", [0, 100, -30, -24, -5, -1])
def test_a_damaged_chunk_or_index_is_an_error_that_names_the_file(written: Path, place: int) -> None:
    file = written / "tf1.mlp" / "c.1.0.0.0.0"
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)
    with pytest.raises(
        CacheError,
        match=r"tf1.mlp/c.1.0.0.0.0 \(clips 2 to 3\) is damaged \(its checksum is not the one in the manifest\). "
        "Run `workbench cache verify --repair` on the cache, then capture again",
    ):
        ActivationCache(written).read("tf1.mlp", clips=[2])
    assert ActivationCache(written).read("tf1.mlp", clips=[0, 1, 4]).shape[0] == 3
    assert ActivationCache(written).read("tf0.cross_attn").shape[0] == 5


# Labels


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"site": "tf9.mlp"}, "no site 'tf9.mlp'; it has tf0.cross_attn, tf1.mlp"),
        ({"site": "tf1.mlp", "clips": [5]}, "no clip 5; it has 0 to 4"),
        ({"site": "tf1.mlp", "clips": [-1]}, "no clip -1"),
        ({"site": "tf1.mlp", "steps": [0, 1]}, "no step 1; it has 0, 7, 21"),
        ({"site": "tf1.mlp", "passes": ["both"]}, "no pass 'both'; it has cond, null"),
        ({"site": "tf1.mlp", "concepts": {"key": "C"}}, "no concept 'key'; it has mood"),
        ({"site": "tf1.mlp", "concepts": {"mood": "angry"}}, "no clip with mood=angry; it has sad, happy"),
        (
            {"site": "tf1.mlp", "sigmas": (0.2, 0.5)},
            "no step with a sigma from 0.2 to 0.5; it has 1, 0.6, 0.1",
        ),
        ({"site": "tf1.mlp", "seconds": (1.0, 2.0)}, "no token from 1 to 2 s; its clips are 0.16 s long"),
    ],
)
def test_unknown_labels(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    plan = make_plan()
    moods = make_clips(plan).assign(label_mood=["sad", "happy"] * 2 + ["sad"])
    with CacheWriter(tmp_path / "a", plan, moods) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(plan, shard))
    with pytest.raises(UserError, match=sentence):
        ActivationCache(tmp_path / "a").read(**arguments)


def test_a_concept_of_a_table_without_labels(written: Path) -> None:
    with pytest.raises(UserError, match="no concept 'mood'; it has none"):
        ActivationCache(written).read("tf1.mlp", concepts={"mood": "sad"})


# Writing


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": 8}, r"differs in tokens \(tokens: 4 there, 8 given\)"),
        (
            {"steps": (0, 7, 22), "dtypes": "float32"},
            r"differs in dtypes, steps \(dtypes: {\"tf0.cross_attn\":\"float16\",.*} there, .*\"float32\".* given\)",
        ),
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
    with pytest.raises(UserError, match=r"has a different clip table"):
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
    with pytest.raises(UserError, match="The clip table cannot be stored as parquet"):
        CacheWriter(tmp_path / "a", make_plan(), clips)
    assert CacheWriter(tmp_path / "a", make_plan(), make_clips(make_plan())).missing() == [0, 1, 2]


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(CacheError, match=r"is not an activation cache .* or a new folder"):
        CacheWriter(tmp_path, make_plan(), make_clips(make_plan()))
    with pytest.raises(CacheError, match=r"thesis.txt is a file. Give a folder"):
        CacheWriter(tmp_path / "thesis.txt", make_plan(), make_clips(make_plan()))
    assert tree(tmp_path) == {"thesis.txt": b"chapter 1"}


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    needed = plan.total_bytes() + 64 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed - 1))
    with pytest.raises(
        UserError, match=f"needs {needed} bytes, but its disk has only {needed - 1} bytes free"
    ):
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


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, r"The disk of .* is full.* resumes with shard 1"),
        (errno.EDQUOT, r"The disk of .* is full"),
        (errno.EIO, r"Cannot write shard 1 of .* \(Input/output error\). Fix this and capture"),
        (errno.EROFS, r"Cannot write shard 1 of .* \(Read-only file system\)"),
    ],
)
def test_a_disk_that_fails_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    plan = make_plan()

    def fails(*_: Any) -> None:
        raise OSError(number, "as the operating system says it")

    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        writer.write_shard(0, shard_values(plan, 0))
        before = tree(tmp_path / "a")
        with monkeypatch.context() as patch:
            patch.setattr(cache.local_storage, "_write_all", fails)
            with pytest.raises(UserError, match=sentence):
                writer.write_shard(1, shard_values(plan, 1))
        assert tree(tmp_path / "a") == before
        writer.write_shard(1, shard_values(plan, 1))
        assert writer.missing() == [2]


def with_value(shard: int, value: float) -> dict[str, Any]:
    values = shard_values(make_plan(), shard)
    values["tf1.mlp"][0, 1, 0, 2, 3] = value
    return values


def without(shard: int, site: str) -> dict[str, Any]:
    return {name: values for name, values in shard_values(make_plan(), shard).items() if name != site}


@pytest.mark.parametrize(
    ("shard", "arrays", "sentence"),
    [
        (
            0,
            with_value(0, 7e4),
            "Cannot store site tf1.mlp of shard 0: .* 7e.04 exceeds the largest of float16.*bfloat16 or float32",
        ),
        (
            0,
            with_value(0, np.nan),
            "Cannot store site tf1.mlp of shard 0: the values must be finite, but contain NaN",
        ),
        (
            0,
            with_value(0, np.inf),
            "Cannot store site tf1.mlp of shard 0: the values must be finite, but contain infinity",
        ),
        (
            0,
            shard_values(make_plan(), 2),
            r"must have the shape .* = \(2, 3, 2, 4, 3\); got \(1, 3, 2, 4, 3\)",
        ),
        (0, without(0, "tf1.mlp"), "must have exactly the planned sites .*; got .'tf0.cross_attn'."),
        (0, shard_values(make_plan(), 0) | {"tf2.mlp": np.zeros(1)}, "must have exactly the planned sites"),
        (
            3,
            shard_values(make_plan(), 0),
            r"Shard 3 .* already written or belongs to another writer.* \[0, 1, 2\]",
        ),
        (-1, shard_values(make_plan(), 0), "belongs to another writer"),
        (0, {s: np.zeros((2, 3, 2, 4, c), int) for s, c in make_plan().sites.items()}, "numbers; got int64"),
        (
            0,
            {s: np.zeros((2, 3, 2, 4, c), object) for s, c in make_plan().sites.items()},
            "numbers; got object",
        ),
        (
            0,
            {s: np.zeros((2, 3, 2, 4, c), complex) for s, c in make_plan().sites.items()},
            "numbers; got complex",
        ),
        (0, {s: np.zeros((2, 3, 2, 4, c)).tolist() for s, c in make_plan().sites.items()}, "got list"),
    ],
)
def test_values_that_cannot_be_written(
    tmp_path: Path, shard: int, arrays: dict[str, Any], sentence: str
) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        with pytest.raises(UserError, match=sentence):
            writer.write_shard(shard, arrays)
        assert writer.missing() == [0, 1, 2]
        assert not ActivationCache(tmp_path / "a", allow_partial=True).manifest.entries
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(plan, shard))
    assert tree(tmp_path / "a") == tree(write_cache(tmp_path / "whole", plan))


def test_a_shard_is_written_once(written: Path) -> None:
    writer = CacheWriter(written, make_plan(), make_clips(make_plan()))
    with pytest.raises(UserError, match=r"Shard 1 .* is already written"):
        writer.write_shard(1, shard_values(make_plan(), 1))


def test_a_closed_writer(tmp_path: Path) -> None:
    plan = make_plan()
    writer = CacheWriter(tmp_path / "a", plan, make_clips(plan))
    writer.close()
    with pytest.raises(UserError, match=r"The writer of .* is closed"):
        writer.write_shard(0, shard_values(plan, 0))
