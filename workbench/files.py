"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` (same ending) to write to; it becomes `path` when the block ends well.

    When the block fails, what it wrote is removed and `path` stays as it was.
    """
    partial = path.with_name(f"part-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
