"""What lies in somebody else's folder is opened only where it is a file of that folder."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import opening
from cache.opening import UnsafeFile

OUTSIDE = b"a secret of the user"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one file, beside a file and a folder that are none of its business."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "notes.txt").write_bytes(b"notes")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "notes.txt").write_bytes(OUTSIDE)
    return root


def outside(root: Path) -> dict[str, bytes]:
    """What is beside the folder."""
    return {path.name: path.read_bytes() for path in (root.parent / "outside").iterdir()}


def write_through(root: Path, name: str) -> None:
    with opening.replacing(root, name) as partial:
        partial.write_bytes(b"hostile")


def create(root: Path, name: str) -> None:
    with opening.create_file(root, name) as file:
        file.write(b"hostile")


def lock(root: Path, name: str) -> None:
    opening.open_lock(root, name).close()


READS: list[Callable[[Path, str], Any]] = [
    opening.open_file,
    lambda root, name: opening.read_file(root, name, 100),
    lambda root, name: opening.read_json(root, name, 100),
    opening.file_size,
    opening.checked_path,
    lock,
    opening.remove_file,
]
CHANGES: list[Callable[[Path, str], Any]] = [write_through, create]


def link_to_file(root: Path) -> str:
    (root / "linked.txt").symlink_to(root.parent / "outside" / "notes.txt")
    return "linked.txt"


def link_to_own_file(root: Path) -> str:
    (root / "linked.txt").symlink_to("inner/notes.txt")
    return "linked.txt"


def dangling_link(root: Path) -> str:
    (root / "linked.txt").symlink_to(root.parent / "outside" / "nothing.txt")
    return "linked.txt"


def linked_folder(root: Path) -> str:
    (root / "linked").symlink_to(root.parent / "outside")
    return "linked/notes.txt"


def linked_folder_of_a_folder(root: Path) -> str:
    (root / "inner" / "linked").symlink_to("../../outside")
    return "inner/linked/notes.txt"


def named_pipe(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "pipe"


def bound_socket(root: Path) -> str:
    here = os.getcwd()
    os.chdir(root)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)
    return "socket"


def folder(root: Path) -> str:
    return "inner"


def leaves(root: Path) -> str:
    return "../outside/notes.txt"


def leaves_in_the_middle(root: Path) -> str:
    return "inner/../../outside/notes.txt"


def absolute(root: Path) -> str:
    return str(root.parent / "outside" / "notes.txt")


def null(root: Path) -> str:
    return "inner/notes.txt\0"


def file_as_folder(root: Path) -> str:
    return "inner/notes.txt/more"


ON_THE_WAY = [linked_folder, linked_folder_of_a_folder, leaves, leaves_in_the_middle, absolute, null]
HOSTILE = [
    *ON_THE_WAY,
    file_as_folder,
    link_to_file,
    link_to_own_file,
    dangling_link,
    named_pipe,
    bound_socket,
    folder,
]


@pytest.mark.parametrize("act", READS)
@pytest.mark.parametrize("lay", HOSTILE)
def test_only_files_of_the_folder_are_opened(
    root: Path, lay: Callable[[Path], str], act: Callable[[Path, str], Any]
) -> None:
    name = lay(root)
    with pytest.raises(UnsafeFile) as caught:
        act(root, name)
    assert "\n" not in str(caught.value)
    assert outside(root) == {"notes.txt": OUTSIDE}


@pytest.mark.parametrize("act", CHANGES)
@pytest.mark.parametrize("lay", ON_THE_WAY)
def test_nothing_is_written_through_a_link(
    root: Path, lay: Callable[[Path], str], act: Callable[[Path, str], Any]
) -> None:
    name = lay(root)
    with pytest.raises(UnsafeFile):
        act(root, name)
    assert outside(root) == {"notes.txt": OUTSIDE}


@pytest.mark.parametrize("lay", [link_to_file, dangling_link])
def test_a_link_with_the_name_of_a_new_file_is_replaced_or_refused(
    root: Path, lay: Callable[[Path], str]
) -> None:
    name = lay(root)
    with pytest.raises(FileExistsError):
        create(root, name)
    write_through(root, name)
    assert (root / name).read_bytes() == b"hostile"
    assert not (root / name).is_symlink()
    assert outside(root) == {"notes.txt": OUTSIDE}


def test_folders_are_made_and_removed_in_the_folder_only(root: Path) -> None:
    for lay in (linked_folder, leaves, absolute):
        name = lay(root).removesuffix("/notes.txt")
        for act in (opening.make_folder, opening.remove_folder, opening.checked_folder, opening.list_files):
            with pytest.raises(UnsafeFile):
                act(root, name)
        with pytest.raises(UnsafeFile):
            opening.make_folder(root, f"{name}/new")
    assert outside(root) == {"notes.txt": OUTSIDE}
    opening.make_folder(root, "one/two")
    (root / "one" / "two" / "file").touch()
    opening.remove_folder(root, "one")
    assert not (root / "one").exists()


@pytest.mark.parametrize(
    "lay", [link_to_file, dangling_link, linked_folder, linked_folder_of_a_folder, named_pipe]
)
def test_a_listing_names_no_link(root: Path, lay: Callable[[Path], str]) -> None:
    lay(root)
    with pytest.raises(UnsafeFile):
        opening.list_files(root)


def test_a_folder_with_a_link_in_it_is_not_removed_at_all(root: Path) -> None:
    linked_folder_of_a_folder(root)
    with pytest.raises(UnsafeFile):
        opening.remove_folder(root, "inner")
    assert (root / "inner" / "notes.txt").exists()


def test_folders_nested_without_end(root: Path) -> None:
    deep = root
    for _ in range(opening.MAX_DEPTH + 2):
        deep = deep / "x"
    deep.mkdir(parents=True)
    for act in (opening.list_files, lambda root: opening.remove_folder(root, "x")):
        with pytest.raises(UnsafeFile, match="nested"):
            act(root)


def test_a_root_may_be_reached_through_links(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    linked = root.parent / "link"
    assert opening.read_file(linked, "inner/notes.txt", 100) == b"notes"
    assert opening.list_files(linked) == {"inner/notes.txt": 5}
    write_through(linked, "inner/new.txt")
    assert (root / "inner" / "new.txt").exists()
    opening.remove_folder(linked, "inner")
    assert list(root.iterdir()) == []


def test_a_file_that_is_too_large_is_not_read(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(2**40)
    for act in (opening.open_file, opening.read_file, opening.read_json):
        with pytest.raises(UnsafeFile, match="must have at most 100 bytes; it has 1099511627776"):
            act(root, "sparse", 100)
    assert opening.read_file(root, "inner/notes.txt", 5) == b"notes"


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"{", b"1" * 5000])
def test_json_that_is_none_is_a_value_error(root: Path, text: bytes) -> None:
    (root / "file.json").write_bytes(text)
    with pytest.raises(ValueError):
        opening.read_json(root, "file.json", 2**21)


def test_what_is_missing_is_missing(root: Path) -> None:
    for act in (opening.open_file, opening.checked_path):
        with pytest.raises(FileNotFoundError):
            act(root, "inner/nothing")
    assert opening.file_size(root, "nothing/inner") is None
    assert opening.list_files(root, "nothing") == {}
    opening.remove_file(root, "nothing")
    opening.remove_folder(root, "nothing")


def test_temporary_names_cannot_be_guessed_and_are_readable_as_others(root: Path) -> None:
    partials = []
    for _ in range(2):
        with opening.replacing(root, "inner/table.csv") as partial:
            partials.append(partial)
            assert partial.parent == root / "inner"
            assert partial.suffix == ".csv"
            assert opening.is_partial(partial.name)
    assert partials[0] != partials[1]
    assert len(partials[0].name) > 32
    (root / "plain").touch()
    assert stat.S_IMODE((root / "inner" / "table.csv").stat().st_mode) == stat.S_IMODE(
        (root / "plain").stat().st_mode
    )
    assert opening.list_files(root, hidden=True).keys() == {"inner/notes.txt", "inner/table.csv", "plain"}


def test_a_device_is_never_to_be_removed() -> None:
    with pytest.raises(
        UnsafeFile, match=r"/dev/null must be a file; it is a device, .* Give another path\.$"
    ):
        opening.read_file(Path("/dev"), "null", 10)
    with (
        pytest.raises(UnsafeFile, match=r"it is a device, .* Give another path\.$"),
        opening.replacing(Path("/dev"), "null"),
    ):
        pass


def test_a_pipe_is_not_to_be_removed_but_a_link_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(UnsafeFile, match=r"Give another path\.$"):
        opening.read_file(tmp_path, "pipe", 10)
    with pytest.raises(UnsafeFile, match="Remove it, or get a new copy"):
        opening.read_file(tmp_path, "link", 10)
