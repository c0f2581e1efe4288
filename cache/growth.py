"""A cache that gets more clips: what was written stays, and the new clips follow the old ones."""

from typing import TYPE_CHECKING

from cache import metadata, tables
from cache.manifest import Manifest
from cache.metadata import Group
from cache.plan import CachePlan
from cache.storage import Storage

if TYPE_CHECKING:
    import pandas as pd


def extends(plan: CachePlan, stored: CachePlan) -> bool:
    """Whether a plan is a stored one with more clips, and differs in nothing else."""
    return stored.n_clips < plan.n_clips and stored == plan.model_copy(update={"n_clips": stored.n_clips})


def continues(group: Group, stored: Group, clips: "pd.DataFrame") -> bool:
    """Whether a group is a stored one with more clips: a plan that `extends` the stored one, and the same first rows of
    the clip table.
    """
    return (
        extends(group.plan, stored.plan)
        and tables.table_hash(clips.iloc[: stored.plan.n_clips]) == stored.clips_hash
    )


def grow(storage: Storage, group: Group, stored: Group) -> None:
    """Make a stored cache the larger one. Who calls it must have claimed all shards.

    A last shard with room for more clips counts as not written from here on, since a shard is written whole. Whoever
    opens the cache for writing afterwards stores the other metadata (`metadata.complete`).
    """
    manifest = Manifest(storage, stored.plan)
    kept = Manifest(storage, group.plan).entries
    outgrown = manifest.entries.keys() - kept.keys()
    if outgrown:
        manifest.drop(outgrown)
    metadata.replace(storage, group)
