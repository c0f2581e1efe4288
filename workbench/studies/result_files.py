"""Read and write result files (NetCDF4) safely: their structure is checked before they are read or replaced.

An HDF5 file can refer to data in other files, through links or plug-ins, or declare terabytes in a few kilobytes.
Results written by this package have a flat group of uncompressed arrays and texts, all of them inside the file. Nothing
else is read, so that what is loaded is not much larger than the file.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cache.errors import UserError
from cache.opening import UnsafeFile, open_file, read_file
from workbench.documents import parse_document
from workbench.files import replacing

if TYPE_CHECKING:
    import h5py

MAX_BYTES = 2**30
MAX_VARIABLES = 1000
MAX_ATTRIBUTES = 200
MAX_ATTRIBUTE_NUMBERS = 2**16
# NumPy stores texts with four bytes per character, all as wide as the longest.
_WIDTH = 4
# Attributes by which xarray would change a variable's numbers, or make them larger.
_CODING = {"scale_factor", "add_offset", "missing_value", "_Unsigned", "_Encoding"}
# Closing an HDF5 file closes it for all threads that are reading it.
_READING = threading.Lock()
_TEXT_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


class DamagedResult(UnsafeFile):
    """A result file that is damaged, malicious, or was not written by this package."""


def load_result_file(root: Path, name: str) -> xr.Dataset:
    """Load the dataset in a result file inside the folder `root`.

    Raises:
        DamagedResult: if the file is damaged, does not have the structure of a result, or lacks its attributes.
        FileNotFoundError, cache.opening.UnsafeFile: as `cache.opening.open_file` does.
    """
    content = read_file(root, name, MAX_BYTES)
    with _read_safely(root / name):
        _checked_attributes(io.BytesIO(content))
        result = xr.load_dataset(content, engine="netcdf4", decode_times=False, decode_timedelta=False)
        _check_labels(result)
        return result


def result_bytes(result: xr.Dataset) -> bytes:
    """Return the content of a result file.

    To be written by the caller: HDF5 crashes the process if the system refuses to write, such as for a full disk.
    """
    with io.BytesIO() as file:
        # How the variables of other results were stored, such as the length of their texts, is not how these are.
        result.drop_encoding().to_netcdf(file, engine="h5netcdf")
        return file.getvalue()


def save_result_file(root: Path, name: str, result: xr.Dataset) -> None:
    """Write a result file inside the folder `root`, which replaces an earlier one only if it can be read again.

    Raises:
        UserError: if it cannot.
        cache.opening.UnsafeFile: as `workbench.files.replacing` does.
    """
    content = result_bytes(result)
    with replacing(root / name, root) as partial:
        partial.write_bytes(content)
        try:
            load_result_file(partial.parent, partial.name)
        except DamagedResult as error:
            raise UserError(
                f"The result {root / name} is not saved, because it could not be read again ({error.__cause__})."
            ) from error


def read_result_attributes(root: Path, name: str) -> dict[str, Any]:
    """Read the attributes of a result without its arrays; raise as `load_result_file` does."""
    with open_file(root, name, MAX_BYTES) as file, _read_safely(root / name):
        return _checked_attributes(file)


@contextmanager
def _read_safely(path: Path) -> Iterator[None]:
    """Serialise reading of HDF5 files, and turn errors into DamagedResult."""
    try:
        with _READING:
            yield
    except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        raise DamagedResult(
            f"The result {path} is damaged or was not written by the workbench "
            f"({' '.join(str(error).split())[:200]}). Delete it and compute it again."
        ) from error


def _checked_attributes(stream: io.BufferedIOBase) -> dict[str, Any]:
    """Check a result's structure and return its attributes; raise ValueError if it is not that of a result."""
    import h5py

    with h5py.File(stream, "r") as file:
        _check_structure(file, stream)
        # A number is stored as an array of one.
        attributes = {
            name: value[0] if isinstance(value, np.ndarray) and value.shape == (1,) else value
            for name, value in file.attrs.items()
        }
    if not all(isinstance(attributes.get(name), str) for name in ("kind", "spec", "provenance", "result_id")):
        raise ValueError("it lacks the attributes kind, spec, provenance or result_id")
    if not isinstance(attributes.get("schema_version"), int | np.integer):
        raise ValueError("its schema_version is not a number")
    parse_document(attributes["spec"])
    parse_document(attributes["provenance"])
    return attributes


def _check_labels(result: xr.Dataset) -> None:
    """Raise ValueError if a dimension has two equal labels, by which nothing could be selected."""
    for name in result.dims:
        if name in result.coords and not result.get_index(name).is_unique:
            raise ValueError(f"it has labels of {str(name)[:40]} twice")


