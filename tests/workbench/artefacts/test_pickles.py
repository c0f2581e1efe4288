"""Pickles are read for their data, and what would run something is refused by its name and not run."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import UserError
from workbench.artefacts import pickles
from workbench.artefacts.pickles import ARRAYS, read_pickle
from workbench.artefacts.torch_files import read_tensors

RAW = np.arange(3, dtype="<f4").tobytes()


def write(folder: Path, data: bytes, name: str = "file.pkl") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Sets:
    """An object whose pickle sets a state."""

    def __reduce__(self) -> Any:
        return defaultdict, (list,), {"default_factory": os.system}


class Keeps:
    """A plain object of a class of ours."""


def canary_command(canary: Path) -> str:
    return f"touch {canary}"


def hostile(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would run something, by a name, each with what must be told."""
    command = canary_command(canary)
    code = f"open({str(canary)!r}, 'w')"
    system = f"{os.system.__module__}.system"
    return {
        "system": (pickle.dumps({(0, 0): Calls(os.system, command)}), system),
        "deep inside": (pickle.dumps({"a": [[({"b": Calls(os.system, command)},)]]}), system),
        "eval": (pickle.dumps(Calls(eval, code)), "builtins.eval"),
        "exec": (pickle.dumps(Calls(exec, code)), "builtins.exec"),
        "getattr": (
            pickle.dumps(Calls(getattr, "", "join")),
            "builtins.getattr",
        ),
        "import": (pickle.dumps(Calls(__import__, "os")), "builtins.__import__"),
        "numpy load": (b"\x80\x04cnumpy\nload\n(V" + str(canary).encode() + b"\ntR.", "numpy.load"),
        "numpy exec": (b"\x80\x04cnumpy.testing._private.utils\nrunstring\n.", "runstring"),
        "a submodule of an allowed one": (
            b"\x80\x04cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
            "numpy.core.multiarray._reconstruct.__globals__",
        ),
        "by the stack": (
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c"
            + bytes([len(command)])
            + command.encode()
            + b"\x85R.",
            "posix.system",
        ),
        "the old way": (b"(V" + command.encode() + b"\nios\nsystem\n.", "UNICODE"),
        "an instance the old way": (b"\x80\x02(ios\nsystem\n.", "os.system"),
        "a factory": (pickle.dumps(defaultdict(os.getcwd, {"a": 1})), "getcwd"),
        "a state": (pickle.dumps(Sets()), system),
        "a state of a function": (
            b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n}\x8c\x04make\x8c\x04evilsb.",
            "sets the state of something",
        ),
        "a class": (pickle.dumps(Keeps()), "Keeps"),
        "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "a new object": (b"\x80\x02cbuiltins\nlist\n)\x81.", "NEWOBJ"),
        "a call of text": (b"\x80\x04\x8c\x02os)R.", "calls something that is not a function"),
        "a call of a class": (b"\x80\x04cnumpy\nndarray\n)R.", "calls something that is not a function"),
        "a persistent id": (b"\x80\x04K\x01Q.", "persistent id"),
        "a persistent id in text": (b"\x80\x04Pabc\n.", "persistent id"),
        "a buffer from elsewhere": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    }


NAMES = list(hostile(Path("canary")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("read", [read_pickle, read_tensors], ids=["arrays", "tensors"])
def test_what_would_run_something_is_refused_by_its_name(tmp_path: Path, name: str, read: Any) -> None:
    canary = tmp_path / "canary"
    data, told = hostile(canary)[name]
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, data))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["system", "eval", "numpy load"])
def test_these_files_are_hostile_indeed(tmp_path: Path, name: str) -> None:
    """Python's own reader runs them: the canary would show it."""
    canary = tmp_path / "canary"
    data, _ = hostile(canary)[name]
    if name == "numpy load":
        np.save(tmp_path / "canary.npy", np.ones(1))
        data = data.replace(str(canary).encode(), str(tmp_path / "canary.npy").encode())
        assert pickle.loads(data).tolist() == [1]
        return
    pickle.loads(data)
    assert canary.exists()


