"""Read pickles from untrusted sources without running their code.

A pickle is a program. Python's own `Unpickler` with a restricted `find_class` still allocates what a file declares
before reading it, sets attributes on any object the file refers to, and hashes arbitrarily nested keys. So this module
interprets the operations that `pickletools` parses, one by one. Only the few operations that plain data need are
supported; the names they may use are an allow-list, and each name maps to a function of this project that checks its
arguments. Everything else raises an error that names it.

`torch.load(weights_only=True)` runs no code either, but bounds neither time nor memory: a dict whose integer keys share
one hash takes it 2.7 s for 280 kB, and four times as long for twice the size.
"""

import io
import itertools
import math
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cache.errors import UserError

MAX_BYTES = 2 * 2**30
# An operation takes one byte in the file and up to several hundred bytes in memory.
MAX_OPERATIONS = 2_000_000
MAX_AXES = 32
# Integer keys are steps and passes. Python's hash of integers is not seeded: with larger ones a file could make every
# key collide, so that filling the dict takes quadratic time.
MAX_KEY = 2**20
NUMBER_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


@dataclass(frozen=True, eq=False)
class Named:
    """A global that a pickle may refer to; `make` is called in its place, and without `make` it cannot be called."""

    name: str
    make: Callable[..., object] | None = None


class _Dtype:
    """A number type under construction."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or code not in NUMBER_TYPES:
            raise ValueError(f"numbers of type {_short(code)}")
        self.dtype = np.dtype(f"<{code}")

    def build(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", "|"):
            raise ValueError("numbers that are not little-endian")


class _Array:
    """An array under construction; `value` is None until its numbers are read."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array that is not in numpy's format")
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran is True else "C")