def _check_structure(file: "h5py.File", stream: io.BufferedIOBase) -> None:
    """Raise ValueError unless the file has the structure of a result, without following links or reading arrays."""
    import h5py

    size = stream.seek(0, io.SEEK_END)
    made = file.id.get_create_plist()
    if made.get_sizes() != (8, 8) or made.get_userblock():
        raise ValueError("its layout is not that of a result")
    group = h5py.h5g.open(file.id, b"/")
    if group.get_num_objs() > MAX_VARIABLES:
        raise ValueError(f"it has more than {MAX_VARIABLES} variables")
    _check_own_attributes(group, size)
    left = size
    for name in list(group):
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{_shown(name)} is a link")
        item = h5py.h5o.open(group, name)
        if not isinstance(item, h5py.h5d.DatasetID):
            raise ValueError(f"{_shown(name)} is not a variable")
        left -= _check_variable(item, _shown(name), stream, size)
        if left < 0:
            raise ValueError("its variables share their bytes")
        _check_own_attributes(item, size)


def _check_variable(
    variable: "h5py.h5d.DatasetID", name: str, stream: io.BufferedIOBase, file_size: int
) -> int:
    """Return the bytes of a variable; raise ValueError unless all of them are in the file, uncompressed."""
    import h5py

    made = variable.get_create_plist()
    is_plain = made.get_layout() in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS)
    if not is_plain or made.get_external_count() or made.get_nfilters():
        raise ValueError(f"{name} is compressed, chunked, or stored in other files")
    kind, space = variable.get_type(), variable.get_space()
    is_text = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    is_number = type(kind) in (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID) and kind.get_size() in (
        1,
        2,
        4,
        8,
    )
    if not is_text and not is_number:
        raise ValueError(f"{name} has neither numbers nor text")
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        raise ValueError(f"{name} is empty")
    each = _TEXT_REFERENCE.itemsize if is_text else kind.get_size()
    declared = space.get_simple_extent_npoints() * each
    if _is_bare_dimension(variable):  # it has a size but no data
        return 0
    if declared != variable.get_storage_size():
        raise ValueError(f"{name} declares {declared} bytes and has {variable.get_storage_size()}")
    if is_text and declared:
        _check_texts(variable, declared, name, stream, file_size)
    return declared


def _check_texts(
    variable: "h5py.h5d.DatasetID", size: int, name: str, stream: io.BufferedIOBase, file_size: int
) -> None:
    """Raise ValueError if texts are so long, or share their bytes so often, that they would outgrow the file."""
    start = variable.get_offset()
    if start is None or start + size > file_size:
        raise ValueError(f"{name} is outside the file")
    stream.seek(start)
    lengths = np.frombuffer(stream.read(size), _TEXT_REFERENCE)["length"]
    longest, count = int(lengths.max()), len(lengths)
    if int(lengths.sum(dtype=np.uint64)) > file_size or longest * count * _WIDTH > MAX_BYTES:
        raise ValueError(f"{name} has implausibly long texts")


def _is_bare_dimension(variable: "h5py.h5d.DatasetID") -> bool:
    """Whether a variable only declares the length of a dimension without coordinates, and has no data."""
    import h5py

    if not h5py.h5a.exists(variable, b"NAME"):
        return False
    kind = h5py.h5a.open(variable, b"NAME").get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str() or kind.get_size() > 128:
        return False
    text = h5py.Dataset(variable).attrs["NAME"]
    return bytes(text).startswith(b"This is a netCDF dimension but not a netCDF variable")


def _check_own_attributes(owner: "h5py.h5g.GroupID", left: int) -> None:
    """Raise ValueError for attributes that are not numbers or text, recode numbers, or would outgrow the file."""
    import h5py

    count = h5py.h5a.get_num_attrs(owner)
    if count > MAX_ATTRIBUTES:
        raise ValueError(f"it has more than {MAX_ATTRIBUTES} attributes")
    for place in range(count):
        attribute = h5py.h5a.open(owner, index=place)
        name, kind = _shown(attribute.name), attribute.get_type()
        if name in _CODING:
            raise ValueError(f"it has the attribute {name}")
        numbers = attribute.get_space().get_simple_extent_npoints()
        if name in ("DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Coordinates"):
            if numbers > MAX_VARIABLES:
                raise ValueError(f"its attribute {name} is too long")
            continue
        if isinstance(kind, h5py.h5t.TypeStringID):
            if numbers > 1:
                raise ValueError(f"its attribute {name} has several texts")
            left -= len(h5py.AttributeManager(_Owner(owner))[name] or "") if numbers else 0
        elif type(kind) not in (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID):
            raise ValueError(f"its attribute {name} is neither text nor number")
        elif numbers > MAX_ATTRIBUTE_NUMBERS:
            raise ValueError(f"its attribute {name} has {numbers} numbers")
        if left < 0:
            raise ValueError("its attributes outgrow the file")


class _Owner:
    """The minimal owner that h5py's attributes need."""

    def __init__(self, id: "h5py.h5g.GroupID") -> None:
        self.id = id


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:80]