def test_torch_pickles_that_would_run_something_are_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"direction": Calls(os.system, canary_command(canary))}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=rf"names {os.system.__module__}\.system"):
        read_tensors(tmp_path / "a.pt")
    inner = io.BytesIO()
    torch.save(Calls(os.system, canary_command(canary)), inner, _use_new_zipfile_serialization=False)
    nested = pickle.dumps({"tfidf": Calls(torch.storage._load_from_bytes, inner.getvalue())})
    with pytest.raises(UserError, match=rf"names {os.system.__module__}\.system"):
        read_tensors(write(tmp_path, nested))
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_data_are_read_as_python_reads_them(tmp_path: Path, protocol: int) -> None:
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    held = {
        (0, 1): defaultdict(list, {"tf0": [shared], "tf1": [shared]}),
        "text": "ä" * 300,
        "numbers": [1, -7, 2.5, 10**12, True, None, np.float32(0.25), np.float64(3.5)],
        "types": [np.arange(3).astype(kind) for kind in ("f2", "f8", "i1", "u2", "i8", "b1")],
        "fortran": np.asfortranarray(shared),
        "strided": np.arange(12.0)[::2],
        "ordered": OrderedDict(a=1),
        "empty": np.zeros((0, 4), np.float32),
        "bytes": b"\x00\x01",
    }
    file = write(tmp_path, pickle.dumps(held, protocol))
    read: Any = read_pickle(file)
    assert list(read) == list(held)
    np.testing.assert_equal(read, held)
    assert read[0, 1]["tf0"][0].dtype == np.float32
    assert type(read[0, 1]) is dict


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_both_names_of_numpys_private_modules_are_known(tmp_path: Path, core: str) -> None:
    data = pickle.dumps(np.arange(3.0), 2)
    data = data.replace(b"numpy.core.", f"{core}.".encode()).replace(b"numpy._core.", f"{core}.".encode())
    if b"_codecs" in data:  # protocol 2 has no bytes of its own
        data = pickle.dumps(np.arange(3.0), 3)
        data = data.replace(b"numpy.core.", f"{core}.".encode()).replace(b"numpy._core.", f"{core}.".encode())
    np.testing.assert_array_equal(read_pickle(write(tmp_path, data)), np.arange(3.0))


def array_of(shape: bytes, raw: bytes = RAW, kind: bytes = b"f4", order: bytes = b"<") -> bytes:
    """A pickle of one array, its parts as they are given; `shape` in pickle's operations."""
    return (
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\n\x8c"
        + bytes([len(kind)])
        + kind
        + b"\x89\x88\x87R(K\x03\x8c\x01"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B"
        + struct.pack("<I", len(raw))
        + raw
        + b"tb."
    )


def test_an_array_by_hand(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_pickle(write(tmp_path, array_of(b"K\x03\x85"))), [0, 1, 2])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (array_of(b"J\xff\xff\xff\x7f\x85"), "declares 8589934588 bytes and has 12"),
        (array_of(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85"), "declares"),
        (array_of(b"K\x02\x85"), "declares 8 bytes and has 12"),
        (array_of(b"J\xff\xff\xff\xff\x85"), "with an invalid shape"),
        (array_of(b"\x8c\x01a\x85"), "with an invalid shape"),
        (array_of(b"K\x03\x85", kind=b"O8"), "numbers of type O8"),
        (array_of(b"K\x03\x85", kind=b"V4"), "numbers of type V4"),
        (array_of(b"K\x03\x85", order=b">"), "little-endian"),
        (b"\x80\x04B" + struct.pack("<I", 2**31 - 1) + b"abc.", "damaged"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.", "damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "damaged"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}", "damaged"),
        (b"\x80\x04}h\x05.", "damaged"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04]a.", "damaged"),
        (b"\x80\x04K\x01K\x02.", "left over"),
        (b"\x80\x04K\x01K\x02a.", "other than a list or dict"),
        (b"\x80\x04}]K\x01s.", "keys that are neither"),
        (b"not a pickle", "damaged"),
        (b"\x80\x04}", "damaged"),
    ],
)
def test_what_declares_more_than_it_has_or_makes_no_sense_is_refused(
    tmp_path: Path, data: bytes, told: str
) -> None:
    with pytest.raises(UserError) as refused:
        read_pickle(write(tmp_path, data))
    assert told in str(refused.value)


