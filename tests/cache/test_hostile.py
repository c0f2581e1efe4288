"""Caches that somebody made to do harm: nothing outside is touched, no wrong number is read, memory is bounded."""

import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from crc32c import crc32c

from cache import ActivationCache, CacheError, CacheWriter, UserError, metadata, tables
from cache.export import export
from cache.local_storage import LocalStorage
from cache.maintenance import describe, find, remove, remove_shards, repair, verify
from cache.merge import merge
from cache.object_storage import memory_storage
from cache.opening import UnsafeFile
from cache.protocol import canonical_json
from tests.cache.helpers import make_clips, make_plan, shard_values, tree, write_cache

PLAN = make_plan()
SITE = "tf1.mlp"
SHARD = f"{SITE}/c.1.0.0.0.0"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished caches, of which each test gets copies."""
    folder = tmp_path_factory.mktemp("written")
    write_cache(folder / "cache.zarr", PLAN)
    plan = make_plan(identity={"model": "another"})
    with CacheWriter(folder / "victim.zarr", plan, make_clips(plan)) as writer:
        for shard in writer.missing():
            values = {site: 1 + array for site, array in shard_values(plan, shard).items()}
            writer.write_shard(shard, values)
    return folder


@pytest.fixture
def cache(written: Path, tmp_path: Path) -> Path:
    """A finished cache."""
    return shutil.copytree(written / "cache.zarr", tmp_path / "cache.zarr")


@pytest.fixture
def victim(written: Path, tmp_path: Path) -> Path:
    """Another cache of the user's, with other numbers in the same shape."""
    return shutil.copytree(written / "victim.zarr", tmp_path / "victim.zarr")


# Links, pipes and devices


Lay = Callable[[Path, Path], None]


def link_site(cache: Path, victim: Path) -> None:
    move_away(cache / SITE)
    (cache / SITE).symlink_to(victim / SITE)


def link(name: str, target: str | None = None) -> Lay:
    """Lays a link to what the victim has under that name, or under another one, in a file's place."""

    def lay(cache: Path, victim: Path) -> None:
        (cache / name).unlink(missing_ok=True)
        (cache / name).symlink_to(victim / (target or name))

    lay.__name__ = f"link for {name} to {target}" if target else f"link for {name}"
    return lay


def pipe(name: str) -> Lay:
    """Lays a pipe in a file's place."""

    def lay(cache: Path, victim: Path) -> None:
        (cache / name).unlink(missing_ok=True)
        os.mkfifo(cache / name)

    lay.__name__ = f"pipe for {name}"
    return lay


WHAT_READERS_MEET = [
    link_site,
    link(SHARD),
    link(SHARD, "nowhere"),
    pipe(SHARD),
    link("manifest.jsonl"),
    link("manifest", "."),
    pipe("manifest.jsonl"),
    link("zarr.json"),
    pipe("zarr.json"),
]
WHAT_WRITERS_MEET = [
    *WHAT_READERS_MEET,
    link(f"{SITE}/zarr.json"),
    link("clips.parquet"),
    link(".staging", "."),
    link(".writers", "."),
    link(".lock", "new file"),
    pipe(".lock"),
]


