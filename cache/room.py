"""Whether there is room for what is to be written."""

from collections.abc import Collection

from cache.errors import UserError
from cache.plan import CachePlan
from cache.storage import Storage

# For metadata, tables and the file system's own blocks.
MARGIN_BYTES = 64 * 2**20


def check_room(storage: Storage, plan: CachePlan, shards: Collection[int]) -> None:
    """Refuse to start what there is no room for: some shards of a plan, and a margin of 64 MiB.

    Raises:
        UserError: saying what is needed and what is free.
    """
    needed = sum(plan.bytes_of(shards).values())
    free = storage.free_bytes()
    if needed and free is not None and free < needed + MARGIN_BYTES:
        raise UserError(
            f"{storage.location} needs {needed + MARGIN_BYTES} bytes and its disk has {free} bytes free: "
            "make room, choose another disk, or plan fewer clips, steps, tokens or sites"
        )