def test_a_memory_index_takes_no_memory(tmp_path: Path) -> None:
    """Python's reader would allocate a table of four thousand million entries."""
    assert read_pickle(write(tmp_path, b"\x80\x04}r\xff\xff\xff\xff.")) == {}


def test_arrays_of_the_same_bytes_share_them(tmp_path: Path) -> None:
    """A file that names its bytes again and again does not grow in memory."""
    raw = np.zeros(2**16, "<f4").tobytes()
    one = b"h\x00(h\x01h\x02J\x00\x00\x01\x00\x85\x8c\x01CtR"
    start = (
        (
            b"\x80\x04cnumpy.core.numeric\n_frombuffer\nq\x000B"
            + struct.pack("<I", len(raw))
            + raw
            + b"q\x010cnumpy\ndtype\n\x8c\x02f4\x85Rq\x020"
        )
        .replace(b"q\x000", b"q\x00")
        .replace(b"q\x010", b"q\x01")
        .replace(b"q\x020", b"q\x02")
    )
    # The three stay on the stack below the list, so that the list is the last of a tuple.
    data = start + b"](" + one * 1000 + b"e" + b"\x87" + b"."
    data = data.replace(start, b"\x80\x04(" + start[2:]).replace(b"e\x87.", b"et.")
    read: Any = read_pickle(write(tmp_path, data), ARRAYS)
    arrays = read[-1]
    assert len(arrays) == 1000
    assert all(np.shares_memory(array, arrays[0]) for array in arrays)


@pytest.mark.parametrize("opened", [b"]", b")", b"("])
def test_what_nests_without_end_does_not_end_the_process(tmp_path: Path, opened: bytes) -> None:
    depth = 50_000
    data = {b"]": b"]" * depth + b"a" * (depth - 1), b")": b")" + b"\x85" * depth, b"(": b"(" * depth}[opened]
    as_key = b"\x80\x04}" + data + b"K\x01s."
    with pytest.raises(UserError):
        read_pickle(write(tmp_path, as_key))


def test_too_many_operations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 100)
    with pytest.raises(UserError, match="more than 100 operations"):
        read_pickle(write(tmp_path, b"\x80\x04" + b"]" * 200 + b"."))


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for name, told in (("none", "does not exist"), ("folder", "is a folder"), ("empty", "is empty")):
        if name == "folder":
            (tmp_path / name).mkdir()
        elif name == "empty":
            (tmp_path / name).touch()
        with pytest.raises(UserError, match=told):
            read_pickle(tmp_path / name)
    file = write(tmp_path, pickle.dumps({"a": 1}) + b"more")
    with pytest.raises(UserError, match="4 bytes after the end"):
        read_pickle(file)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(pickles.MAX_BYTES + 1)
    with pytest.raises(UserError, match="must have at most"):
        read_pickle(file)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_are_read_as_torch_reads_them(tmp_path: Path, protocol: int, kind: torch.dtype) -> None:
    whole = torch.arange(24).reshape(4, 6).to(kind)
    held = {"whole": whole, "part": whole[1:3, 2:], "turned": whole.T, "one": whole[0, 1], "none": whole[:0]}
    torch.save(held, tmp_path / "a.pt", pickle_protocol=protocol)
    for file in (tmp_path / "a.pt", write(tmp_path, pickle.dumps(held, protocol + 1))):
        read: Any = read_tensors(file)
        for name, tensor in held.items():
            expected = tensor.float().numpy() if kind == torch.bfloat16 else tensor.numpy()
            np.testing.assert_array_equal(read[name], expected)
            assert read[name].dtype == expected.dtype


