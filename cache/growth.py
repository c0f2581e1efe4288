"""Extend a cache by appending clips, or undo an incomplete extension."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from cache import metadata, tables
from cache.manifest import Manifest
from cache.metadata import Group, read_group
from cache.plan import CachePlan
from cache.protocol import shard_file_name
from cache.storage import Storage

if TYPE_CHECKING:
    import pandas as pd


def extends(plan: CachePlan, stored: CachePlan) -> bool:
    """Whether `plan` is the stored plan with more clips and no other difference."""
    return stored.n_clips < plan.n_clips and stored == plan.model_copy(update={"n_clips": stored.n_clips})


def continues(group: Group, stored: Group, clips: "pd.DataFrame") -> bool:
    """Whether `group` is the stored group with more clips.

    Its plan must `extend` the stored one, and the clip table must begin with the same rows.
    """
    return (
        extends(group.plan, stored.plan)
        and tables.table_hash(clips.iloc[: stored.plan.n_clips]) == stored.clips_hash
    )


def grow(storage: Storage, group: Group, stored: Group) -> None:
    """Turn a stored cache into the larger one. The caller must have claimed all shards.

    From then on, a last shard that is not full counts as not written, because shards are written whole. The next writer
    to open the cache stores the remaining metadata (`metadata.complete`).
    """
    manifest = Manifest(storage, stored.plan)
    kept = Manifest(storage, group.plan).entries
    outgrown = manifest.entries.keys() - kept.keys()
    if outgrown:
        manifest.drop(outgrown)
    metadata.replace(storage, group)


def can_shrink(storage: Storage, plan: CachePlan) -> bool:
    """Whether the storage has a cache with missing shards that is an extension of `plan`."""
    if not storage.is_there():
        return False
    stored = read_group(storage).plan
    return extends(stored, plan) and len(Manifest(storage, stored).entries) < stored.n_shards


def shrink(storage: Storage, plan: CachePlan, clips: "pd.DataFrame", first: Callable[[], None]) -> None:
    """Shrink a cache that `can_shrink` to the smaller one of `plan`; `first` is called while nobody can write to it.

    Shards with additional clips are removed. `clips` is the clip table of the smaller cache. The next writer writes
    what is then missing, such as a last shard that the extension had dropped.

    Raises:
        CacheError: if another writer has the cache open.
    """
    stored = read_group(storage).plan
    with closing(storage.claim(0, stored.n_shards - 1)):
        first()
        outgrown = set(range(stored.n_shards)) - Manifest(storage, plan).entries.keys()
        Manifest(storage, stored).drop(outgrown)
        storage.delete([shard_file_name(site, shard) for site in plan.sites for shard in outgrown])
        metadata.replace(storage, Group(plan, tables.table_hash(clips)))