def _array(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Make an array that is a view of exactly these bytes, so that repeated references take no memory."""
    if not isinstance(raw, bytes) or not isinstance(dtype, _Dtype) or not isinstance(order, str):
        raise ValueError("an array that is not plain numbers")
    axes = checked_shape(shape, "an array with an invalid shape")
    declared = math.prod(axes) * dtype.dtype.itemsize
    if declared != len(raw):
        raise ValueError(f"an array that declares {declared} bytes and has {len(raw)}")
    return np.frombuffer(raw, dtype.dtype).reshape(axes, order="F" if order == "F" else "C")


def checked_shape(shape: object, fault: str) -> tuple[int, ...]:
    """Return `shape`; raise ValueError(`fault`) unless it has at most `MAX_AXES` plausible sizes.

    The product of thousands of large numbers would take minutes and gigabytes.
    """
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES:
        raise ValueError(fault)
    if not all(type(size) is int and 0 <= size < 2 * MAX_BYTES for size in shape):
        raise ValueError(fault)
    return shape


def _reconstruct(kind: object, shape: object, code: object) -> object:
    del shape, code  # numpy starts from an empty array
    if not isinstance(kind, Named) or kind.name != "numpy.ndarray":
        raise ValueError("an array of another class than numpy.ndarray")
    return _Array()


def _scalar(dtype: object, raw: object) -> object:
    return _array(raw, dtype, (), "C").item()


def _dtype(code: object, *_: object) -> object:
    return _Dtype(code)


def _empty_dict(factory: object = None) -> object:
    """Make a dict in place of a defaultdict; a reader does not need the factory."""
    if factory is not None and (
        not isinstance(factory, Named) or factory.name not in ("builtins.list", "builtins.dict")
    ):
        raise ValueError("a defaultdict whose factory is neither list nor dict")
    return {}


def allow(*named: Named) -> dict[str, Named]:
    """Return an allow-list, keyed by name."""
    return {each.name: each for each in named}


ARRAYS = allow(
    *(
        # numpy 2 moved its private modules; files have either name.
        Named(f"numpy.{core}.{name}", make)
        for core in ("core", "_core")
        for name, make in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _array),
        )
    ),
    Named("numpy.ndarray"),
    Named("numpy.dtype", _dtype),
    Named("collections.defaultdict", _empty_dict),
    Named("collections.OrderedDict", _empty_dict),
    Named("builtins.list"),
    Named("builtins.dict"),
)

Persistent = Callable[[object], object]


def read_bytes(file: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole file; raise UserError as `check_file` does, and if the file is empty."""
    if check_file(file, limit) == 0:
        raise UserError(f"{file} is empty. Download it again.")
    return file.read_bytes()


def check_file(file: Path, limit: int) -> int:
    """Return the size of a file in bytes; raise UserError if it is missing, not a file, or larger than `limit`."""
    if not file.is_file():
        problem = (
            "is a folder" if file.is_dir() else "is not a regular file" if file.exists() else "does not exist"
        )
        raise UserError(f"{file} must be a file; it {problem}.")
    size = file.stat().st_size
    if size > limit:
        raise UserError(f"{file} must have at most {limit} bytes; it has {size}.")
    return size


def read_pickle(file: Path, allowed: Mapping[str, Named] = ARRAYS) -> object:
    """Read a pickle of dicts, lists, tuples, text, numbers and arrays, without running any of its code.

    Raises:
        UserError: if the file refers to a name that is not `allowed`, is damaged, declares more bytes than it has, or
            is too large.
    """
    data = read_bytes(file)
    value, end = parse(data, str(file), allowed)
    if end != len(data):
        raise UserError(f"{file} has {len(data) - end} bytes after the end of its pickle. It was not loaded.")
    return value


def parse(
    data: bytes,
    what: str,
    allowed: Mapping[str, Named] = ARRAYS,
    persistent: Persistent | None = None,
    start: int = 0,
    operations: Iterator[int] | None = None,
) -> tuple[Any, int]:
    """Interpret the pickle that begins at `start`.

    Args:
        data: bytes of the file.
        what: what errors call the file.
        allowed: names that the pickle may use.
        persistent: resolves persistent ids; without it, they are an error.
        start: where the pickle begins.
        operations: counts operations, if several pickles of one file share a limit.

    Returns:
        The value, and where the pickle ends.

    Raises:
        UserError: as `read_pickle` does.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine(what, allowed, persistent)
    counted = itertools.count() if operations is None else operations
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if next(counted) >= MAX_OPERATIONS:
                machine.refuse(f"has more than {MAX_OPERATIONS} operations")
            if operation.name == "STOP":
                return machine.result(), stream.tell()
            machine.step(operation.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{what} is damaged, or not a supported pickle ({_short(error)}).") from error
    raise UserError(f"{what} is damaged: its pickle does not end.")


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
    """The stack machine of a pickle, with only the operations that plain data need."""

    def __init__(self, what: str, allowed: Mapping[str, Named], persistent: Persistent | None) -> None:
        self.what = what
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.what} {reason}. It was not loaded, and none of its code was run.")

    def result(self) -> object:
        value = _plain(self.stack.pop())
        if self.stack:
            raise ValueError("values are left over")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Run one operation; raise UserError if plain data do not need it."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _LITERALS:
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([_plain(self.stack.pop()) for _ in range(_TUPLES[name])])))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            self.memory[len(self.memory) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self._fill(name)
        else:
            self._refer(name, argument)

    def _refer(self, name: str, argument: Any) -> None:
        """Run an operation that refers to a name, or calls one."""
        if name in ("GLOBAL", "INST"):
            self.stack.append(self._named(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                self.refuse("refers to a global by something other than text")
            self.stack.append(self._named(module, attribute))
        elif name == "BINPERSID" and self.persistent is not None:
            self.stack.append(self.persistent(self.stack.pop()))
        elif name in ("BINPERSID", "PERSID"):
            self.refuse("refers to objects outside itself (a persistent id)")
        elif name == "REDUCE":
            arguments, called = self.stack.pop(), self.stack.pop()
            if not isinstance(called, Named) or called.make is None or not isinstance(arguments, tuple):
                self.refuse("calls something that is not a function on the allow-list")
            self.stack.append(called.make(*arguments))
        elif name == "BUILD":
            state, target = self.stack.pop(), self.stack[-1]
            if not isinstance(target, _Array | _Dtype):
                self.refuse("sets the state of something that is not an array")
            target.build(state)
        else:
            self.refuse(f"uses the operation {name}, which arrays, dicts and lists do not need")

    def _named(self, module: str, attribute: str) -> Named:
        name = f"{module}.{attribute}"
        if name not in self.allowed:
            self.refuse(f"names {_short(name)}, which is not on the allow-list of arrays, dicts and lists")
        return self.allowed[name]

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(_plain(item))
        return items[::-1]

    def _fill(self, name: str) -> None:
        """Add items to the list or dict below them on the stack."""
        is_dict = name.startswith("SETITEM")
        if name.endswith("S"):
            items = self._since_mark()
        else:
            items = [_plain(self.stack.pop()) for _ in range(2 if is_dict else 1)][::-1]
        target = self.stack[-1]
        if not isinstance(target, dict if is_dict else list):
            raise ValueError("items are added to something other than a list or dict")
        if isinstance(target, list):
            target.extend(items)
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            flat = key if isinstance(key, tuple) else (key,)
            # Hashing recurses into tuples: deep nesting would overflow the C stack.
            if not all(type(part) is str or (type(part) is int and abs(part) <= MAX_KEY) for part in flat):
                raise ValueError(f"a dict has keys that are neither text nor integers up to {MAX_KEY}")
            target[key] = value


def _plain(value: Any) -> Any:
    """Return the finished array for an array under construction, and anything else unchanged."""
    return value.value if isinstance(value, _Array) and value.value is not None else value


def _short(value: object) -> str:
    text = " ".join(str(value).split()) if isinstance(value, str | Exception) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}…"
