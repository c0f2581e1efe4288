"""Encode datasets as NetCDF4 with h5py.

h5netcdf, with which xarray does it, opens all dimensions again for each variable, and takes several times as long.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import h5py

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."


def netcdf_bytes(dataset: xr.Dataset) -> bytes:
    """Return the content of a NetCDF4 file with a dataset of numbers and texts; equal datasets have equal bytes."""
    import h5py

    variables, attributes = xr.conventions.encode_dataset_coordinates(dataset)
    numbers = {dimension: number for number, dimension in enumerate(dataset.sizes)}
    with io.BytesIO() as stream:
        with h5py.File(stream, "w") as file:
            stored = {
                name: _store(file, str(name), xr.conventions.encode_cf_variable(variable, name=name))
                for name, variable in variables.items()
            }
            scales = {
                dimension: _scale(file, str(dimension), size, numbers[dimension])
                for dimension, size in dataset.sizes.items()
            }
            for name, variable in variables.items():
                if variable.dims:
                    _attach(stored[name], {numbers[each]: scales[each] for each in variable.dims})
            _set_attributes(file, attributes)
            written_by = f"version=2,h5py={h5py.__version__},hdf5={h5py.version.hdf5_version}"
            file.attrs["_NCProperties"] = np.bytes_(written_by.encode())
        return stream.getvalue()


def _store(file: "h5py.File", name: str, variable: xr.Variable) -> "h5py.Dataset":
    """Store an encoded variable's values and attributes."""
    import h5py

    if variable.dtype.kind in "OU":
        stored = file.create_dataset(
            name, data=variable.values.astype(object), dtype=h5py.string_dtype(), track_order=True
        )
    else:
        fill = variable.attrs.get("_FillValue")
        stored = file.create_dataset(name, data=variable.values, fillvalue=fill, track_order=True)
    _set_attributes(stored, variable.attrs)
    return stored


def _set_attributes(owner: Any, attributes: Any) -> None:
    for name, value in attributes.items():
        owner.attrs[name] = value if isinstance(value, str) else np.atleast_1d(value)


def _scale(file: "h5py.File", dimension: str, size: int, number: int) -> "h5py.Dataset":
    """Make the variable of a dimension, or a placeholder without data, its scale."""
    is_variable = dimension in file
    if not is_variable:
        file.create_dataset(dimension, (size,), ">f4", track_order=True)
    scale = file[dimension]
    scale.make_scale(dimension if is_variable else f"{_NO_VARIABLE}{size:10}")
    scale.attrs["_Netcdf4Dimid"] = np.int32(number)
    return scale


def _attach(variable: "h5py.Dataset", scales: dict[int, "h5py.Dataset"]) -> None:
    """Tell which dimensions a variable has, given their scales by number."""
    import h5py

    variable.attrs["_Netcdf4Coordinates"] = np.array(list(scales), np.int32)
    if variable not in scales.values():
        variable.attrs["_Netcdf4Dimid"] = np.int32(next(iter(scales)))
        for axis, scale in enumerate(scales.values()):
            h5py.h5ds.attach_scale(variable.id, scale.id, axis)
