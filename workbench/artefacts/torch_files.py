"""Files with torch tensors, read as numpy arrays without torch and without running anything.

Two containers are read: what `torch.save` writes (a zip archive with a pickle and a file for each storage), and a plain
pickle whose tensors carry their storage as what older versions of `torch.save` wrote. Both are pickles of the
allow-list of `pickles.ARRAYS` with tensors besides.
"""

import io
import itertools
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import UserError
from workbench.artefacts.pickles import ARRAYS, Named, allow, parse, read_bytes, read_pickle, sizes

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Number types by the names of torch's storages; bfloat16 is the upper half of float32.
_BRAIN = "BFloat16Storage"
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    _BRAIN: "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, eq=False)
class _Storage:
    """The numbers of a tensor in a row."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class _Declared:
    """What a file says of a storage: its key, its number type and how many numbers it has."""

    key: str
    kind: str
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(_STORAGES[self.kind]).itemsize

    def read(self, raw: bytes, start: int = 0) -> _Storage:
        if len(raw) - start != self.size:
            raise ValueError(f"a tensor declares {self.size} bytes and has {len(raw) - start}")
        values = np.frombuffer(raw, _STORAGES[self.kind], offset=start)
        if self.kind == _BRAIN:
            values = (values.astype("<u4") << 16).view("<f4")
        return _Storage(values)


def _declared(id: object) -> _Declared:
    """The storage that a persistent id describes."""
    if (
        not isinstance(id, tuple)
        or len(id) not in (5, 6)
        or id[0] != "storage"
        or id[5:] not in ((), (None,))
    ):
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, count = id[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Named) else ""
    if name not in _STORAGES or not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a storage of an unknown kind")
    return _Declared(key, name, count)


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    """The tensor of these strides; it can have no more numbers than its storage, and none beyond."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    fault = "a tensor whose shape is no shape"
    shape, steps, (start,) = sizes(size, fault), sizes(stride, fault), sizes((offset,), fault)
    if len(shape) != len(steps):
        raise ValueError(fault)
    values, count = storage.values, math.prod(shape)
    last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if count > len(values) or (count and last >= len(values)):
        raise ValueError("a tensor that reaches beyond its storage")
    if not count:
        return np.zeros(shape, values.dtype)
    strides = [step * values.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(values[start:], shape, strides, writeable=False)


_NAMES = {
    **ARRAYS,
    **allow(
        Named("torch._utils._rebuild_tensor_v2", _tensor),
        *(Named(f"torch.{name}") for name in _STORAGES),
    ),
}


def _storage(raw: object, operations: Iterator[int]) -> object:
    """A storage out of the bytes that it carries: five values in a row, then its numbers."""
    if not isinstance(raw, bytes):
        raise ValueError("a storage without bytes")
    values: list[Any] = []
    at = 0
    for _ in range(5):
        value, at = parse(raw, "a tensor's storage", _NAMES, _declared, at, operations)
        values.append(value)
    magic, protocol, machine, declared, keys = values
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(machine, dict):
        raise ValueError("a storage that torch did not write")
    if machine.get("little_endian") is not True:
        raise ValueError("a storage of another byte order")
    if not isinstance(declared, _Declared) or keys != [declared.key]:
        raise ValueError("a storage that is something else")
    if int.from_bytes(raw[at : at + 8], "little") != declared.count:
        raise ValueError("a storage that tells two sizes")
    return declared.read(raw, at + 8)


def _carried() -> dict[str, Named]:
    """The names of a plain pickle with tensors. A storage is made once, however often its bytes are named."""
    made: dict[int, tuple[object, object]] = {}
    operations = itertools.count()

    def storage(raw: object) -> object:
        if id(raw) not in made:
            made[id(raw)] = raw, _storage(raw, operations)
        return made[id(raw)][1]

    return {**_NAMES, **allow(Named("torch.storage._load_from_bytes", storage))}


def read_tensors(file: Path) -> object:
    """What a file of torch's holds: dicts, lists, text and numbers as they are, tensors as arrays.

    Raises UserError for files that name anything else, are damaged, compressed or larger than they should be.
    """
    data = read_bytes(file)
    if not data.startswith(b"PK"):
        return read_pickle(file, _carried())
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive, file, len(data))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, KeyError, EOFError) as error:
        raise UserError(f"{file} is a damaged archive ({' '.join(str(error).split())}).") from error


def _read_archive(archive: zipfile.ZipFile, file: Path, size: int) -> object:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{file} is a compressed archive, which torch never writes: it is refused.")
    if sum(entry.file_size for entry in entries) > size:
        raise UserError(f"{file} declares more bytes than it has: it is refused.")
    pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{file} is a zip archive, but not one that torch wrote (it has no data.pkl).")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UserError(f"{file} was written on a machine of another byte order, which is not read.")
    made: dict[str, _Storage] = {}

    def storage(id: object) -> object:
        declared = _declared(id)
        if declared.key not in made:
            made[declared.key] = declared.read(archive.read(f"{folder}data/{declared.key}"))
        return made[declared.key]

    value, _ = parse(archive.read(pickles[0]), str(file), _NAMES, storage)
    return value
