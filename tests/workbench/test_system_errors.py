"""What the operating system refuses is said rightly: a path, a permission to read or to write, a full disk."""

import errno
import os
from pathlib import Path

import pytest

from cache.opening import create_file, open_file, replacing
from workbench.system_errors import refusal


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EEXIST, "cannot be used (File exists): give another path"),
        (errno.ENOTDIR, "cannot be used (Not a directory)"),
        (errno.ENAMETOOLONG, "cannot be used"),
        (errno.EINVAL, "cannot be used"),
        (errno.ENOSPC, "cannot be written (No space left on device): make room"),
        (errno.EROFS, "cannot be written (Read-only file system): give a path on another disk"),
        (errno.EIO, "cannot be read or written (Input/output error): check its disk"),
        (errno.EACCES, "cannot be written (Permission denied): change its permissions"),
        (errno.EPERM, "cannot be written (Operation not permitted): change its permissions"),
    ],
)
def test_each_refusal_has_its_sentence(tmp_path: Path, number: int, words: str) -> None:
    sentence = refusal(OSError(number, "", str(tmp_path / "file")))
    assert sentence is not None
    assert words in sentence
    assert sentence.startswith(str(tmp_path / "file"))


def test_a_file_that_may_not_be_read_is_not_said_to_be_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    error = PermissionError(errno.EACCES, "", str(tmp_path / "file"))
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.R_OK)
    assert "cannot be read (Permission denied)" in str(refusal(error))
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    assert "cannot be written (Permission denied)" in str(refusal(error))


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "")

    monkeypatch.setattr(Path, "exists", denied)
    assert "cannot be opened" in str(refusal(PermissionError(errno.EACCES, "", str(tmp_path / "a"))))


def test_other_errors_are_none_of_the_users() -> None:
    assert refusal(OSError("a library's own")) is None
    assert refusal(OSError(errno.EBADF, "")) is None


def test_errors_inside_a_study_name_the_whole_path(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").touch()
    (tmp_path / "inner" / "folder").mkdir()
    with pytest.raises(FileExistsError) as exists:
        create_file(tmp_path, "inner/file")
    assert exists.value.filename == str(tmp_path / "inner" / "file")
    with pytest.raises(FileNotFoundError) as missing:
        open_file(tmp_path, "inner/none")
    assert missing.value.filename == str(tmp_path / "inner" / "none")
    with pytest.raises(IsADirectoryError) as folder, replacing(tmp_path, "inner/folder"):
        pass
    assert folder.value.filename == str(tmp_path / "inner" / "folder")
    assert list((tmp_path / "inner").iterdir()) != []
    assert not list((tmp_path / "inner").glob(".part-*"))
