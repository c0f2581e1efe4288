"""Small files that would take gigabytes or hours are refused before they do."""

import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import UserError
from cache.opening import UnsafeFile
from tests.workbench.artefacts import builders
from tests.workbench.artefacts.test_pickles import archive, write
from workbench.artefacts import pickles
from workbench.artefacts.austeer import read_austeer
from workbench.artefacts.caa import read_caa
from workbench.artefacts.checks import MemoryBudget
from workbench.artefacts.lora import read_lora
from workbench.artefacts.pickles import read_pickle
from workbench.artefacts.sae_folder import read_sae
from workbench.artefacts.scores import read_scores
from workbench.artefacts.sources import find_artefact, read_settings
from workbench.artefacts.torch_files import read_tensors
from workbench.tensor_files import load_tensors

MIB = 2**20
HASH_MODULUS = 2**61 - 1  # integers that differ by it have one hash


@contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """What Python and NumPy take inside of the block, at its highest."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "key",
    [lambda n: n * HASH_MODULUS, lambda n: -n * HASH_MODULUS, lambda n: (0, n * HASH_MODULUS)],
    ids=["integers", "negative", "in tuples"],
)
def test_colliding_keys_are_refused_at_the_first(tmp_path: Path, key: Callable[[int], Any]) -> None:
    """Python compares each of 200,000 such keys with all before it: more than a minute."""
    data = b"\x80\x04}(" + b"".join(_operations(key(n)) + b"N" for n in range(1, 1001)) + b"u."
    with pytest.raises(UserError, match="keys that are neither text nor integers up to"):
        read_pickle(write(tmp_path, data))


def test_keys_as_large_as_steps_are_read(tmp_path: Path) -> None:
    held = {2**20: "a", (-1, 2**20): "b"}
    assert read_pickle(write(tmp_path, pickle.dumps(held))) == held


def _operations(key: Any) -> bytes:
    """The operations of a pickle that put an integer, or a pair of them, on the stack."""
    if isinstance(key, tuple):
        return _operations(key[0]) + _operations(key[1]) + b"\x86"
    raw = key.to_bytes(12, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


LARGE = b"\x8a\xff" + b"\xff" * 254 + b"\x00"


@pytest.mark.parametrize("n", [2, 33, 3000])
def test_a_shape_of_huge_integers_is_not_multiplied(tmp_path: Path, n: int) -> None:
    start = b"\x80\x04cnumpy.core.numeric\n_frombuffer\n(C\x04abcdcnumpy\ndtype\n\x8c\x02f4\x85R("
    data = start + LARGE * n + b"t\x8c\x01CtR."
    with pytest.raises(UserError, match="with an invalid shape"):
        read_pickle(write(tmp_path, data))


@pytest.mark.parametrize("part", ["size", "stride", "offset"])
def test_a_tensor_of_huge_integers_is_not_multiplied(tmp_path: Path, part: str) -> None:
    ones, many = b"K\x01\x85", b"(" + LARGE * 3000 + b"t"
    offset = LARGE if part == "offset" else b"K\x00"
    size, stride = (many if part == name else ones for name in ("size", "stride"))
    storage = b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride + b"\x89}tR"
    changed = archive(tmp_path, {"data.pkl": b"\x80\x04}\x8c\x09direction" + tensor + b"s."})
    with pytest.raises(UserError, match="with an invalid shape"):
        read_tensors(changed)


def shared_vectors(count: int, size: int, dtype: str = "<f8") -> Any:
    """`count` steps of one array."""
    vector = np.ones(size, dtype) / np.sqrt(size)
    return {(step, 0): {"tf0": [vector]} for step in range(count)}


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
def test_one_array_named_many_times_is_refused(tmp_path: Path, dtype: str) -> None:
    held = shared_vectors(1500, 2**21, dtype)
    folder = builders.write_caa(tmp_path / "source", held, num_inference_steps=1500)
    with at_most(400), pytest.raises(UserError, match="refers to the same numbers so often"):
        read_caa(str(folder))


def test_one_table_of_sites_named_many_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that share their sites are millions of entries in a few kilobytes."""
    monkeypatch.setattr(MemoryBudget, "_BASE_BYTES", 0)
    vector = np.ones(1, np.float32)
    sites = {f"tf{number}": [vector] for number in range(60)}
    folder = builders.write_caa(tmp_path / "source", {(step, 0): sites for step in range(60)})
    with pytest.raises(UserError, match="refers to the same numbers so often"):
        read_caa(str(folder))
    of_site = {site: {"betas": vector, "scores": vector} for site in sites}
    folder = builders.write_austeer(tmp_path / "other", dict.fromkeys(range(60), of_site))
    with pytest.raises(UserError, match="refers to the same numbers so often"):
        read_austeer(str(folder))


def test_honest_files_may_share_their_arrays(tmp_path: Path) -> None:
    folder = builders.write_caa(tmp_path / "source", shared_vectors(3, 8, "<f4"))
    assert read_caa(str(folder)).vectors["tf0.cross_attn", "cond"].shape == (3, 8)


@pytest.mark.parametrize(
    "value", [b"]" * 5000 + b"a" * 4999, b")" + b"q\x00h\x00\x86" * 40], ids=["lists", "tuples"]
)
def test_a_name_that_is_no_text_is_not_printed(tmp_path: Path, value: bytes) -> None:
    """Forty pairs of pairs are small in memory and 10^12 brackets in print; 5,000 lists in lists end the process."""
    with pytest.raises(UserError, match="by something other than text"):
        read_pickle(write(tmp_path, b"\x80\x04" + value + value[:1] + b"\x93."))


