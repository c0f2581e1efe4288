"""The xarray view: labelled, equal to `read`, and reading only what is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cache import ActivationCache, CacheError
from tests.cache.helpers import make_plan, write_cache
from tests.tolerances import assert_close


@pytest.fixture(scope="module", params=["float16", "bfloat16", "float32"])
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ActivationCache:
    return ActivationCache(
        write_cache(tmp_path_factory.mktemp("lazy") / "a", make_plan(dtypes=request.param))
    )


def test_labels(cache: ActivationCache) -> None:
    array = cache.dataset("tf1.mlp")
    assert array.dims == ("clip", "step", "pass", "token", "channel")
    assert array.shape == (5, 3, 2, 4, 5)
    assert array.dtype == np.float32
    assert array.coords["clip"].values.tolist() == [0, 1, 2, 3, 4]
    assert array.coords["step"].values.tolist() == [0, 7, 21]
    assert array.coords["sigma"].dims == ("step",)
    assert array.coords["sigma"].values.tolist() == [1.0, 0.6, 0.1]
    assert array.coords["pass"].values.tolist() == ["cond", "null"]
    assert array.coords["seconds"].dims == ("token",)
    np.testing.assert_allclose(array.coords["seconds"].values, [0, 0.04, 0.08, 0.12])
    assert array.name == "tf1.mlp"


@pytest.mark.parametrize(
    "index",
    [
        (),
        (2,),
        (-1, 0, 1, 3, 2),
        (slice(1, 4), slice(None, None, 2)),
        (slice(None, None, -1), 1, slice(None), [3, 0, 0]),
        ([4, 0], [2, 1], 0, slice(1, 3), [1, 3]),
        (slice(0, 0),),
        (np.array([True, False, True, False, False]),),
    ],
)
def test_any_index_gives_the_values_of_read(cache: ActivationCache, index: tuple[Any, ...]) -> None:
    whole = xr.DataArray(cache.read("tf1.mlp"), dims=("clip", "step", "pass", "token", "channel"))
    np.testing.assert_array_equal(cache.dataset("tf1.mlp")[index].values, whole[index].values)


def test_pointwise_and_by_label(cache: ActivationCache) -> None:
    array, whole = cache.dataset("tf1.mlp"), cache.read("tf1.mlp")
    points = xr.DataArray([0, 3, 1], dims="point")
    np.testing.assert_array_equal(
        array.isel(clip=points, token=points).values, whole[[0, 3, 1], :, :, [0, 3, 1]]
    )
    chosen = array.sel({"step": [21, 0], "pass": "null"}).isel(token=slice(1, None))
    np.testing.assert_array_equal(
        chosen.values, cache.read("tf1.mlp", steps=[21, 0], passes=["null"])[:, :, 0, 1:]
    )
    assert_close(array.mean("token").values, whole.mean(axis=3))


def test_opening_and_choosing_read_no_data(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "a", make_plan())
    for file in (folder / "tf1.mlp").glob("c.*"):
        file.unlink()
    chosen = ActivationCache(folder).dataset("tf1.mlp").sel(step=7).isel(clip=[0, 3], token=2)
    assert chosen.shape == (2, 2, 5)
    with pytest.raises(CacheError, match="is missing"):
        chosen.load()


def test_only_the_shards_of_the_chosen_clips_are_read(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "a", make_plan())
    (folder / "tf1.mlp" / "c.0.0.0.0.0").unlink()
    cache = ActivationCache(folder)
    assert cache.dataset("tf1.mlp").isel(clip=[2, 4]).values.shape == (2, 3, 2, 4, 5)
    with pytest.raises(CacheError, match="is missing"):
        cache.dataset("tf1.mlp").isel(clip=1).load()
