"""Tensors are named by what they hold, and are what their names say when they are read again."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import UserError
from workbench.engine.tensors import FOLDER, MAX_BYTES, HashedTensor, load_tensor, save_tensor

VALUES = [[1.0, -0.0], [0.1, 3e7]]


def test_the_same_numbers_have_the_same_name_whatever_they_came_in() -> None:
    given = [
        VALUES,
        np.array(VALUES, dtype=np.float32),
        torch.tensor(VALUES),
        torch.tensor(VALUES).T.contiguous().T,
    ]
    assert len({HashedTensor.of(values) for values in given}) == 1
    assert HashedTensor.of(torch.ones(3, dtype=torch.bfloat16)) == HashedTensor.of([1, 1, 1])


def test_other_numbers_shapes_and_formats_have_other_names() -> None:
    given = [
        VALUES,
        VALUES[0] + VALUES[1],
        VALUES[::-1],
        torch.tensor(VALUES, dtype=torch.float64),
        [[1.0, 0.0], VALUES[1]],
    ]
    assert len({HashedTensor.of(values).hash for values in given}) == len(given)


def test_a_name_is_the_same_on_every_machine() -> None:
    expected = "2676b692c14817bb0e28739afd9a09845dd4aa3079a6fee48c3716167a0c9bd5"
    assert HashedTensor.of([1.0, 2.0]).hash == expected


def test_what_is_given_is_copied() -> None:
    values = torch.ones(2)
    tensor = HashedTensor.of(values)
    values += 1
    assert tensor.value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_written_and_read(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = HashedTensor.of(torch.tensor(VALUES, dtype=dtype))
    save_tensor(tmp_path, tensor)
    found = load_tensor(tmp_path, tensor.hash)
    assert found == tensor
    assert torch.equal(found.value, tensor.value)
    assert found.value.dtype == dtype


@pytest.mark.parametrize(
    "fault", ["missing", "other numbers", "other name", "no file of tensors", "a link", "huge"]
)
def test_what_is_not_what_its_name_says_is_refused(tmp_path: Path, fault: str) -> None:
    root = tmp_path / "study"
    tensor = HashedTensor.of(VALUES)
    save_tensor(root, tensor)
    (file,) = (root / FOLDER).iterdir()
    if fault == "other numbers":
        save_file({"value": tensor.value + 1}, file)
    elif fault == "other name":
        save_file({"vector": tensor.value}, file)
    elif fault == "huge":
        with file.open("r+b") as opened:
            os.truncate(opened.fileno(), MAX_BYTES + 1)
    elif fault == "no file of tensors":
        file.write_bytes(b"no tensors")
    else:
        file.rename(tmp_path / "elsewhere")
        if fault == "a link":
            file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError):
        load_tensor(root, tensor.hash)


@pytest.mark.parametrize("name", ["", "../../secret", "0" * 63, "G" * 64])
def test_a_name_that_is_no_hash_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        load_tensor(tmp_path, name)


@pytest.mark.parametrize("bad", [[float("nan")], [float("inf")]])
def test_numbers_must_be_finite(bad: list[float]) -> None:
    with pytest.raises(UserError, match="finite"):
        HashedTensor.of(bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_is_at_most_as_large_as_can_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("workbench.engine.tensors.MAX_BYTES", 2048)
    most = 1024 // dtype.itemsize
    largest = HashedTensor.of(torch.ones(most, dtype=dtype))
    save_tensor(tmp_path, largest)
    assert load_tensor(tmp_path, largest.hash) == largest
    with pytest.raises(UserError, match="less than 0"):
        HashedTensor.of(torch.ones(most + 1, dtype=dtype))


def test_matrices_of_published_autoencoders_fit() -> None:
    assert 2560 * (16 * 2560) * torch.float32.itemsize < MAX_BYTES
    too_many = torch.zeros(1, dtype=torch.float64).expand(2**27)  # takes no memory
    with pytest.raises(UserError, match="less than 1024 MiB"):
        HashedTensor.of(too_many)


def test_a_large_tensor_of_many_edits_is_kept_once() -> None:
    given = torch.ones(3)
    first = HashedTensor.of(given)
    assert HashedTensor.of(given).value is first.value
    given += 1
    assert first.value.tolist() == [1, 1, 1]
    assert HashedTensor.of(given) != first