def archive(folder: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """A torch archive with some members changed, or left out (None)."""
    torch.save({"direction": torch.ones(4)}, folder / "whole.pt")
    file = folder / "changed.pt"
    with zipfile.ZipFile(folder / "whole.pt") as whole, zipfile.ZipFile(file, "w", compression) as changed:
        for name in whole.namelist():
            content = change.get(name.partition("/")[2], whole.read(name))
            if content is not None:
                changed.writestr(name, content)
    return file


def test_archives_that_are_not_what_they_say_are_refused(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_tensors(archive(tmp_path, {}))["direction"], np.ones(4))  # type: ignore[index]
    for change, told in (
        ({"data/0": b"\0" * 12}, "declares 16 bytes and has 12"),
        ({"data/0": None}, "no item named"),
        ({"data.pkl": None}, "no data.pkl"),
        ({"byteorder": b"big"}, "little-endian"),
        ({"data.pkl": b"\x80\x02}"}, "damaged"),
    ):
        with pytest.raises(UserError, match=told):
            read_tensors(archive(tmp_path, change))  # type: ignore[arg-type]
    bomb = archive(tmp_path, {"data/0": b"\0" * 10_000_000}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(UserError, match="compressed archive"):
        read_tensors(bomb)
    whole = (tmp_path / "whole.pt").read_bytes()
    with pytest.raises(UserError, match="damaged archive"):
        read_tensors(write(tmp_path, whole[: len(whole) // 2], "half.pt"))


def test_an_archive_that_declares_more_than_it_has_is_refused(tmp_path: Path) -> None:
    """The directory at the end says what a member's size is: the bytes there are not asked for."""
    data = bytearray(archive(tmp_path, {}).read_bytes())
    at = data.rindex(b"archive/data/0" if b"archive/data/0" in data else b"/data/0")
    at = data.rindex(b"PK\x01\x02", 0, at)
    data[at + 20 : at + 28] = struct.pack("<II", 2**30, 2**30)
    with pytest.raises(UserError, match="declares more bytes than it has"):
        read_tensors(write(tmp_path, bytes(data), "declares.pt"))


def legacy(count: int, told: int, raw: bytes) -> bytes:
    """The bytes that a tensor's storage carries in a plain pickle."""
    key = b"\x8c\x01k"
    storage = (
        b"\x80\x04(\x8c\x07storagectorch\nFloatStorage\n" + key + b"\x8c\x03cpuJ" + struct.pack("<i", count)
    )
    head = [pickle.dumps(0x1950A86A20F9469CFC6C), pickle.dumps(1001), pickle.dumps({"little_endian": True})]
    return b"".join([*head, storage + b"NtQ.", pickle.dumps(["k"]), struct.pack("<q", told), raw])


@pytest.mark.parametrize(
    ("count", "told", "raw", "size", "words"),
    [
        (2**31 - 1, 2**31 - 1, b"\0" * 16, 4, "declares 8589934588 bytes and has 16"),
        (4, 2**40, b"\0" * 16, 4, "two different sizes"),
        (4, 4, b"\0" * 16, 5, "beyond its storage"),
        (4, 4, b"\0" * 12, 4, "declares 16 bytes and has 12"),
    ],
)
def test_storages_that_declare_more_than_they_have_are_refused(
    tmp_path: Path, count: int, told: int, raw: bytes, size: int, words: str
) -> None:
    carried = legacy(count, told, raw)
    data = (
        b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(carried))
        + carried
        + b"\x85RK\x00K"
        + bytes([size])
        + b"\x85K\x01\x85\x89}tR."
    )
    with pytest.raises(UserError, match=words):
        read_tensors(write(tmp_path, data))


def test_a_stride_of_zero_does_not_make_much_of_little(tmp_path: Path) -> None:
    held = {"a": torch.ones(1).expand(1000)}
    with pytest.raises(UserError, match="beyond its storage"):
        read_tensors(write(tmp_path, pickle.dumps(held)))


def test_reading_imports_nothing_that_a_file_names(tmp_path: Path) -> None:
    sys.modules.pop("this", None)
    with pytest.raises(UserError, match=r"names this\.s"):
        read_pickle(write(tmp_path, b"\x80\x04cthis\ns\n."))
    assert "this" not in sys.modules
