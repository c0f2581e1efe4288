"""A cache read by other people's zarr readers: zarr-python without this project, tensorstore, and xarray."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import tensorstore
import xxhash
import zarr
from jaxtyping import Float

from cache import ActivationCache, CacheError, CachePlan, UserError, protocol
from cache.maintenance import repair, verify
from tests.cache.helpers import make_plan, make_values, write_cache

Reader = Callable[[Path, str], Any]
NUMPY_DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


DTYPES = {"half": "float16", "brain": "bfloat16", "single": "float32"}


@pytest.fixture(params=[0, 3], ids=["raw", "zstd"])
def plan(request: pytest.FixtureRequest) -> CachePlan:
    """A site of each dtype; the last shard is partial."""
    return make_plan(
        sites={"half": 3, "brain": 5, "single": 4},
        dtypes=DTYPES,
        n_clips=7,
        clips_per_shard=4,
        zstd_level=request.param,
    )


@pytest.fixture(params=[1, 100, 2**20], ids=["slices", "several slices", "one chunk"])
def folder(
    request: pytest.FixtureRequest, plan: CachePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Caches with small, middling and whole-shard inner chunks."""
    monkeypatch.setattr(protocol, "MIN_CHUNK_BYTES", request.param)
    return write_cache(tmp_path / "a", plan)


def by_attribute(array: Any, attributes: dict[str, Any]) -> Float[np.ndarray, "..."]:
    """Stored values as float32, with ml_dtypes' bfloat16 where an array says that it holds that."""
    dtype = NUMPY_DTYPES[attributes["value_dtype"]]
    return np.asarray(array).view(dtype).astype(np.float32)


def expected(plan: CachePlan, site: str) -> Float[np.ndarray, "..."]:
    return make_values(plan, site).astype(NUMPY_DTYPES[plan.dtypes[site]]).astype(np.float32)


def by_zarr(folder: Path, site: str) -> Float[np.ndarray, "..."]:
    array = zarr.open_array(folder / site, mode="r")
    return by_attribute(array[:], dict(array.attrs))


def by_tensorstore(folder: Path, site: str) -> Float[np.ndarray, "..."]:
    attributes = json.loads((folder / site / "zarr.json").read_text())["attributes"]
    return by_attribute(tensorstore_array(folder, site).read().result(), attributes)


