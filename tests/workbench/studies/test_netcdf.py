"""Result files are NetCDF4 that others can read, with the content that h5netcdf would write."""

import io
from typing import Literal

import h5py
import numpy as np
import pytest
import xarray as xr

from workbench.studies.netcdf import netcdf_bytes

EVERYTHING = xr.Dataset(
    {
        "score": (
            ("arm", "step"),
            np.array([[0.5, np.nan], [1.5, 2.0], [3.0, -1.0]]),
            {"units": "s", "k": 3},
        ),
        "single": ("arm", np.arange(3, dtype=np.float32)),
        "count": ("arm", np.array([1, 2, 3])),
        "byte": ("step", np.array([1, 255], dtype=np.uint8)),
        "flag": ("arm", np.array([True, False, True])),
        "note": ("arm", np.array(["", "é", "a longer text"], dtype=object)),
        "name": ("step", np.array(["a", "bé"])),
        "alone": 3,
        "told": "once",
        "wide": (("step", "rank", "arm"), np.zeros((2, 4, 3))),
    },
    coords={"arm": ["clean", "corrupt", "tf0"], "step": [0, 7], "sigma": ("step", [1.0, 0.5]), "seed": 1},
    attrs={"kind": "made up", "empty": "", "accent": "é", "number": 5, "ratio": 0.5, "several": [1, 2]},
)
DATASETS = {
    "everything": EVERYTHING,
    "no variables": xr.Dataset(attrs=EVERYTHING.attrs),
    "one of a dimension": EVERYTHING.isel(arm=slice(1)),
    "none of a dimension": EVERYTHING.isel(arm=slice(0)),
}


def read(content: bytes, engine: Literal["netcdf4", "h5netcdf"]) -> xr.Dataset:
    file = content if engine == "netcdf4" else io.BytesIO(content)
    return xr.load_dataset(file, engine=engine)


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_other_libraries_read_what_was_written(
    dataset: xr.Dataset, engine: Literal["netcdf4", "h5netcdf"]
) -> None:
    xr.testing.assert_identical(read(netcdf_bytes(dataset), engine), dataset)


@pytest.mark.parametrize("name", ["everything", "one of a dimension"])
def test_files_hold_what_h5netcdf_writes(name: str) -> None:
    """But in which order, and which library it says has written the file."""
    expected = io.BytesIO()
    DATASETS[name].to_netcdf(expected, engine="h5netcdf")
    content = io.BytesIO(netcdf_bytes(DATASETS[name]))
    with h5py.File(expected) as one, h5py.File(content) as other:
        assert set(one) == set(other)
        assert set(one.attrs) == set(other.attrs)
        for variable in one:
            written, found = one[variable], other[variable]
            assert (found.dtype, found.shape, found.maxshape) == (
                written.dtype,
                written.shape,
                written.maxshape,
            )
            assert set(found.attrs) == set(written.attrs), variable
            assert [len(each) for each in found.dims] == [len(each) for each in written.dims], variable


def test_the_same_dataset_has_the_same_bytes() -> None:
    assert netcdf_bytes(EVERYTHING) == netcdf_bytes(EVERYTHING.copy(deep=True))
