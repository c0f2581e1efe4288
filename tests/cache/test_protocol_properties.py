"""Properties of any cache, from docs/cache-protocol.md alone: the bytes are taken apart here without the code that
made them."""

import hashlib
import itertools
import json
import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from cache import ActivationCache, CacheError, CachePlan, CacheWriter, protocol
from cache.object_storage import ObjectStorage, memory_storage
from cache.rounding import Rounding
from tests.cache.faults import flip
from tests.cache.helpers import contents, make_clips, make_plan, make_values, shard_values, write_cache

JSON = dict[str, Any]
NUMPY: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
# The least significant byte of each fill value comes first.
FILL = {"float16": b"\x00\x7e", "bfloat16": b"\xc0\x7f", "float32": b"\x00\x00\xc0\x7f"}
NOT_STORED = 2**64 - 1
MIN_CHUNK = st.sampled_from([1, 32, 200, 2**20])
FEW = settings(max_examples=25, deadline=None)
IDENTITY = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@st.composite
def plans(draw: st.DrawFn, compressed: bool | None = None) -> CachePlan:
    steps = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
    names = draw(st.lists(st.sampled_from(["tf0.mlp", "tf0.q", "mid-block", "8"]), min_size=1, unique=True))
    level = st.sampled_from([0, 1, 3]) if compressed is None else st.just(3 if compressed else 0)
    return make_plan(
        sites={name: draw(st.integers(1, 6)) for name in names},
        dtypes={name: draw(st.sampled_from(sorted(NUMPY))) for name in names},
        n_clips=draw(st.integers(1, 9)),
        steps=steps,
        sigmas=[step / 100 for step in steps],
        passes=draw(st.sampled_from([("cond",), ("null", "cond"), ("cond", "null")])),
        tokens=draw(st.integers(1, 5)),
        clips_per_shard=draw(st.integers(1, 10)),
        zstd_level=draw(level),
    )


def written(plan: CachePlan, min_chunk: int = 2**20) -> ObjectStorage:
    """A finished cache in memory, with chunks of at least `min_chunk` bytes."""
    storage = memory_storage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", min_chunk)
        return write_cache(storage, plan)


# The page, by hand