def by_the_protocols_page(folder: Path, site: str) -> Float[np.ndarray, "..."]:
    """The code in docs/cache-protocol.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "cache-protocol.md").read_text()
    namespace: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    values: Any = namespace["read_site"](folder, site)
    return values


def by_this_project(folder: Path, site: str) -> Float[np.ndarray, "..."]:
    return ActivationCache(folder).read(site)


READERS = [by_zarr, by_tensorstore, by_the_protocols_page, by_this_project]


def tensorstore_array(folder: Path, site: str) -> Any:
    store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / site)}}
    return tensorstore.open(store, open=True, read=True).result()


@pytest.mark.parametrize("read", READERS)
def test_every_reader_reads_the_same_numbers(folder: Path, plan: CachePlan, read: Reader) -> None:
    for site in plan.sites:
        values = read(folder, site)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected(plan, site))


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def swapped(folder: Path) -> None:
    one, other = (folder / "half" / f"c.{shard}.0.0.0.0" for shard in (0, 1))
    one.rename(folder / "kept")
    other.rename(one)
    (folder / "kept").rename(other)


def forged_line(line: bytes) -> bytes:
    """A line that fits its checksum and names other clips than the plan."""
    entry = json.loads(line)
    del entry["xxh3"]
    entry["clips"][1] -= 1
    entry["xxh3"] = xxhash.xxh3_64_hexdigest(protocol.canonical_json(entry).encode())
    return protocol.canonical_json(entry).encode() + b"\n"


REFUSED: dict[str, Callable[[Path], Any]] = {
    "another version": lambda folder: rewritten(
        folder / "zarr.json", lambda text: text.replace(b'"version":2', b'"version":3')
    ),
    "another plan": lambda folder: rewritten(
        folder / "zarr.json", lambda text: text.replace(b'"n_clips":7', b'"n_clips":4')
    ),
    "a name given twice": lambda folder: rewritten(
        folder / "zarr.json", lambda text: text.replace(b'"n_clips":7', b'"n_clips":7,"n_clips":7')
    ),
    "a line less": lambda folder: rewritten(
        folder / "manifest.jsonl", lambda text: text.splitlines(keepends=True)[0]
    ),
    "a line that does not fit its checksum": lambda folder: rewritten(
        folder / "manifest.jsonl", lambda text: text.replace(b'"shard":1', b'"shard":0')
    ),
    "a line that does not fit the plan": lambda folder: rewritten(
        folder / "manifest.jsonl",
        lambda text: text.splitlines(keepends=True)[0] + forged_line(text.splitlines()[1]),
    ),
    "a line of brackets": lambda folder: rewritten(
        folder / "manifest.jsonl", lambda text: text.splitlines(keepends=True)[0] + b"[" * 200_000 + b"\n"
    ),
    "no group": lambda folder: (folder / "zarr.json").unlink(),
    "swapped shards": swapped,
    "a linked shard": lambda folder: linked(folder / "half" / "c.1.0.0.0.0"),
    "a linked site": lambda folder: linked(folder / "half"),
    "a lost shard": lambda folder: (folder / "half" / "c.1.0.0.0.0").unlink(),
    "a longer shard": lambda folder: rewritten(folder / "half" / "c.1.0.0.0.0", lambda text: text + b"0"),
    "another value": lambda folder: flipped(folder / "half" / "c.1.0.0.0.0", 0),
    "another index": lambda folder: flipped(folder / "half" / "c.1.0.0.0.0", -1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_protocols_page_refuses_what_this_project_refuses(tmp_path: Path, case: str) -> None:
    plan = make_plan(sites={"half": 3}, dtypes={"half": "float16"}, n_clips=7, clips_per_shard=4)
    folder = write_cache(tmp_path / "a", plan)
    assert np.array_equal(by_the_protocols_page(folder, "half"), by_this_project(folder, "half"))
    REFUSED[case](folder)
    with pytest.raises(UserError):
        by_this_project(folder, "half")
    with pytest.raises((ValueError, OSError)):
        by_the_protocols_page(folder, "half")


def test_json_that_is_not_canonical_is_read(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "a", make_plan())
    values = by_this_project(folder, "tf1.mlp")
    for name in ("zarr.json", "manifest.jsonl"):
        lines = [json.loads(line) for line in (folder / name).read_bytes().splitlines()]
        loose = [json.dumps(line, indent=None, separators=(", ", " : ")) + "\n" for line in lines]
        (folder / name).write_text("".join(loose))
    for read in (by_the_protocols_page, by_this_project):
        np.testing.assert_array_equal(read(folder, "tf1.mlp"), values)
    assert [damage.name for damage in verify(folder)] == ["zarr.json"]
    repair(folder)
    assert verify(folder) == []


def test_zarr_python_describes_the_arrays_as_the_page_does(folder: Path, plan: CachePlan) -> None:
    assert zarr.open_group(folder, mode="r").attrs["plan_hash"] == plan.hash
    for site in plan.sites:
        array = zarr.open_array(folder / site, mode="r")
        assert array.metadata.dimension_names == ("clip", "step", "pass", "token", "channel")
        assert array.shards == (4, 3, 2, 4, plan.sites[site])
        assert [codec.to_dict()["name"] for codec in array.compressors] == ["zstd", "crc32c"][
            not plan.zstd_level :
        ]
        np.testing.assert_array_equal(
            by_attribute(array[5, 1:, 0, 2], dict(array.attrs)), expected(plan, site)[5, 1:, 0, 2]
        )


def test_tensorstore_describes_the_arrays_as_the_page_does(folder: Path, plan: CachePlan) -> None:
    for site, dtype in DTYPES.items():
        array = tensorstore_array(folder, site)
        assert array.domain.labels == ("clip", "step", "pass", "token", "channel")
        assert array.dtype.name == ("uint16" if dtype == "bfloat16" else dtype)
        assert array.chunk_layout.write_chunk.shape == (4, 3, 2, 4, plan.sites[site])


def test_zarr_python_would_write_the_same_chunks(folder: Path, plan: CachePlan, tmp_path: Path) -> None:
    """zarr's own writer is the oracle for the size of every shard file, padding, checksums and index included."""
    for site in plan.sites:
        ours = zarr.open_array(folder / site, mode="r")
        copy = zarr.create_array(
            tmp_path / "copy" / site,
            shape=ours.shape,
            dtype=ours.dtype,
            shards=ours.shards,
            chunks=ours.chunks,
            compressors=ours.compressors,
            fill_value=ours.fill_value,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        copy[:] = ours[:]
        for file in (folder / site).glob("c.*"):
            theirs = (tmp_path / "copy" / site / file.name).read_bytes()
            # Of several chunks zarr's order is another one.
            assert len(file.read_bytes()) == len(theirs)
            if ours.chunks == ours.shards:
                assert file.read_bytes() == theirs


@pytest.mark.parametrize("read", READERS)
def test_every_reader_notices_a_flipped_bit(folder: Path, plan: CachePlan, read: Reader) -> None:
    rng = np.random.default_rng(0)
    for site in plan.sites:
        file = folder / site / "c.1.0.0.0.0"
        content = file.read_bytes()
        chunks = math.prod(plan.shard_shape(site)) // math.prod(plan.chunk_shape(site))
        end_of_chunks = len(content) - 16 * chunks - 4
        for place in (
            0,
            end_of_chunks - 1,
            end_of_chunks,
            len(content) - 5,
            len(content) - 1,
            *rng.integers(0, len(content), 3),
        ):
            flipped = content[place] ^ 1 << int(rng.integers(8))
            file.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            with pytest.raises((ValueError, CacheError), match=r"(?i)checksum|crc32c|digest|zstd"):
                read(folder, site)
        file.write_bytes(content)
        np.testing.assert_array_equal(read(folder, site), expected(plan, site))


@pytest.mark.parametrize("read", [by_zarr, by_tensorstore])
def test_what_was_never_written_is_not_a_number(plan: CachePlan, tmp_path: Path, read: Reader) -> None:
    write_cache(tmp_path / "a", plan, order=[1])
    for site in plan.sites:
        values = read(tmp_path / "a", site)
        assert np.isnan(values[:4]).all()
        assert np.isfinite(values[4:]).all()


def test_the_page_s_reader_refuses_a_half_written_cache(
    folder: Path, plan: CachePlan, tmp_path: Path
) -> None:
    half = write_cache(tmp_path / "half", plan, order=[0])
    with pytest.raises(ValueError, match="shard 1 is missing"):
        by_the_protocols_page(half, "half")
    manifest = folder / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    with pytest.raises(ValueError, match="shard 1 is missing"):
        by_the_protocols_page(folder, "half")


def test_tables_are_plain_parquet(folder: Path) -> None:
    assert pd.read_parquet(folder / "clips.parquet")["clip"].tolist() == list(range(7))
    assert pd.read_parquet(folder / "calls.parquet").columns.tolist() == ["step", "sigma"]
