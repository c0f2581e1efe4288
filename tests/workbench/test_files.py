"""A file is replaced whole, or left as it was."""

import errno
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from cache.errors import UserError
from cache.local_storage import make_folder
from cache.opening import UnsafeFile
from tests.full_disk import full_disk
from workbench.files import file_name, locked, replacing


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with replacing(tmp_path / "notes.txt") as partial:
        partial.write_text("new")
        assert not (tmp_path / "notes.txt").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "new"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "notes.txt") as partial:
        partial.write_text("half")
        raise OSError("disk full")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "old"


def test_a_full_disk_is_a_user_s_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("old")
    sentence = r"/notes\.txt cannot be written \(File too large\)\. Free some space"
    with full_disk(), pytest.raises(UserError, match=sentence), replacing(tmp_path / "notes.txt") as partial:
        partial.write_text("n" * 1000)
    assert (tmp_path / "notes.txt").read_text() == "old"
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"/file.* cannot be used"),
        replacing(tmp_path / "file" / "notes.txt"),
    ):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "notes.txt"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "notes.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "new" / "notes.txt").read_text() == "new"


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: replacing(folder / "notes.txt"),
        lambda folder: locked(folder / "locks" / "notes.lock", folder),
        lambda folder: nullcontext(make_folder(folder)),
    ],
    ids=["file", "lock", "cache"],
)
def test_where_no_folder_can_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], AbstractContextManager[object]]
) -> None:
    """Below /proc, a new folder "does not exist"."""

    def refused(folder: Path, **_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(folder))

    monkeypatch.setattr(Path, "mkdir", refused)
    with (
        pytest.raises(
            UserError, match=r"new cannot be created \(No such file or directory\)\. Give another path"
        ),
        write(tmp_path / "new"),
    ):
        pass


def test_links_in_a_folder_from_elsewhere_are_not_followed(tmp_path: Path) -> None:
    study, outside = tmp_path / "study", tmp_path / "outside"
    for folder in (study, outside):
        folder.mkdir()
    (study / "figures").symlink_to(outside)
    for name in ("figures/notes.txt", "figures/new/notes.txt"):
        with pytest.raises(UnsafeFile), replacing(study / name, study) as partial:
            partial.write_text("hostile")
    assert list(outside.iterdir()) == []


def test_a_link_with_an_old_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("the user's")
    for name in ("part-notes.txt", "notes.txt"):
        (tmp_path / name).symlink_to(tmp_path / "outside.txt")
    with replacing(tmp_path / "notes.txt", tmp_path) as partial:
        partial.write_text("hostile")
    assert (tmp_path / "outside.txt").read_text() == "the user's"
    assert (tmp_path / "notes.txt").read_text() == "hostile"


# Names


@pytest.mark.parametrize("name", ["tempo", "tf3+tf4", "feature-tf4.cross_attn-17", "x" * 60])
def test_a_plain_name_is_kept(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../a", "/a", "a/b", "a\\b", "A", "x" * 300, "a\nb", "a\0b"),
        *("con", "nul.txt", "com1", "a.", ".a", "音楽", "café", "r&b", "tempo-0123abcd"),
    ],
)
def test_any_other_name_becomes_letters_and_a_hash(name: str) -> None:
    found = file_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_+=-]{1,60}-[0-9a-f]{8}", found)
    assert found == file_name(name)


def test_names_that_a_file_system_may_not_tell_apart_stay_apart() -> None:
    names = ["mood", "Mood", "MOOD", "café", "cafe\u0301", "cafe", "a b", "a-b", "a/b", "x" * 299, "x" * 300]
    assert len({file_name(name).lower() for name in names}) == len(names)


# Locks


def test_a_lock_is_refused_while_it_is_held_and_free_afterwards(tmp_path: Path) -> None:
    again = locked(tmp_path / "a" / "lock", tmp_path, "busy")
    with locked(tmp_path / "a" / "lock", tmp_path), pytest.raises(UserError, match="busy"), again:
        pass
    with locked(tmp_path / "a" / "lock", tmp_path, "busy"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from workbench.files import locked\n"
        "folder = Path(sys.argv[1])\n"
        "with locked(folder / 'lock', folder): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -signal.SIGKILL
    with locked(tmp_path / "lock", tmp_path, "busy"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "lock").symlink_to(tmp_path / "kept")
    with (
        pytest.raises(UnsafeFile, match="must be a file; it is a link"),
        locked(tmp_path / "study" / "lock", tmp_path / "study", "busy"),
    ):
        pass
    assert (tmp_path / "kept").read_text() == "kept"
