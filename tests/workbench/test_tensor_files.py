"""Files of arrays: written whole or not at all, as readable as any other file."""

from pathlib import Path

import numpy as np
import pytest

from cache.errors import UserError
from tests.full_disk import full_disk
from workbench.tensor_files import load_tensors, write_tensors

ARRAYS = {"rows": np.arange(600.0).reshape(20, 30).T, "one": np.array(2.5, np.float32)}


def test_arrays_come_back_with_their_axes_and_metadata(tmp_path: Path) -> None:
    write_tensors(tmp_path / "new" / "a.safetensors", ARRAYS, {"name": "é"})
    arrays, metadata = load_tensors(tmp_path, "new/a.safetensors")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].shape == array.shape
    assert metadata == {"name": "é"}


def test_arrays_do_not_change_with_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {})
    arrays, _ = load_tensors(tmp_path, "a.safetensors")
    file = tmp_path / "a.safetensors"
    file.write_bytes(bytes(file.stat().st_size))  # the same file, not a new one
    np.testing.assert_array_equal(arrays["rows"], ARRAYS["rows"])


def test_the_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"older")
    with full_disk(), pytest.raises(UserError, match=r"a\.safetensors cannot be written .*Free some space"):
        write_tensors(file, ARRAYS, {})
    assert file.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["n" * 300, "plain/a", "."])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(UserError):
        write_tensors(tmp_path / name, ARRAYS, {})
    assert list(tmp_path.iterdir()) == [tmp_path / "plain"]
