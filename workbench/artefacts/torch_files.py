"""Read torch files as numpy arrays, without torch and without running any code from the file.

Two containers are supported: what `torch.save` writes (a zip archive with a pickle and one file per storage), and a
plain pickle whose tensors embed their storage in the format of older versions of `torch.save`. Both may use the names
in `pickles.ARRAYS` and those of tensors.
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
from workbench.artefacts.pickles import ARRAYS, Named, allow, checked_shape, parse, read_bytes, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Number types by torch storage class; bfloat16 is the upper half of float32.
_BFLOAT16 = "BFloat16Storage"
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    _BFLOAT16: "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, eq=False)
class _Storage:
    """The flat buffer of a tensor's numbers."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class _Declared:
    """A storage as the file declares it: key, number type and length."""

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
        if self.kind == _BFLOAT16:
            values = (values.astype("<u4") << 16).view("<f4")
        return _Storage(values)


def _declared(id: object) -> _Declared:
    """Parse the storage that a persistent id declares."""
    if (
        not isinstance(id, tuple)
        or len(id) not in (5, 6)
        or id[0] != "storage"
        or id[5:] not in ((), (None,))
    ):
        raise ValueError("a persistent id that is not a storage")
    _, kind, key, _, count = id[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Named) else ""
    if name not in _STORAGES or not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a storage of an unknown type")
    return _Declared(key, name, count)


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    """Make a tensor with these strides; it may not reach beyond its storage or repeat its numbers."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    fault = "a tensor with an invalid shape"
    shape, steps, (start,) = (
        checked_shape(size, fault),
        checked_shape(stride, fault),
        checked_shape((offset,), fault),
    )
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
    """Read a storage from its embedded bytes: five pickled values, then its numbers."""
    if not isinstance(raw, bytes):
        raise ValueError("a storage without bytes")
    values: list[Any] = []
    at = 0
    for _ in range(5):
        value, at = parse(raw, "a tensor's storage", _NAMES, _declared, at, operations)
        values.append(value)
    magic, protocol, machine, declared, keys = values
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(machine, dict):
        raise ValueError("a storage that was not written by torch")
    if machine.get("little_endian") is not True:
        raise ValueError("a storage that is not little-endian")
    if not isinstance(declared, _Declared) or keys != [declared.key]:
        raise ValueError("a storage whose key is not the declared one")
    if int.from_bytes(raw[at : at + 8], "little") != declared.count:
        raise ValueError("a storage with two different sizes")
    return declared.read(raw, at + 8)


def _embedded_storages() -> dict[str, Named]:
    """Return the allow-list of a plain pickle with tensors; each storage is made once, however often it is used."""
    made: dict[int, tuple[object, object]] = {}
    operations = itertools.count()

    def storage(raw: object) -> object:
        if id(raw) not in made:
            made[id(raw)] = raw, _storage(raw, operations)
        return made[id(raw)][1]

    return {**_NAMES, **allow(Named("torch.storage._load_from_bytes", storage))}


def read_tensors(file: Path) -> object:
    """Read a torch file: dicts, lists, text and numbers unchanged, tensors as arrays.

    Raises:
        UserError: if the file refers to anything else, or is damaged, compressed or too large.
    """
    data = read_bytes(file)
    if not data.startswith(b"PK"):
        return read_pickle(file, _embedded_storages())
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive, file, len(data))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, KeyError, EOFError) as error:
        raise UserError(f"{file} is a damaged archive ({' '.join(str(error).split())}).") from error


def _read_archive(archive: zipfile.ZipFile, file: Path, size: int) -> object:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{file} is a compressed archive, which torch never writes. It was not loaded.")
    if sum(entry.file_size for entry in entries) > size:
        raise UserError(f"{file} declares more bytes than it has. It was not loaded.")
    pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{file} is a zip archive that was not written by torch (it has no data.pkl).")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UserError(f"{file} is big-endian; only little-endian files are supported.")
    made: dict[str, _Storage] = {}

    def storage(id: object) -> object:
        declared = _declared(id)
        if declared.key not in made:
            made[declared.key] = declared.read(archive.read(f"{folder}data/{declared.key}"))
        return made[declared.key]

    value, _ = parse(archive.read(pickles[0]), str(file), _NAMES, storage)
    return value
