"""Pickles of others, read without running anything that they ask for.

A pickle is a program. Python's own `Unpickler` with a restricted `find_class` still allocates what a file declares
before it has read it, sets attributes on whatever the file points at, and hashes whatever nests. So the operations are
interpreted here, one by one, out of `pickletools`' parse: there are few of them, the names that they may use are an
allow-list, and behind each name stands a function of this project that checks its arguments. Every other name and
every other operation is refused by its name.

`torch.load(weights_only=True)` runs no code either, but bounds neither time nor memory: of a dictionary whose integer
keys share one hash it takes 2.7 s to read 280 kB, and four times as long for twice as much.
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
# An operation is a byte in the file and up to some hundred bytes in memory.
MAX_OPERATIONS = 2_000_000
MAX_AXES = 32
# Integers as keys are steps and passes. Python hashes integers without a secret: of larger ones a file could name
# as many as it likes that all fall on one place of the dictionary, and each would be compared with all others.
MAX_KEY = 2**20
NUMBER_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


@dataclass(frozen=True, eq=False)
class Named:
    """What a pickle may name. `make` gives what a call of it stands for; without it, it can only be named."""

    name: str
    make: Callable[..., object] | None = None


class _Dtype:
    """A number type while a file describes it."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or code not in NUMBER_TYPES:
            raise ValueError(f"numbers of the type {_short(code)}")
        self.dtype = np.dtype(f"<{code}")

    def build(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", "|"):
            raise ValueError("numbers that are not little-endian")


class _Array:
    """An array while a file describes it; `value` once it has its numbers."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array that is not described as numpy does")
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran is True else "C")


def _array(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """An array of exactly the bytes that are there, and on them: naming the same bytes often takes no memory."""
    if not isinstance(raw, bytes) or not isinstance(dtype, _Dtype) or not isinstance(order, str):
        raise ValueError("an array that is not plain numbers")
    axes = sizes(shape, "an array whose shape is no shape")
    declared = math.prod(axes) * dtype.dtype.itemsize
    if declared != len(raw):
        raise ValueError(f"an array that declares {declared} bytes and has {len(raw)}")
    return np.frombuffer(raw, dtype.dtype).reshape(axes, order="F" if order == "F" else "C")


def sizes(shape: object, fault: str) -> tuple[int, ...]:
    """A shape of at most `MAX_AXES` sizes that a file can have; raises ValueError with `fault` for anything else.

    The product of thousands of large numbers would take minutes and gigabytes.
    """
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES:
        raise ValueError(fault)
    if not all(type(size) is int and 0 <= size < 2 * MAX_BYTES for size in shape):
        raise ValueError(fault)
    return shape


def _reconstruct(kind: object, shape: object, code: object) -> object:
    del shape, code  # of the empty array that numpy starts from
    if not isinstance(kind, Named) or kind.name != "numpy.ndarray":
        raise ValueError("an array of a class of its own")
    return _Array()


def _scalar(dtype: object, raw: object) -> object:
    return _array(raw, dtype, (), "C").item()


def _dtype(code: object, *_: object) -> object:
    return _Dtype(code)


def _empty_dict(factory: object = None) -> object:
    """A dict in the place of a defaultdict: what it makes for missing keys is of no use to a reader."""
    if factory is not None and (
        not isinstance(factory, Named) or factory.name not in ("builtins.list", "builtins.dict")
    ):
        raise ValueError("a dictionary that calls something for missing keys")
    return {}


def allow(*named: Named) -> dict[str, Named]:
    """An allow-list: each by its name."""
    return {each.name: each for each in named}


ARRAYS = allow(
    *(
        # numpy 2 moved its private modules, and wrote both names at one time or another.
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
    """A whole file; raises UserError as `check_file` does, and when it is empty."""
    if check_file(file, limit) == 0:
        raise UserError(f"{file} is empty: fetch it again.")
    return file.read_bytes()


def check_file(file: Path, limit: int) -> int:
    """The size of a file in bytes; raises UserError when it is missing, no file, or larger than `limit` bytes."""
    if not file.is_file():
        told = "is a folder" if file.is_dir() else "is no file" if file.exists() else "does not exist"
        raise UserError(f"{file} {told}, where a file is needed.")
    size = file.stat().st_size
    if size > limit:
        raise UserError(f"{file} has {size} bytes, and no such file has more than {limit}: it is not read.")
    return size


def read_pickle(file: Path, allowed: Mapping[str, Named] = ARRAYS) -> object:
    """What a pickle holds: dicts, lists, tuples, text, numbers and arrays, and nothing else.

    Raises UserError, and has then run nothing, for a file that names anything that is not `allowed`, is damaged,
    declares more than it has, or is too large.
    """
    data = read_bytes(file)
    value, end = parse(data, str(file), allowed)
    if end != len(data):
        raise UserError(f"{file} has {len(data) - end} bytes after its end: it is not what it seems.")
    return value


def parse(
    data: bytes,
    what: str,
    allowed: Mapping[str, Named] = ARRAYS,
    persistent: Persistent | None = None,
    start: int = 0,
    operations: Iterator[int] | None = None,
) -> tuple[Any, int]:
    """The value of the pickle that begins at `start`, and where it ends; `what` names the file in errors.

    `persistent` gives the objects to which the pickle refers by an id of its own; without it there are none.
    `operations` counts them where several pickles of one file share their limit.
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
        raise UserError(f"{what} is damaged or no pickle that can be read ({_short(error)}).") from error
    raise UserError(f"{what} is damaged: it has no end.")


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
    """The stack and the memory of a pickle, and the operations that data needs."""

    def __init__(self, what: str, allowed: Mapping[str, Named], persistent: Persistent | None) -> None:
        self.what = what
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.what} {reason}: it is refused, and nothing of it was run.")

    def result(self) -> object:
        value = _plain(self.stack.pop())
        if self.stack:
            raise ValueError("values are left over")
        return value

    def step(self, name: str, argument: Any) -> None:
        """One operation; those that data does not need are refused."""
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
        """Operations that name something, or call what was named."""
        if name in ("GLOBAL", "INST"):
            self.stack.append(self._named(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                self.refuse("names something by what is no text")
            self.stack.append(self._named(module, attribute))
        elif name == "BINPERSID" and self.persistent is not None:
            self.stack.append(self.persistent(self.stack.pop()))
        elif name in ("BINPERSID", "PERSID"):
            self.refuse("refers to objects outside itself (a persistent id)")
        elif name == "REDUCE":
            arguments, called = self.stack.pop(), self.stack.pop()
            if not isinstance(called, Named) or called.make is None or not isinstance(arguments, tuple):
                self.refuse("calls something that is no function of the allow-list")
            self.stack.append(called.make(*arguments))
        elif name == "BUILD":
            state, target = self.stack.pop(), self.stack[-1]
            if not isinstance(target, _Array | _Dtype):
                self.refuse("sets the state of something that is no array")
            target.build(state)
        else:
            self.refuse(f"uses the operation {name}, which arrays, dictionaries and lists do not need")

    def _named(self, module: str, attribute: str) -> Named:
        name = f"{module}.{attribute}"
        if name not in self.allowed:
            self.refuse(
                f"names {_short(name)}, which is not on the allow-list of arrays, dictionaries and lists"
            )
        return self.allowed[name]

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(_plain(item))
        return items[::-1]

    def _fill(self, name: str) -> None:
        """Put items into the list or the dict below them."""
        of_dict = name.startswith("SETITEM")
        if name.endswith("S"):
            items = self._since_mark()
        else:
            items = [_plain(self.stack.pop()) for _ in range(2 if of_dict else 1)][::-1]
        target = self.stack[-1]
        if not isinstance(target, dict if of_dict else list):
            raise ValueError("items are put into what is no container")
        if isinstance(target, list):
            target.extend(items)
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            flat = key if isinstance(key, tuple) else (key,)
            # Hashing recurses into tuples: what nests deep would end the process.
            if not all(type(part) is str or (type(part) is int and abs(part) <= MAX_KEY) for part in flat):
                raise ValueError(f"a dictionary has keys that are neither text nor numbers up to {MAX_KEY}")
            target[key] = value


def _plain(value: Any) -> Any:
    """An array for what has become one."""
    return value.value if isinstance(value, _Array) and value.value is not None else value


def _short(value: object) -> str:
    text = " ".join(str(value).split()) if isinstance(value, str | Exception) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}…"
