"""Kills real writers with SIGKILL at every point where they touch the disk, and resumes them.

Run as `python -m tests.cache.killed_writer FOLDER`: prints how many kills there were; exits with 1 and a
sentence when a resumed folder differs from the uninterrupted one, or when a shard was lost that `write_shard`
had returned for. One process forks all writers, because each new interpreter would import for a second.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cache import ActivationCache, CacheWriter, checksum
from cache.errors import CacheError
from tests.cache.helpers import make_clips, make_plan, shard_values, tree

PLAN = make_plan(n_clips=3)


def capture(folder: Path, written: Callable[[], None] = lambda: None) -> None:
    """Write what is missing, calling `written` after each shard."""
    with CacheWriter(folder, PLAN, make_clips(PLAN)) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(PLAN, shard))
            written()


def kill_at(call: int) -> None:
    """Make this process kill itself in place of its nth call that changes the disk or sums up a chunk."""
    count = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    # A kill loses nothing that was written but not synced, so waiting for the disk would only take time.
    os.fsync = lambda _: None
    for name in ("mkdir", "replace", "fsync", "rmdir", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    checksum.extend = deadly(checksum.extend)


def in_child(function: Callable[[], None]) -> int:
    """Run a function in a forked process; the exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_capture(folder: Path, call: int, report: int) -> None:
    """A capture that is killed; it writes one byte to `report` for each shard it was told is written."""
    kill_at(call)
    capture(folder, written=lambda: os.write(report, b".") and None)


def resume(folder: Path, acknowledged: int) -> None:
    """Check what a killed capture left, then go on with it."""
    os.fsync = lambda _: None
    try:
        cache = ActivationCache(folder, allow_partial=True)
    except CacheError:
        assert acknowledged == 0, "the cache cannot be opened though shards were written"
    else:
        committed = sorted(cache.manifest.entries)
        assert committed == list(range(len(committed))), f"shards out of order: {committed}"
        assert acknowledged <= len(committed) <= acknowledged + 1, (
            f"{acknowledged} written, {committed} there"
        )
        assert cache.verify() == [], "a committed shard is damaged"
    capture(folder)


def main(root: Path) -> int:
    """Kill at every point in turn until a capture gets through."""
    assert in_child(partial(capture, root / "whole")) == 0
    whole = tree(root / "whole")
    call = 0
    while True:
        call += 1
        folder = root / str(call)
        reader, report = os.pipe()
        status = in_child(partial(killed_capture, folder, call, report))
        os.close(report)
        acknowledged = len(os.read(reader, 100))
        os.close(reader)
        if status == 0:
            break
        if status != -signal.SIGKILL or in_child(partial(resume, folder, acknowledged)) != 0:
            sys.stdout.write(f"kill at call {call}: status {status}, or resuming failed\n")
            return 1
        if tree(folder) != whole:
            sys.stdout.write(
                f"kill at call {call}: differs in {sorted(tree(folder).items() ^ whole.items())[0][0]}\n"
            )
            return 1
    sys.stdout.write(f"{call - 1}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
