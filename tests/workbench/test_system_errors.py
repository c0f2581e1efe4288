"""What the operating system refuses is said rightly: a path, a permission to read or to write, a full disk."""

import errno
import os
from pathlib import Path

import pytest

from cache.opening import create_file, open_file, replacing
from workbench.system_errors import refusal

SENTENCES = {
    "cannot be used ({}). Give another path": (
        "EEXIST ENOTDIR EISDIR ENOTEMPTY ENAMETOOLONG ELOOP EINVAL EILSEQ ENXIO"
    ),
    "cannot be written ({}). Free some space and run the command again": "ENOSPC EDQUOT EFBIG",
    "cannot be written ({}). Give a path on another disk": "EROFS",
    "cannot be read or written ({}). Check the disk and run the command again": "EIO ESTALE",
    "cannot be written ({}). Change its permissions, or give another path": "EACCES EPERM",
    "cannot be opened ({}). Close other programs, or raise the limit with `ulimit -n`": "EMFILE ENFILE",
}


@pytest.mark.parametrize(
    ("sentence", "name"), [(sentence, name) for sentence in SENTENCES for name in SENTENCES[sentence].split()]
)
def test_each_refusal_has_its_sentence(tmp_path: Path, sentence: str, name: str) -> None:
    number = getattr(errno, name)
    said = refusal(OSError(number, "", str(tmp_path / "file")))
    assert said == f"{tmp_path / 'file'} {sentence.format(os.strerror(number))}."


@pytest.mark.parametrize("name", " ".join(SENTENCES.values()).split())
def test_without_a_path_it_is_a_file_or_none_of_the_users(name: str) -> None:
    sentence = refusal(OSError(getattr(errno, name), ""))
    is_of_a_path = name in SENTENCES["cannot be used ({}). Give another path"]
    assert sentence is None if is_of_a_path else str(sentence).startswith("A file cannot be ")


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
