"""A cache read by other people's zarr readers: zarr-python without this project, tensorstore, and xarray."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import tensorstore
import zarr
from jaxtyping import Float

from cache import ActivationCache, CachePlan, protocol
from tests.cache.helpers import make_plan, make_values, write_cache

NUMPY_DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


@pytest.fixture(params=["float16", "bfloat16", "float32"])
def plan(request: pytest.FixtureRequest) -> CachePlan:
    return make_plan(dtype=request.param, n_clips=7, clips_per_shard=4)


@pytest.fixture(params=[1, 100, 2**20], ids=["pages", "several pages", "one chunk"])
def folder(
    request: pytest.FixtureRequest, plan: CachePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Caches with small, middling and whole-shard inner chunks; the last shard is partial."""
    monkeypatch.setattr(protocol, "MIN_CHUNK_BYTES", request.param)
    return write_cache(tmp_path / "a", plan)


def by_attribute(array: Any, attributes: dict[str, Any]) -> Float[np.ndarray, "..."]:
    """Stored values as float32, with ml_dtypes' bfloat16 where an array says that it holds that."""
    dtype = NUMPY_DTYPES[attributes["value_dtype"]]
    return np.asarray(array).view(dtype).astype(np.float32)


def expected(plan: CachePlan, site: str) -> Float[np.ndarray, "..."]:
    return make_values(plan, site).astype(NUMPY_DTYPES[plan.dtype]).astype(np.float32)


def test_zarr_python(folder: Path, plan: CachePlan) -> None:
    group = zarr.open_group(folder, mode="r")
    assert group.attrs["plan_hash"] == plan.hash
    for site in plan.sites:
        array = group[site]
        assert isinstance(array, zarr.Array)
        assert array.metadata.dimension_names == ("clip", "step", "pass", "token", "channel")
        assert array.shards == (4, 3, 2, 4, plan.sites[site])
        assert array.compressors == ()
        np.testing.assert_array_equal(by_attribute(array[:], dict(array.attrs)), expected(plan, site))
        np.testing.assert_array_equal(
            by_attribute(array[5, 1:, 0, 2], dict(array.attrs)), expected(plan, site)[5, 1:, 0, 2]
        )


def test_tensorstore(folder: Path, plan: CachePlan) -> None:
    for site in plan.sites:
        store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / site)}}
        array = tensorstore.open(store, open=True, read=True).result()
        assert array.domain.labels == ("clip", "step", "pass", "token", "channel")
        attributes = json.loads((folder / site / "zarr.json").read_text())["attributes"]
        np.testing.assert_array_equal(by_attribute(array.read().result(), attributes), expected(plan, site))


def test_zarr_python_would_write_the_same_values_in_as_many_bytes(
    folder: Path, plan: CachePlan, tmp_path: Path
) -> None:
    """zarr's own writer is the oracle for the size of every shard file, padding and index included."""
    for site in plan.sites:
        ours = zarr.open_array(folder / site, mode="r")
        copy = zarr.create_array(
            tmp_path / "copy" / site,
            shape=ours.shape,
            dtype=ours.dtype,
            shards=ours.shards,
            chunks=ours.chunks,
            compressors=None,
            fill_value=ours.fill_value,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        copy[:] = ours[:]
        for file in (folder / site).glob("c.*"):
            assert file.stat().st_size == (tmp_path / "copy" / site / file.name).stat().st_size


def test_what_was_never_written_is_not_a_number(plan: CachePlan, tmp_path: Path) -> None:
    write_cache(tmp_path / "a", plan, order=[1])
    array = zarr.open_array(tmp_path / "a" / "tf1.mlp", mode="r")
    values = by_attribute(array[:], dict(array.attrs))
    assert np.isnan(values[:4]).all()
    assert np.isfinite(values[4:]).all()


def test_the_example_reader_of_the_protocol(folder: Path) -> None:
    """The code in docs/cache-protocol.md works as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "cache-protocol.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    read = namespace["read_site"]
    np.testing.assert_array_equal(read(folder, "tf1.mlp"), ActivationCache(folder).read("tf1.mlp"))
    manifest = folder / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    with pytest.raises(ValueError, match="shard 1"):
        read(folder, "tf1.mlp")


def test_tables_are_plain_parquet(folder: Path) -> None:
    assert pd.read_parquet(folder / "clips.parquet")["clip"].tolist() == list(range(7))
    assert pd.read_parquet(folder / "calls.parquet").columns.tolist() == ["step", "sigma"]