def test_storages_inside_of_a_file_share_its_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, pickle.dumps([torch.ones(2) for _ in range(20)], 4))
    assert len(read_tensors(file)) == 20  # type: ignore[arg-type]
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 500)  # of each storage alone there are about 40
    with pytest.raises(UserError, match="more than 500 operations"):
        read_tensors(file)


def safetensors(header: object, body: bytes = b"", declared: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if declared is None else declared) + text + body


def tensor(shape: list[int], first: int, last: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


SAFETENSORS = {
    "a header of exabytes": safetensors(b"{}", declared=2**62),
    "a header of a terabyte": safetensors(b"{}", declared=2**40),
    "a header beyond its limit": safetensors(b"{}", declared=2**24 + 1),
    "numbers that overlap": safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, b"\0" * 12),
    "numbers that are shared": safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 0, 8)}, b"\0" * 8),
    "a key given twice": safetensors(
        b'{"a":'
        + json.dumps(tensor([1], 0, 4)).encode()
        + b',"a":'
        + json.dumps(tensor([1], 4, 8)).encode()
        + b"}",
        b"\0" * 8,
    ),
    "a shape without end": safetensors({"a": tensor([0] * 200_000, 0, 0)}),
    "an axis that no machine can count": safetensors({"a": tensor([0, 2**63], 0, 0)}),
    "a huge empty axis": safetensors({"a": tensor([0, 2**62], 0, 0)}),
    "a size that overflows": safetensors({"a": tensor([2**62, 2**62], 0, 16)}, b"\0" * 16),
    "quarter bytes": safetensors({"a": tensor([2], 0, 1, "F4")}, b"\0"),
    "complex numbers": safetensors({"a": tensor([1], 0, 8, "C64")}, b"\0" * 8),
    "brackets": safetensors(b'{"a":' + b"[" * 200_000),
    "bytes at its end": safetensors({"a": tensor([1], 0, 4)}, b"\0" * 9),
    "metadata that is no text": safetensors({"__metadata__": {"a": [1]}, "b": tensor([1], 0, 4)}, b"\0" * 4),
    "a pickle": pickle.dumps({"a": np.ones(4)}),
    "nothing": b"",
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, SAFETENSORS[name], "a.safetensors")
    with at_most(100), pytest.raises(UserError, match="is not a valid safetensors file"):
        load_tensors(tmp_path, "a.safetensors")


def test_tensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    held = {"a": torch.tensor([1.5, 2.0], dtype=torch.bfloat16), "b": torch.arange(3)}
    save_file(held, tmp_path / "a.safetensors", {"told": "so"})
    arrays, metadata = load_tensors(tmp_path, "a.safetensors")
    assert arrays["a"].dtype == np.float32
    assert arrays["a"].tolist() == [1.5, 2.0]
    assert arrays["b"].tolist() == [0, 1, 2]
    assert metadata == {"told": "so"}


@pytest.mark.parametrize("nested", [b'{"a":' * 60 + b"1" + b"}" * 60, b'{"a": 1}'])
def test_settings_may_nest_a_little(tmp_path: Path, nested: bytes) -> None:
    assert list(read_settings(write(tmp_path, nested, "config.json"))) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a":' + b"[" * 200_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"[1]",
    ],
    ids=["objects", "lists", "brackets", "digits", "binary", "a list"],
)
def test_settings_that_are_none_get_a_sentence(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(UserError, match="must be a JSON object"):
        read_settings(write(tmp_path, text, "config.json"))


READERS: dict[str, tuple[Callable[[Path], Path], str, Callable[[str], object]]] = {
    "caa": (builders.write_caa, "sv.pkl", read_caa),
    "scores": (builders.write_scores, "tf6_scores.pkl", read_scores),
    "lora": (builders.write_lora, "pytorch_lora_weights.safetensors", read_lora),
    "sae": (lambda at: builders.write_sae(at / "tf1.cross_attn"), "sae.safetensors", read_sae),
    "settings": (builders.write_caa, "config.json", read_caa),
    "settings of an autoencoder": (
        lambda at: builders.write_sae(at / "tf1.cross_attn"),
        "cfg.json",
        read_sae,
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_links_and_pipes_in_an_artefacts_folder_are_refused(tmp_path: Path, name: str) -> None:
    make, file, read = READERS[name]
    folder = make(tmp_path / "source")
    read(str(folder))
    outside = tmp_path / "outside"
    (folder / file).rename(outside)
    (folder / file).symlink_to(outside)
    with pytest.raises(UnsafeFile, match="must be a file; it is a link"):
        read(str(folder))
    (folder / file).unlink()
    (folder / file).symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError):
        read(str(folder))
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(UserError, match="named pipe"):
        read(str(folder))


def test_the_hubs_cache_may_have_its_own_links(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    folder = builders.write_caa(repository / "snapshots" / "0123")
    (repository / "blobs").mkdir()
    for file in list(folder.iterdir()):
        file.rename(repository / "blobs" / f"{file.stem}hash")
        file.symlink_to(f"../../blobs/{file.stem}hash")
    assert read_caa(str(folder)).steps == builders.STEPS
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "sv.pkl").unlink()
    (folder / "sv.pkl").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFile, match="is a link"):
        read_caa(str(folder))


def test_a_file_that_is_larger_than_any_artefact_is_not_even_hashed(tmp_path: Path) -> None:
    with (tmp_path / "sv.pkl").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(UserError, match="must have at most"):
        find_artefact(str(tmp_path), "sv.pkl")
