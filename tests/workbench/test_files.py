"""A file is replaced whole, or left as it was."""

from pathlib import Path

import pytest

from cache.opening import UnsafeFile
from workbench.files import replacing


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


def test_the_folder_is_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "notes.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "new" / "notes.txt").read_text() == "new"


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
