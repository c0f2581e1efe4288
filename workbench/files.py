"""Files that are whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache import opening


@contextmanager
def replacing(path: Path, root: Path | None = None) -> Iterator[Path]:
    """A new file beside `path` (same ending) to write to; it becomes `path` when the block ends well.

    The folder is made where it is missing. When the block fails, what it wrote is removed and `path` stays as it was.
    Where `path` lies in a folder that came from elsewhere, such as a study, `root` is that folder: links between the
    two are not followed.

    Raises:
        cache.opening.UnsafeFile: for such a link.
    """
    folder = root or path.parent
    name = path.relative_to(folder)
    folder.mkdir(parents=True, exist_ok=True)
    opening.make_folder(folder, name.parent)
    with opening.replacing(folder, name) as partial:
        yield partial
