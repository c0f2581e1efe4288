"""Writers in separate processes, killed with SIGKILL after some time or at a call that touches the disk."""

import fcntl
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import obstore.store
import pyarrow.dataset
import pyarrow.parquet
import torch

from cache import CachePlan, CacheWriter, UserError, local_storage, object_storage
from cache.pipeline import ShardPipeline
from cache.storage import Location
from tests.cache.helpers import make_clips, make_values
from tests.forks import CONTEXT, preload

PRELOADED = [obstore.store, pyarrow.dataset, pyarrow.parquet, object_storage]
preload(__name__)


class Victim:
    """A writer of the missing shards, in a separate process.

    Args:
        location: of the cache; may be a storage.
        plan: of the cache.
        shards: first and last shard to write; all by default.
        is_pipelined: whether a `ShardPipeline` writes in the background.
        stop_after: number of shards after which it stops writing and waits with the cache open; 0: none.
        kill_at: number of the call to the disk instead of which the process kills itself (it then syncs nothing, since
            a kill loses no written data); 0: none.

    Attributes:
        acknowledged: shards for which `write_shard` has returned.
        error: the error message with which the writer gave up.
        exit_code: the exit code; minus the signal if it was killed.
    """

    def __init__(
        self,
        location: Location,
        plan: CachePlan,
        shards: tuple[int, int] | None = None,
        *,
        is_pipelined: bool = False,
        stop_after: int = 0,
        kill_at: int = 0,
    ) -> None:
        self.acknowledged: list[int] = []
        self.error: str | None = None
        self._reports, theirs = CONTEXT.Pipe(duplex=False)
        arguments = (location, plan, shards, is_pipelined, stop_after, kill_at, theirs)
        self._process = CONTEXT.Process(target=_write, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait until it has imported everything and is about to make its first call to the cache."""
        assert self._reports.recv() == "ready"

    def wait_for_a_shard(self) -> None:
        """Wait until it has written its next shard."""
        known = len(self.acknowledged)
        while len(self.acknowledged) == known:
            self._take(self._reports.recv())

    def kill_after(self, seconds: float) -> None:
        """Kill it with SIGKILL after some time, unless it ends earlier."""
        if not wait([self._process.sentinel], timeout=seconds):
            self._process.kill()

    def end(self) -> None:
        """Wait until it has ended, and collect its messages."""
        self._process.join()
        while True:
            try:
                self._take(self._reports.recv())
            except EOFError:
                break
        self.exit_code = self._process.exitcode
        self._reports.close()
        self._process.close()

    def _take(self, report: int | str) -> None:
        if isinstance(report, int):
            self.acknowledged.append(report)
        elif report != "ready":
            self.error = report


def _write(
    location: Location,
    plan: CachePlan,
    shards: tuple[int, int] | None,
    is_pipelined: bool,
    stop_after: int,
    kill_at: int,
    reports: Connection,
) -> None:
    """The main function of a victim."""
    torch.set_num_threads(1)
    clips = make_clips(plan)
    sites = {site: make_values(plan, site) for site in plan.sites}
    values = [{site: array[first : last + 1] for site, array in sites.items()} for first, last in plan.shards]
    if kill_at:
        _kill_at(kill_at)
    reports.send("ready")
    try:
        with _ReportingWriter(location, plan, clips, shards) as writer:
            writer.reports, writer.shards_left = reports, stop_after
            (_write_pipelined if is_pipelined else _write_plainly)(writer, values)
    except UserError as error:
        reports.send(str(error))


class _ReportingWriter(CacheWriter):
    """A writer that reports each written shard and may stop after it."""

    reports: Connection
    shards_left: int

    def write_shard(self, shard: int, *args: Any, **kwargs: Any) -> None:
        """See `CacheWriter`."""
        super().write_shard(shard, *args, **kwargs)
        self.reports.send(shard)
        self.shards_left -= 1
        if self.shards_left == 0:
            threading.Event().wait()


def _write_plainly(writer: CacheWriter, values: list[dict[str, Any]]) -> None:
    for shard in writer.missing():
        writer.write_shard(shard, values[shard])


def _write_pipelined(writer: CacheWriter, values: list[dict[str, Any]]) -> None:
    with ShardPipeline(writer) as pipeline:
        for shard in writer.missing():
            pipeline.begin(shard)
            for site, array in values[shard].items():
                for position, step in enumerate(writer.plan.steps):
                    pipeline.add(site, step, torch.from_numpy(array[:, position]))
            pipeline.end()


def _kill_at(call: int) -> None:
    """Make this process kill itself instead of its n-th call that changes a folder or requests a lock."""
    count = 0
    counting = threading.Lock()

    def die_in_turn() -> None:
        nonlocal count
        with counting:
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            die_in_turn()
            return function(*args, **kwargs)

        return wrapper

    def deadly_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            die_in_turn()
        return opened(file, mode, *args, **kwargs)

    def write_half_and_half(file: Any, piece: memoryview) -> None:
        write_all(file, piece[: len(piece) // 2])
        die_in_turn()
        write_all(file, piece[len(piece) // 2 :])

    opened, io.open = io.open, deadly_open
    write_all, local_storage._write_all = local_storage._write_all, write_half_and_half
    os.fsync = deadly(lambda _: None)
    fcntl.flock = deadly(fcntl.flock)
    for name in ("mkdir", "replace", "rmdir", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))


@contextmanager
def victims(*made: Victim) -> Iterator[None]:
    """Ensure that no victim outlives a test."""
    try:
        yield
    finally:
        for victim in made:
            if victim._process._closed is False:
                victim.kill_after(0)
                victim.end()