def move_away(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink()
    folder.rmdir()


def resume(cache: Path) -> None:
    """Write what is missing, having lost a shard: as a trace does that is run again."""
    write_cache(cache, PLAN)


def merge_into(cache: Path) -> None:
    merge([write_cache(cache.parent / "part.zarr", PLAN)], cache)


CHANGES: list[Callable[[Path], Any]] = [
    repair,
    remove,
    lambda cache: remove_shards(cache, [1]),
    resume,
    merge_into,
]
READS: list[Callable[[Path], Any]] = [
    lambda cache: ActivationCache(cache).read(SITE),
    lambda cache: list(ActivationCache(cache).shuffled_rows(SITE, 4, seed=0)),
    lambda cache: merge([cache], cache.parent / "merged.zarr"),
    lambda cache: export(cache, cache.parent / "exported"),
    verify,
]


def everything(folder: Path) -> dict[str, Any]:
    """All names below a folder, with the content of files, without following links."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            is_file = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if is_file else path.lstat().st_mode
    return found


@pytest.mark.parametrize("act", CHANGES)
@pytest.mark.parametrize("lay", WHAT_WRITERS_MEET)
def test_whoever_changes_a_cache_refuses_links_before_anything_is_changed(
    cache: Path, victim: Path, lay: Lay, act: Callable[[Path], Any]
) -> None:
    lay(cache, victim)
    before = everything(cache), everything(victim)
    with pytest.raises(UnsafeFile) as caught:
        act(cache)
    assert "\n" not in str(caught.value)
    assert (everything(cache), everything(victim)) == before


@pytest.mark.parametrize("act", READS)
@pytest.mark.parametrize("lay", WHAT_READERS_MEET)
def test_nothing_is_read_through_links(
    cache: Path, victim: Path, lay: Lay, act: Callable[[Path], Any]
) -> None:
    lay(cache, victim)
    with pytest.raises(UnsafeFile):
        act(cache)
    assert not (cache.parent / "exported").exists()


def test_caches_are_listed_beside_hostile_ones(cache: Path, victim: Path) -> None:
    group, manifest = "zarr.json", "manifest.jsonl"
    for number, lay in enumerate((link(group), pipe(group), link(manifest), link_site, pipe(manifest))):
        lay(write_cache(cache.parent / "more" / str(number), PLAN), victim)
    (cache.parent / "more" / "whole").symlink_to(cache)
    names = {Path(found.location).name: found.problem for found in find(cache.parent)}
    assert names["cache.zarr"] is None
    assert names["victim.zarr"] is None
    assert names.keys() == {"cache.zarr", "victim.zarr", "2", "3", "4"}
    assert all("was not opened" in names[name] for name in "234")  # type: ignore[operator]


def test_a_cache_may_lie_behind_its_owners_link(cache: Path) -> None:
    link = cache.parent / "linked.zarr"
    link.symlink_to(cache)
    assert ActivationCache(link).read(SITE).shape == PLAN.shape(SITE)
    assert verify(link) == []
    remove_shards(link, [1])
    resume(link)
    assert verify(cache) == []
    remove(link)
    assert not cache.exists()


# Other numbers


def swap(cache: Path, one: str, other: str) -> None:
    first, second = (cache / one).read_bytes(), (cache / other).read_bytes()
    (cache / one).write_bytes(second)
    (cache / other).write_bytes(first)


def forge_manifest(cache: Path, shard: int, site: str, **changes: Any) -> None:
    """Let the manifest say that a shard file is as it was written, or is something else."""
    content = (cache / f"{site}/c.{shard}.0.0.0.0").read_bytes()
    lines = [json.loads(line) for line in (cache / "manifest.jsonl").read_bytes().splitlines()]
    lines[shard]["files"][site] |= {
        "bytes": len(content),
        "xxh3": xxhash.xxh3_64_hexdigest(content),
        **changes,
    }
    for line in lines:
        line["xxh3"] = xxhash.xxh3_64_hexdigest(
            canonical_json({name: value for name, value in line.items() if name != "xxh3"}).encode()
        )
    (cache / "manifest.jsonl").write_bytes(b"".join(canonical_json(line).encode() + b"\n" for line in lines))


def swap_two_shards(cache: Path, victim: Path) -> None:
    swap(cache, f"{SITE}/c.0.0.0.0.0", SHARD)


def take_shard_of_another_cache(cache: Path, victim: Path) -> None:
    (cache / SHARD).write_bytes((victim / SHARD).read_bytes())


def put_chunks_elsewhere(cache: Path, victim: Path) -> None:
    """Two halves of the shard's values, each with the checksum that fits."""
    content = bytearray((cache / SHARD).read_bytes())
    size = len(content) - 20 - 4
    content[: size // 2], content[size // 2 : size] = content[size // 2 : size], content[: size // 2]
    content[size : size + 4] = crc32c(bytes(content[:size])).to_bytes(4, "little")
    (cache / SHARD).write_bytes(content)


@pytest.mark.parametrize("change", [swap_two_shards, take_shard_of_another_cache, put_chunks_elsewhere])
@pytest.mark.parametrize("act", READS[:-1])
def test_another_shards_numbers_are_never_read(
    cache: Path, victim: Path, change: Callable[[Path, Path], None], act: Callable[[Path], Any]
) -> None:
    whole = tree(cache)
    ActivationCache(cache).read(SITE)  # what was compared before the files changed counts no more
    change(cache, victim)
    with pytest.raises(CacheError, match=r"cache verify --repair"):
        act(cache)
    assert repair(cache)
    assert tree(write_cache(cache, PLAN)) == whole


def test_each_shard_is_compared_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    pieces = LocalStorage.pieces

    def noted(self: LocalStorage, name: str, size: int) -> Iterator[memoryview]:
        names.append(name)
        return pieces(self, name, size)

    monkeypatch.setattr(LocalStorage, "pieces", noted)
    for _ in range(2):
        opened = ActivationCache(cache)
        for clip in range(PLAN.n_clips):
            opened.read(SITE, clips=[clip])
    assert sorted(names) == [f"{SITE}/c.{shard}.0.0.0.0" for shard in range(PLAN.n_shards)]


OUTSIDE = {
    "outside": (2**40, 8),
    "beyond": (2**64 - 8, 16),
    "wraps around": (16, 2**64 - 8),
    "longer than the file": (0, 2**63),
    "without checksum": (0, 3),
}
INDICES = OUTSIDE | {"longer than a chunk": (0, 100), "not there": (2**64 - 1, 2**64 - 1)}


def forge_index(cache: Path, offset: int, length: int) -> None:
    content = (cache / SHARD).read_bytes()
    index = struct.pack("<QQ", offset, length)
    (cache / SHARD).write_bytes(content[:-20] + index + crc32c(index).to_bytes(4, "little"))
    forge_manifest(cache, 1, SITE)


@pytest.mark.parametrize("zstd_level", [0, 3])
@pytest.mark.parametrize("case", INDICES)
def test_an_index_that_fits_all_checksums(tmp_path: Path, case: str, zstd_level: int) -> None:
    plan = make_plan(zstd_level=zstd_level)
    cache = write_cache(tmp_path / "cache.zarr", plan)
    whole = tree(cache)
    forge_index(cache, *INDICES[case])
    with pytest.raises(CacheError, match=r"c.1.0.0.0.0 .* is damaged .*Remove it with .*cache rm --shard 1"):
        ActivationCache(cache).read(SITE)
    assert {damage.name for damage in verify(cache)} == ({SHARD} if case in OUTSIDE else set())
    remove_shards(cache, [1])  # as the sentence says
    assert tree(write_cache(cache, plan)) == whole


def pack(size: int, fill: bytes = b"\0", with_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=with_size).compress(fill * size)


CHUNK_BYTES = 2 * 3 * 2 * 4 * 5 * 2
CHUNKS = {
    "a gigabyte": pack(2**30),
    "a gigabyte that is not announced": pack(2**30, with_size=False),
    "too much": pack(CHUNK_BYTES + 1),
    "too little": pack(CHUNK_BYTES - 1),
    "too little, not announced": pack(CHUNK_BYTES - 1, with_size=False),
    "nothing": b"",
    "no zstd": b"no zstd at all",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_a_chunk_that_decompresses_to_another_size(tmp_path: Path, case: str) -> None:
    plan = make_plan(zstd_level=3)
    cache = write_cache(tmp_path / "cache.zarr", plan)
    chunk = CHUNKS[case] + crc32c(CHUNKS[case]).to_bytes(4, "little")
    index = struct.pack("<QQ", 0, len(chunk))
    (cache / SHARD).write_bytes(chunk + index + crc32c(index).to_bytes(4, "little"))
    forge_manifest(cache, 1, SITE)
    with pytest.raises(CacheError):
        ActivationCache(cache).read(SITE)


# Plans, manifests and tables that promise too much


def write_group(cache: Path, plan: str) -> None:
    """A group whose attributes fit their checksums, whatever the plan (its canonical JSON)."""
    stored = json.loads((cache / "zarr.json").read_bytes())["attributes"]
    attributes = {
        "clips_hash": canonical_json(stored["clips_hash"]),
        "plan": plan,
        "plan_hash": f'"{hashlib.sha256(plan.encode()).hexdigest()}"',
        "protocol": '"activation-cache"',
        "version": "2",
    }

    def joined(fields: dict[str, str]) -> str:
        return "{" + ",".join(f'"{name}":{fields[name]}' for name in sorted(fields)) + "}"

    attributes["xxh3"] = f'"{xxhash.xxh3_64_hexdigest(joined(attributes).encode())}"'
    (cache / "zarr.json").write_text(
        f'{{"attributes":{joined(attributes)},"node_type":"group","zarr_format":3}}'
    )


def changed(**fields: Any) -> str:
    return canonical_json(PLAN.model_dump(mode="json") | fields)


IMPOSSIBLE = {
    "a billion clips": changed(n_clips=10**9),
    "more clips than numbers": changed(n_clips=10**30),
    "a billion clips in one shard": changed(n_clips=10**9, clips_per_shard=10**9),
    "a prime number of clips in one shard": changed(n_clips=16777213, clips_per_shard=16777213),
    "a billion tokens": changed(tokens=10**9),
    "large slices": changed(tokens=2**20, sites={"tf0.cross_attn": 2**20, SITE: 2**20}),
    "large chunks": changed(tokens=16, sites={"tf0.cross_attn": 2**20, SITE: 16777213}),
    "a billion channels": changed(sites={"tf0.cross_attn": 10**9, SITE: 5}),
    "many chunks": changed(
        n_clips=2**20, clips_per_shard=2**20, tokens=2**10, sites=dict.fromkeys(PLAN.sites, 2**10)
    ),
    "steps beyond 64 bits": changed(steps=[0, 7, 2**70]),
    "negative numbers": changed(n_clips=-1),
    "a fraction": changed(n_clips=2.5),
    "infinite seconds": changed().replace('"token_seconds":0.04', '"token_seconds":1e999'),
    "a name that leads out": changed(sites={"../victim": 5}, dtypes={"../victim": "float16"}),
    "a hidden name": changed(sites={".staging": 5}, dtypes={".staging": "float16"}),
    "an identity nested deep": changed().replace(
        '"identity":{', '"identity":{"a":' + '{"a":' * 400 + "1" + "}" * 400 + ","
    ),
    "an identity nested without end": changed().replace(
        '"identity":{', '"identity":{"a":' + "[" * 200_000 + "]" * 200_000 + ","
    ),
    "a name given twice": changed().replace('"n_clips":5', '"n_clips":5,"n_clips":5'),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_plans_are_refused_by_everybody(cache: Path, case: str) -> None:
    write_group(cache, IMPOSSIBLE[case])
    before = tree(cache)
    for act in (ActivationCache, describe, verify, repair, remove, resume, READS[2]):
        with pytest.raises(CacheError) as caught:
            act(cache)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert tree(cache) == before


VAST = {
    "many shards": changed(n_clips=2**24, clips_per_shard=1),
    "many clips": changed(n_clips=2**24),
}


@pytest.mark.parametrize("case", VAST)
def test_a_plan_of_millions_of_clips_is_told_from_what_is_there(cache: Path, case: str) -> None:
    write_group(cache, VAST[case])
    with pytest.raises(CacheError, match="half-written"):
        ActivationCache(cache)
    partial = ActivationCache(cache, allow_partial=True)
    with pytest.raises(CacheError, match="is not written yet"):
        partial.read(SITE)
    with pytest.raises(CacheError, match=r"clips.parquet is missing or damaged \(it has 5 rows, not 16777"):
        _ = partial.clips
    assert describe(cache).n_clips > 2**23
    assert "clips.parquet" in {damage.name for damage in verify(cache)}
    repair(cache)


def test_more_than_the_machines_memory_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ActivationCache(write_cache(tmp_path / "a", PLAN))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 100}.__getitem__)
    assert cache.read(SITE, clips=[0], steps=[0]).size == 40
    with pytest.raises(
        UserError, match=r"1200 bytes of tf1.mlp .* this machine has 100 bytes .*Read fewer clips"
    ):
        cache.read(SITE)


LINE = {
    "brackets": b"[" * 200_000,
    "objects": b'{"a":' * 200_000,
    "binary": bytes(range(256)).replace(b"\n", b""),
    "too long": b" " * 2**20,
    "a list": b"[]",
    "a number of 5000 digits": b'{"shard":' + b"1" * 5000 + b"}",
    "nothing": b"",
}


@pytest.mark.parametrize("case", LINE)
def test_a_manifest_of_anything(cache: Path, case: str) -> None:
    lines = (cache / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (cache / "manifest.jsonl").write_bytes(lines[0] + LINE[case] + b"\n" + lines[2])
    with pytest.raises(CacheError, match=r"half-written: 1 of 3 .*manifest.jsonl line 2") as caught:
        ActivationCache(cache)
    assert len(str(caught.value)) < 500
    assert [damage.name for damage in verify(cache)] == ["manifest.jsonl line 2"]


@pytest.mark.parametrize(
    "changes",
    [{"bytes": "40"}, {"bytes": 2**50}, {"bytes": 30}, {"xxh3": 3}, {"largest": [1]}, {"bytes": True}],
    ids=str,
)
def test_a_line_whose_numbers_are_none_names_no_shard(cache: Path, changes: dict[str, Any]) -> None:
    forge_manifest(cache, 1, SITE, **changes)
    assert list(ActivationCache(cache, allow_partial=True).manifest.entries) == [0, 2]


def test_a_manifest_of_millions_of_lines(cache: Path) -> None:
    (cache / "manifest.jsonl").write_bytes(b"\n" * 2**24)
    manifest = ActivationCache(cache, allow_partial=True).manifest
    assert manifest.entries == {}
    assert len(manifest.damaged) < 1100


@pytest.mark.parametrize("name", ["zarr.json", "manifest.jsonl", "clips.parquet", "calls.parquet"])
def test_a_sparse_file_of_a_terabyte(cache: Path, name: str) -> None:
    with (cache / name).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UnsafeFile, match="it has 1099511627776"):
        verify(cache)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\xff", b"[" * 200_000, b"", b"null", b'{"attributes":[]}'])
def test_a_group_of_anything(cache: Path, content: bytes) -> None:
    (cache / "zarr.json").write_bytes(content)
    for act in (ActivationCache, describe, verify, repair, remove, resume, READS[2]):
        with pytest.raises(CacheError, match="does not describe an activation cache"):
            act(cache)


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def column(values: Any, **options: Any) -> bytes:
    return parquet(pa.table({"clip": range(5), "prompt": values}), **options)


LONG = "x" * 2**20
TABLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "many rows": (
        lambda: parquet(pa.table({"clip": pa.array(np.zeros(10**6, np.int8))})),
        "1000000 rows, not 5",
    ),
    "one text for all": (lambda: column([LONG] * 5), "its texts have 5242880 bytes"),
    "a long prefix for all": (
        lambda: column(
            [LONG + str(k) for k in range(5)],
            use_dictionary=False,
            column_encoding={"prompt": "DELTA_BYTE_ARRAY", "clip": "PLAIN"},
        ),
        "not yet implemented|its texts have",
    ),
    "zstd": (lambda: column(["x"] * 5, compression="zstd"), "compression is zstd"),
    "gzip": (lambda: column(["x"] * 5, compression="gzip"), "compression is gzip"),
    "lists": (lambda: column([[1] * 10**6] * 5), "lists or records"),
    "records": (lambda: column([{"a": 1}] * 5), "lists or records"),
    "bytes": (lambda: column([b"x"] * 5), "has binary"),
    "many columns": (lambda: parquet(pa.table({f"c{k}": range(5) for k in range(2000)})), "2000 columns"),
    "cut": (lambda: column(["x"] * 5)[:-40], ""),
    "head only": (lambda: b"PAR1", ""),
    "nothing": (lambda: b"", ""),
    "text": (lambda: b"clip,prompt\n0,a\n", ""),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_clip_table_of_anything(cache: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 2**22)
    make, words = TABLES[case]
    (cache / "clips.parquet").write_bytes(make())
    with pytest.raises(CacheError, match=rf"(?i)clips.parquet is missing or damaged \(.*({words})") as caught:
        _ = ActivationCache(cache).clips
    assert "\n" not in str(caught.value)
    assert {damage.name for damage in verify(cache)} == {"clips.parquet"}
    repair(cache)
    assert ActivationCache(write_cache(cache, PLAN)).clips.equals(make_clips(PLAN))


@pytest.mark.parametrize(
    "values",
    [[[1]] * 5, [b"x"] * 5, [{"a": 1}] * 5, ["x" * 2**20] * 5],
    ids=["lists", "bytes", "records", "long"],
)
def test_a_writer_takes_no_table_that_readers_refuse(
    tmp_path: Path, values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 2**22)
    clips = make_clips(PLAN).assign(more=values)
    with pytest.raises(UserError, match="The clip table cannot be stored"):
        CacheWriter(tmp_path / "a", PLAN, clips)
    assert not (tmp_path / "a").exists()


# Object stores


class LyingStore:
    """A server that answers a listing with names of its own."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def list(self, *_: Any, **__: Any) -> list[list[dict[str, Any]]]:
        return [[{"path": name, "size": 1} for name in self.names]]


@pytest.mark.parametrize(
    "name", ["other/zarr.json", "manifest/../../other", "/manifest/1.json", "manifest//1.json"]
)
def test_a_listing_that_names_others_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = write_cache(memory_storage(), PLAN)
    before = {key: storage.read(key) for key in storage.sizes()}
    monkeypatch.setattr(obstore, "list", LyingStore([name]).list)
    for act in (ActivationCache, verify, repair, resume):
        with pytest.raises(UnsafeFile, match="is outside it"):
            act(storage)
    monkeypatch.undo()
    assert {key: storage.read(key) for key in storage.sizes()} == before


@pytest.mark.parametrize("name", ["../other/zarr.json", "/zarr.json", "a/../../b"])
def test_names_that_lead_out_of_a_prefix(name: str) -> None:
    storage = memory_storage()
    for act in (
        storage.read,
        storage.size,
        storage.sizes,
        lambda name: storage.put(name, [b"x"]),
        lambda name: storage.delete([name]),
        lambda name: storage.read_into(name, 0, memoryview(bytearray(1))),
    ):
        with pytest.raises(UnsafeFile):
            act(name)


def test_claims_of_anything() -> None:
    storage = memory_storage()
    storage.put(".writers/mine", [b"x"])
    storage.put(".writers/0-1-zz", [b"x"])
    write_cache(storage, PLAN, order=[0])
    for content in (b"[" * 500, b"\xff", b"{}", b'{"expires":[]}', b"x" * 2000):
        storage.put(".writers/0-2-abc", [content])
        with pytest.raises(UserError, match=r"\.writers/0-2-abc"):
            write_cache(storage, PLAN)


def test_an_object_too_large_to_be_read() -> None:
    storage = write_cache(memory_storage(), PLAN)
    storage.put("zarr.json", [bytes(metadata.GROUP_LIMIT + 1)])
    with pytest.raises(UnsafeFile, match="at most"):
        ActivationCache(storage)
