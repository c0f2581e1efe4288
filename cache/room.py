"""Check free disk space before writing."""

from collections.abc import Collection

from cache.errors import UserError
from cache.plan import CachePlan
from cache.storage import Storage

# For metadata, tables and the file system's own blocks.
MARGIN_BYTES = 64 * 2**20


def check_room(storage: Storage, plan: CachePlan, shards: Collection[int]) -> None:
    """Raise UserError unless there is room for some shards of a plan and a margin of 64 MiB."""
    needed = sum(plan.bytes_of(shards).values())
    free = storage.free_bytes()
    if needed and free is not None and free < needed + MARGIN_BYTES:
        raise UserError(
            f"{storage.location} needs {needed + MARGIN_BYTES} bytes, but its disk has only {free} bytes free. "
            "Free some space, choose another disk, or plan fewer clips, steps, tokens or sites."
        )