def canonical(value: Any) -> str:
    """Canonical JSON; control characters, of which the page says nothing, as Python escapes them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(map(escaped, value)) + '"'
    return repr(value)


def escaped(character: str) -> str:
    short = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b", "\f": r"\f"}
    if character in short:
        return short[character]
    if " " <= character <= "~":
        return character
    units = struct.iter_unpack("<H", character.encode("utf-16-le"))
    return "".join(f"\\u{unit:04x}" for (unit,) in units)


def stored_plan(files: dict[str, bytes]) -> JSON:
    attributes: JSON = json.loads(files["zarr.json"])["attributes"]
    assert (attributes["protocol"], attributes["version"]) == ("activation-cache", 2)
    plan: JSON = attributes["plan"]
    return plan


def itemsize(plan: JSON, site: str) -> int:
    return {"float16": 2, "bfloat16": 2, "float32": 4}[plan["dtypes"][site]]


def shard_shape(plan: JSON, site: str) -> list[int]:
    clips = min(plan["clips_per_shard"], plan["n_clips"])
    return [clips, len(plan["steps"]), len(plan["passes"]), plan["tokens"], plan["sites"][site]]


def inner_chunk(plan: JSON, site: str, minimum: int) -> list[int]:
    """A chunk grows along pass, step and clip: to the smallest divisor with which it is large enough, or all."""
    shard = shard_shape(plan, site)
    chunk = [1, 1, 1, *shard[3:]]
    for axis in (2, 1, 0):
        if math.prod(chunk) * itemsize(plan, site) >= minimum:
            break
        for divisor in range(1, shard[axis] + 1):
            if shard[axis] % divisor == 0:
                chunk[axis] = divisor
                if math.prod(chunk) * itemsize(plan, site) >= minimum:
                    break
    return chunk


def shard_ranges(plan: JSON) -> list[tuple[int, int]]:
    """First and last clip of each shard."""
    firsts = range(0, plan["n_clips"], plan["clips_per_shard"])
    return [(first, min(first + plan["clips_per_shard"], plan["n_clips"]) - 1) for first in firsts]


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def test_the_crc_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def index_of(content: bytes, plan: JSON, site: str, minimum: int) -> dict[tuple[int, ...], tuple[int, int]]:
    """Offset and length of each chunk of a shard file."""
    grid = [
        whole // inner
        for whole, inner in zip(shard_shape(plan, site), inner_chunk(plan, site, minimum), strict=True)
    ][:3]
    tail = content[-16 * math.prod(grid) - 4 :]
    assert struct.unpack("<I", tail[-4:]) == (crc32c(tail[:-4]),)
    places = itertools.product(*map(range, grid))
    return dict(zip(places, struct.iter_unpack("<QQ", tail[:-4]), strict=True))


def chunk_bytes(content: bytes, offset: int, length: int, plan: JSON, site: str, minimum: int) -> bytes:
    """The stored numbers of a chunk, decompressed."""
    data = content[offset : offset + length - 4]
    if not plan["zstd_level"]:
        return data
    size = math.prod(inner_chunk(plan, site, minimum)) * itemsize(plan, site)
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


def expected(plan: CachePlan, site: str) -> Float[np.ndarray, "clip step pass token channel"]:
    return make_values(plan, site).astype(NUMPY[plan.dtypes[site]]).astype(np.float32)


# Names and metadata


@given(plan=plans(), data=st.data())
@FEW
def test_only_the_names_of_the_page_exist(plan: CachePlan, data: st.DataObject) -> None:
    fixed = {"zarr.json", "clips.parquet", "calls.parquet"} | {f"{site}/zarr.json" for site in plan.sites}
    shards = range(len(shard_ranges(plan.model_dump(mode="json"))))
    some = data.draw(st.lists(st.sampled_from(shards), unique=True, max_size=len(shards) - 1))
    storage = memory_storage()
    CacheWriter(storage, plan, make_clips(plan)).close()
    if some:
        write_cache(storage, plan, order=some)
    files = {f"{site}/c.{k}.0.0.0.0" for site in plan.sites for k in some}
    assert set(contents(storage)) == fixed | files | {f"manifest/{k}.json" for k in some}
    write_cache(storage, plan)
    files = {f"{site}/c.{k}.0.0.0.0" for site in plan.sites for k in shards}
    assert set(contents(storage)) == fixed | files | {"manifest.jsonl"}


@given(identity=IDENTITY, sigma=st.floats(0, 1e30), seconds=st.floats(1e-9, 1e30))
@settings(deadline=None)
def test_the_group_holds_the_plan_and_its_hash(identity: JSON, sigma: float, seconds: float) -> None:
    plan = make_plan(identity=identity, sigmas=(sigma, 1, 0), token_seconds=seconds)
    storage = memory_storage()
    CacheWriter(storage, plan, make_clips(plan)).close()
    group = json.loads(storage.read("zarr.json"))
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    stored = stored_plan(contents(storage))
    assert stored == {
        "sites": {"tf0.cross_attn": 3, "tf1.mlp": 5},
        "dtypes": {"tf0.cross_attn": "float16", "tf1.mlp": "float16"},
        "n_clips": 5,
        "steps": [0, 7, 21],
        "sigmas": [sigma, 1.0, 0.0],
        "passes": ["cond", "null"],
        "tokens": 4,
        "token_seconds": seconds,
        "token_reduction": {"kind": "none", "size": 1},
        "clips_per_shard": 2,
        "zstd_level": 0,
        "identity": identity,
    }
    digest = hashlib.sha256(canonical(stored).encode()).hexdigest()
    assert group["attributes"]["plan_hash"] == digest == plan.hash
    attributes = dict(group["attributes"])
    assert set(attributes) == {"protocol", "version", "plan", "plan_hash", "clips_hash", "xxh3"}
    stated = attributes.pop("xxh3")
    assert stated == xxhash.xxh3_64_hexdigest(canonical(attributes).encode())


CELLS = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "numbers": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "texts": st.none() | st.text(max_size=5),
    "truths": st.booleans(),
}


@given(data=st.data(), n_clips=st.integers(1, 4), kinds=st.lists(st.sampled_from(sorted(CELLS)), max_size=4))
@FEW
def test_the_group_names_the_clip_table_by_its_values(
    data: st.DataObject, n_clips: int, kinds: list[str]
) -> None:
    columns: dict[str, list[Any]] = {"clip": list(range(n_clips))}
    for number, kind in enumerate(kinds):
        columns[f"é{number}"] = data.draw(st.lists(CELLS[kind], min_size=n_clips, max_size=n_clips))
    table = pd.DataFrame(
        {
            name: pd.Series(values, dtype="float64" if None in values and kind == "numbers" else None)
            for (name, values), kind in zip(columns.items(), ["integers", *kinds], strict=True)
        }
    )
    storage = memory_storage()
    CacheWriter(storage, make_plan(n_clips=n_clips), table).close()
    digest = hashlib.sha256(canonical(columns).encode()).hexdigest()
    assert json.loads(storage.read("zarr.json"))["attributes"]["clips_hash"] == digest
    assert ActivationCache(storage, allow_partial=True).clips.equals(table)


@given(plan=plans())
@FEW
def test_the_arrays_metadata(plan: CachePlan) -> None:
    files = contents(written(plan))
    stored = stored_plan(files)
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    for site, channels in stored["sites"].items():
        dtype = stored["dtypes"][site]
        inner = [len(stored["steps"]), len(stored["passes"]), stored["tokens"], channels]
        zstd = {"name": "zstd", "configuration": {"level": stored["zstd_level"], "checksum": False}}
        array = json.loads(files[f"{site}/zarr.json"])
        assert (array["zarr_format"], array["node_type"]) == (3, "array")
        assert array["shape"] == [stored["n_clips"], *inner]
        assert array["dimension_names"] == ["clip", "step", "pass", "token", "channel"]
        assert array["data_type"] == ("uint16" if dtype == "bfloat16" else dtype)
        assert array["fill_value"] == (32704 if dtype == "bfloat16" else "NaN")
        assert array["attributes"] == {"value_dtype": dtype}
        assert array["chunk_grid"] == {
            "name": "regular",
            "configuration": {"chunk_shape": [min(stored["clips_per_shard"], stored["n_clips"]), *inner]},
        }
        assert array["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        (codec,) = array["codecs"]
        assert codec["name"] == "sharding_indexed"
        assert codec["configuration"] == {
            "chunk_shape": inner_chunk(stored, site, 2**20),
            "codecs": [little, *([zstd] if stored["zstd_level"] else []), {"name": "crc32c"}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }


@given(
    clips=st.integers(1, 40),
    per_shard=st.integers(1, 40),
    steps=st.integers(1, 30),
    passes=st.sampled_from([("cond",), ("cond", "null")]),
    tokens=st.integers(1, 2000),
    channels=st.integers(1, 3000),
    dtype=st.sampled_from(sorted(NUMPY)),
)
@settings(deadline=None)
def test_chunks_of_at_least_a_mebibyte_of_whole_slices(
    clips: int, per_shard: int, steps: int, passes: tuple[str, ...], tokens: int, channels: int, dtype: str
) -> None:
    plan = make_plan(
        sites={"x": channels},
        dtypes=dtype,
        n_clips=clips,
        clips_per_shard=per_shard,
        steps=tuple(range(steps)),
        sigmas=(0.5,) * steps,
        passes=passes,
        tokens=tokens,
    )
    storage = memory_storage()
    CacheWriter(storage, plan, make_clips(plan)).close()
    stored = stored_plan(contents(storage))
    chunk = json.loads(storage.read("x/zarr.json"))["codecs"][0]["configuration"]["chunk_shape"]
    shard = shard_shape(stored, "x")
    assert chunk == inner_chunk(stored, "x", 2**20)
    assert chunk[3:] == shard[3:]
    assert all(whole % inner == 0 for whole, inner in zip(shard, chunk, strict=True))
    assert math.prod(chunk) * itemsize(stored, "x") >= 2**20 or chunk == shard


# Shard files


@given(plan=plans(), minimum=MIN_CHUNK)
@FEW
def test_chunks_in_c_order_without_gaps_each_with_its_crc_then_the_index(
    plan: CachePlan, minimum: int
) -> None:
    files = contents(written(plan, minimum))
    stored = stored_plan(files)
    for site, (shard, (first, last)) in itertools.product(stored["sites"], enumerate(shard_ranges(stored))):
        content = files[f"{site}/c.{shard}.0.0.0.0"]
        chunk, size = inner_chunk(stored, site, minimum), itemsize(stored, site)
        values = make_values(plan, site)[first : last + 1].astype(NUMPY[stored["dtypes"][site]])
        end = 0
        index = index_of(content, stored, site, minimum)
        assert list(index) == sorted(index)
        for place, (offset, length) in index.items():
            corner = [i * n for i, n in zip(place, chunk[:3], strict=True)]
            if corner[0] > last - first:
                assert (offset, length) == (NOT_STORED, NOT_STORED)
                continue
            assert offset == end
            end += length
            data = content[offset : end - 4]
            assert struct.unpack("<I", content[end - 4 : end]) == (crc32c(data),)
            block = values[tuple(slice(i, i + n) for i, n in zip(corner, chunk[:3], strict=True))]
            padding = (math.prod(chunk) - block.size) * FILL[stored["dtypes"][site]]
            assert chunk_bytes(content, offset, length, stored, site, minimum) == block.tobytes() + padding
            if not stored["zstd_level"]:
                assert length == math.prod(chunk) * size + 4
        assert len(content) == end + 16 * len(index) + 4


@given(plan=plans(), minimum=MIN_CHUNK, data=st.data())
@FEW
def test_a_coordinate_found_by_hand_is_what_is_read(
    plan: CachePlan, minimum: int, data: st.DataObject
) -> None:
    storage = written(plan, minimum)
    files = contents(storage)
    stored = stored_plan(files)
    site = data.draw(st.sampled_from(sorted(stored["sites"])))
    where = [data.draw(st.integers(0, length - 1)) for length in plan.shape(site)]
    clip, step, pass_number, token, channel = where

    shard, in_shard = divmod(clip, min(stored["clips_per_shard"], stored["n_clips"]))
    chunk = inner_chunk(stored, site, minimum)
    parts = [
        divmod(position, n) for position, n in zip((in_shard, step, pass_number), chunk[:3], strict=True)
    ]
    places, rest = tuple(quotient for quotient, _ in parts), [remainder for _, remainder in parts]
    content = files[f"{site}/c.{shard}.0.0.0.0"]
    offset, length = index_of(content, stored, site, minimum)[places]
    number = 0
    for position, n in zip((*rest, token, channel), chunk, strict=True):
        number = number * n + position
    raw = chunk_bytes(content, offset, length, stored, site, minimum)[number * itemsize(stored, site) :]
    if stored["dtypes"][site] == "bfloat16":
        (by_hand,) = struct.unpack("<f", b"\x00\x00" + raw[:2])
    else:
        (by_hand,) = struct.unpack_from("<e" if stored["dtypes"][site] == "float16" else "<f", raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", minimum)
        read = ActivationCache(storage).read(
            site, [clip], [stored["steps"][step]], [stored["passes"][pass_number]], slice(token, token + 1)
        )
    assert by_hand == read[0, 0, 0, 0, channel] == expected(plan, site)[tuple(where)]


@given(plan=plans(compressed=False), minimum=MIN_CHUNK)
@FEW
def test_the_price_is_exact_without_compression(plan: CachePlan, minimum: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", minimum)
        sizes = write_cache(memory_storage(), plan).sizes()
        price = plan.bytes_per_site()
    assert price == {
        site: sum(size for name, size in sizes.items() if name.startswith(f"{site}/c."))
        for site in plan.sites
    }


def noise(plan: CachePlan, shard: int, site: str) -> Any:
    """Finite numbers of random bits: what compresses least."""
    first, last = plan.shard_clips(shard)
    bits = np.random.default_rng(shard).integers(
        0, 2**16, (last - first + 1, *plan.shape(site)[1:]), np.uint16
    )
    bits[(bits & 0x7F80) == 0x7F80] = 0
    return bits


@pytest.mark.parametrize("tokens", [1, 4, 512])
def test_noise_that_does_not_compress_costs_zstds_bound_at_most(tokens: int) -> None:
    plan = make_plan(sites={"x": 512}, dtypes="bfloat16", n_clips=3, tokens=tokens, zstd_level=3)
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, {"x": noise(plan, shard, "x")})
    # ZSTD_compressBound: 1/256 more, and 64 bytes for each chunk that is smaller than 128 KiB.
    price = plan.bytes_per_site()["x"]
    assert sum(storage.sizes("x/")[f"x/c.{shard}.0.0.0.0"] for shard in (0, 1)) <= price * 257 / 256 + 2 * 64


# The manifest


def checked_entry(line: bytes) -> JSON:
    """An entry whose line is canonical and fits its checksum."""
    entry: JSON = json.loads(line)
    assert line == canonical(entry).encode() + b"\n"
    without = {name: value for name, value in entry.items() if name != "xxh3"}
    assert entry["xxh3"] == xxhash.xxh3_64_hexdigest(canonical(without).encode())
    return entry


@given(plan=plans(), data=st.data())
@FEW
def test_the_lines_of_the_manifest(plan: CachePlan, data: st.DataObject) -> None:
    shards = range(plan.n_shards)
    storage = write_cache(memory_storage(), plan, order=data.draw(st.permutations(shards))[:-1] or None)
    while_writing = {
        name: content for name, content in contents(storage).items() if name.startswith("manifest/")
    }
    files = contents(write_cache(storage, plan))
    lines = files["manifest.jsonl"].splitlines(keepends=True)
    for name, line in while_writing.items():
        assert line == lines[int(name.removeprefix("manifest/").removesuffix(".json"))]
    entries = [checked_entry(line) for line in lines]
    assert [entry["shard"] for entry in entries] == list(shards)
    for entry, clips in zip(entries, shard_ranges(stored_plan(files)), strict=True):
        assert set(entry) == {"clips", "files", "shard", "xxh3"}
        assert entry["clips"] == list(clips)
        assert set(entry["files"]) == set(plan.sites)
        for site, file in entry["files"].items():
            content = files[f"{site}/c.{entry['shard']}.0.0.0.0"]
            assert set(file) == {"bytes", "largest", "max_error", "rms_error", "xxh3"}
            assert file["bytes"] == len(content)
            assert file["xxh3"] == xxhash.xxh3_64_hexdigest(content)


@given(
    dtype=st.sampled_from(sorted(NUMPY)),
    given_dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    exponent=st.integers(-40, 37),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_rounding_errors_recorded(dtype: str, given_dtype: type, exponent: int, seed: int) -> None:
    if (dtype == "float16" or given_dtype is np.float16) and exponent > 3:
        exponent -= 37
    values = np.random.default_rng(seed).standard_normal((2, 3, 2, 4, 50)) * 10.0**exponent
    values = values.astype(given_dtype)
    plan = make_plan(sites={"x": 50}, dtypes=dtype, n_clips=2)
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        writer.write_shard(0, {"x": values})
    file = json.loads(storage.read("manifest.jsonl"))["files"]["x"]

    wide = values.astype(np.float64)
    difference = values.astype(NUMPY[dtype]).astype(np.float64) - wide
    squares = (wide**2).sum()
    true = {
        "largest": np.abs(wide).max(),
        "max_error": np.abs(difference).max(),
        "rms_error": math.sqrt((difference**2).sum() / squares) if squares else 0.0,
    }
    for name, value in true.items():
        # As close as float32 sums are: what lies at the border of two numbers of three digits may be either.
        assert file[name] in {float(f"{value * (1 + shift):.3g}") for shift in (-1e-5, 0, 1e-5)}, name


def test_values_in_the_dtype_of_the_site_have_no_rounding_error() -> None:
    plan = make_plan(sites={"x": 3, "y": 3}, dtypes={"x": "float16", "y": "float32"}, n_clips=2)
    values = {site: make_values(plan, site).astype(NUMPY[plan.dtypes[site]]) for site in plan.sites}
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        writer.write_shard(0, values)
    for file in json.loads(storage.read("manifest.jsonl"))["files"].values():
        assert (file["max_error"], file["rms_error"]) == (0, 0)
        assert file["largest"] > 1


def test_the_sums_of_millions_of_numbers_keep_three_digits() -> None:
    values = torch.full((8192, 2048), 1.02)
    rounding = Rounding()
    rounding.add(values, values.half())
    value, stored = float(values[0, 0]), float(values[0, 0].half())
    error = float(f"{value - stored:.3g}")
    assert rounding.summary() == {
        "largest": 1.02,
        "max_error": error,
        "rms_error": float(f"{(value - stored) / value:.3g}"),
    }
    # The values added later count as much as the first.
    rounding.add(torch.zeros(8192, 2048), torch.ones(8192, 2048).half())
    assert rounding.summary() == {"largest": 1.02, "max_error": 1.0, "rms_error": float(f"{1 / value:.3g}")}


@given(plan=plans(), data=st.data())
@FEW
def test_a_truncated_manifest_names_fewer_shards_and_none_wrongly(
    plan: CachePlan, data: st.DataObject
) -> None:
    storage = written(plan)
    whole = ActivationCache(storage)
    content = storage.read("manifest.jsonl")
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    kept = data.draw(st.integers(0, len(content) - 1) | st.sampled_from(ends))
    storage.put("manifest.jsonl", [content[:kept]])
    with pytest.raises(CacheError, match="half-written"):
        ActivationCache(storage)
    partial = ActivationCache(storage, allow_partial=True)
    assert list(partial.manifest.entries) == list(range(content[:kept].count(b"\n")))
    for shard in range(plan.n_shards):
        first, last = plan.shard_clips(shard)
        for site in plan.sites:
            if shard in partial.manifest.entries:
                assert partial.manifest.entries[shard] == whole.manifest.entries[shard]
                np.testing.assert_array_equal(
                    partial.read(site, range(first, last + 1)), expected(plan, site)[first : last + 1]
                )
            else:
                with pytest.raises(CacheError, match=f"Shard {shard} of .* is not written yet"):
                    partial.read(site, [last])
    assert write_cache(storage, plan).read("manifest.jsonl") == content


@given(plan=plans(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_in_the_manifest_costs_a_line_at_most(plan: CachePlan, data: st.DataObject) -> None:
    storage = written(plan)
    whole = ActivationCache(storage).manifest.entries
    content = storage.read("manifest.jsonl")
    storage.put(
        "manifest.jsonl", [flip(content, *divmod(data.draw(st.integers(0, 8 * len(content) - 1)), 8))]
    )
    left = ActivationCache(storage, allow_partial=True).manifest.entries
    # A flipped newline joins two lines.
    assert len(whole) - 2 <= len(left) < len(whole)
    assert left.items() <= whole.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"shard": 3},
        {"shard": -1},
        {"shard": "1"},
        {"clips": [2, 4]},
        {"clips": [2]},
        {"files": {}},
        {"files": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_line_that_fits_its_checksum_but_not_the_plan_names_no_shard(changes: JSON) -> None:
    storage = written(make_plan())
    lines = storage.read("manifest.jsonl").splitlines(keepends=True)
    entry = json.loads(lines[1]) | changes
    del entry["xxh3"]
    entry["xxh3"] = xxhash.xxh3_64_hexdigest(canonical(entry).encode())
    storage.put("manifest.jsonl", [lines[0], canonical(entry).encode() + b"\n", lines[2]])
    assert list(ActivationCache(storage, allow_partial=True).manifest.entries) == [0, 2]


# Damage


@given(plan=plans(), minimum=MIN_CHUNK, data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    plan: CachePlan, minimum: int, data: st.DataObject
) -> None:
    storage = written(plan, minimum)
    site = data.draw(st.sampled_from(sorted(plan.sites)))
    shard = data.draw(st.integers(0, plan.n_shards - 1))
    name = f"{site}/c.{shard}.0.0.0.0"
    content = storage.read(name)
    storage.put(name, [flip(content, *divmod(data.draw(st.integers(0, 8 * len(content) - 1)), 8))])
    first, last = plan.shard_clips(shard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", minimum)
        cache = ActivationCache(storage)
        with pytest.raises(CacheError, match=rf"{name} \(clips {first} to {last}\) is damaged"):
            cache.read(site, range(first, last + 1))
        for clip, step in itertools.product(range(plan.n_clips), plan.steps):
            try:
                read = cache.read(site, [clip], [step])
            except CacheError:
                assert first <= clip <= last
            else:
                position = plan.steps.index(step)
                np.testing.assert_array_equal(
                    read, expected(plan, site)[clip : clip + 1, position : position + 1]
                )


@given(plan=plans(), data=st.data())
@FEW
def test_a_cut_or_longer_shard_file_is_an_error(plan: CachePlan, data: st.DataObject) -> None:
    storage = written(plan)
    site = data.draw(st.sampled_from(sorted(plan.sites)))
    content = storage.read(f"{site}/c.0.0.0.0.0")
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    for damaged in (cut, content + b"\0"):
        storage.put(f"{site}/c.0.0.0.0.0", [damaged])
        with pytest.raises(CacheError, match=f"is missing or does not have {len(content)} bytes"):
            ActivationCache(storage).read(site, [0])


# Order


class Stopped(Exception):
    """Where a writer is interrupted."""


class StoppingStorage(ObjectStorage):
    """Stops a writer in place of its `left`-th change."""

    left = math.inf

    def put(self, name: str, pieces: Iterable[Any], new: bool = False) -> None:
        if not name.startswith(".writers"):
            self._count()
        super().put(name, pieces, new)

    def delete(self, names: Iterable[str]) -> None:
        names = list(names)
        if not any(name.startswith(".writers") for name in names):
            self._count()
        super().delete(names)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


def interruptions(data: st.DataObject) -> Iterator[int]:
    for _ in range(data.draw(st.integers(0, 3))):
        yield data.draw(st.integers(0, 20))


@given(plan=plans(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_any_writers_and_any_interruptions_make_the_same_bytes(
    plan: CachePlan, data: st.DataObject
) -> None:
    whole = contents(written(plan))
    storage = StoppingStorage(memory_storage().store, "memory://cache")
    for left in interruptions(data):
        storage.left = left
        first = data.draw(st.integers(0, plan.n_shards - 1))
        last = data.draw(st.integers(first, plan.n_shards - 1))
        try:
            with CacheWriter(storage, plan, make_clips(plan), (first, last)) as writer:
                for shard in data.draw(st.permutations(writer.missing())):
                    writer.write_shard(shard, shard_values(plan, shard))
        except Stopped:
            pass
    storage.left = math.inf
    cut = data.draw(st.integers(0, plan.n_shards - 1))
    ranges = [(0, cut), (cut + 1, plan.n_shards - 1)] if cut < plan.n_shards - 1 else [(0, cut)]
    with ExitStack() as opened:
        writers = [
            opened.enter_context(CacheWriter(storage, plan, make_clips(plan), shards))
            for shards in data.draw(st.permutations(ranges))
        ]
        turns = [(writer, shard) for writer in writers for shard in writer.missing()]
        for writer, shard in data.draw(st.permutations(turns)):
            writer.write_shard(shard, shard_values(plan, shard))
    assert contents(storage) == whole
    assert not [meta for batch in storage.store.list() for meta in batch if meta["path"].startswith(".")]
