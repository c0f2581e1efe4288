"""Writing a cache, shard by shard, so that a kill at any moment loses at most the shards in flight."""

import errno
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from cache import growth, metadata, tables
from cache.errors import CacheError, UserError
from cache.manifest import Entry, Manifest, ShardFile
from cache.plan import CachePlan
from cache.protocol import MANIFEST, canonical_json, entry_name, shard_file_name
from cache.room import check_room
from cache.rounding import Rounding, to_tensor
from cache.shardbytes import ShardBytes
from cache.storage import Location, open_storage

# Files of a shard that are written at once: while one waits for the disk, another is cast and checksummed.
_FILES_AT_ONCE = 4


class CacheWriter:
    """The only writer of some shards of a cache: creates the cache, or reopens it to write what is missing.

    Reopening removes what an interrupted writer left behind, so that the finished cache is byte for byte the one that
    an uninterrupted writer makes. Committed shards whose file has gone missing or has another size count as missing
    again.

    Args:
        location: folder or URL of the cache, or a `Storage`.
        plan: what to store. A cache that exists must hold the same plan, or one with fewer clips, which is then
            extended: full shards stay, and the new clips follow.
        clips: one row per clip; its column `clip` counts from 0.
        shards: first and last shard to write; others may be written by other writers at the same time. All by
            default.

    Raises:
        UserError: if the location holds another plan, another version, other clips or something else; if another
            writer has one of the shards; if there is no room for what is missing (then nothing is written).
    """

    def __init__(
        self,
        location: Location,
        plan: CachePlan,
        clips: pd.DataFrame,
        shards: tuple[int, int] | None = None,
    ) -> None:
        self.storage = open_storage(location)
        self.plan = plan
        first, last = shards or (0, plan.n_shards - 1)
        if not 0 <= first <= last < plan.n_shards:
            raise UserError(
                f"shards {first} to {last} are not of this plan, which has 0 to {plan.n_shards - 1}"
            )
        self._shards = range(first, last + 1)
        metadata.check_clip_table(clips, plan.n_clips)
        self._group = metadata.Group(plan, tables.table_hash(clips))
        with self._explaining():
            self._open(clips)

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer have the shards. What is committed stays; nothing else is pending."""
        self._closed = True
        self._claim.close()

    def missing(self) -> list[int]:
        """Numbers of this writer's shards that are still to be written, ascending."""
        return [shard for shard in self._shards if shard not in self._manifest.entries]

    def write_shard(
        self, shard: int, arrays: Mapping[str, Any], roundings: Mapping[str, Rounding] | None = None
    ) -> None:
        """Write and commit the clips of one shard for all sites.

        Args:
            shard: one of `missing()`; its clips are `plan.shard_clips(shard)`.
            arrays: for each site of the plan a numpy array or torch tensor (clip, step, pass, token, channel) of
                floating-point numbers, on the CPU; a numpy uint16 array is taken as the bits of bfloat16 where that is
                stored.
            roundings: for each site what casting lost, for arrays that were cast to the stored format already;
                otherwise they are cast here.

        Raises:
            UserError: for a shard that is not missing, a site that is not planned or not given, a wrong shape, values
                that are not finite or do not fit the site's dtype, and a full disk. Nothing is committed then.
        """
        self._check(shard, arrays)
        with self._explaining(shard):
            with ThreadPoolExecutor(_FILES_AT_ONCE, "cache-writer") as pool:
                futures = {
                    site: pool.submit(self._put, shard, site, arrays[site], (roundings or {}).get(site))
                    for site in self.plan.sites
                }
            files = {site: future.result() for site, future in futures.items()}
            self._claim.check()
            self._manifest.append(Entry(shard, self.plan.shard_clips(shard), files))
            self._settle()

    def _open(self, clips: pd.DataFrame) -> None:
        """Claim the shards, create or check the cache, and clear what interrupted writers left."""
        if self.storage.is_there():
            self._refuse_another(metadata.read_group(self.storage), clips)
            check_room(
                self.storage, self.plan, set(self._shards) - Manifest(self.storage, self.plan).entries.keys()
            )
        else:
            check_room(self.storage, self.plan, self._shards)
        self._claim = self.storage.claim(self._shards[0], self._shards[-1])
        self._closed = False
        try:
            stored = metadata.create(self.storage, self._group)
            self._refuse_another(stored, clips)
            if stored != self._group:
                growth.grow(self.storage, self._group, stored)
            metadata.complete(self.storage, self._group, clips)
            self._manifest = Manifest(self.storage, self.plan)
            self._drop_what_is_lost()
            check_room(self.storage, self.plan, self.missing())
            self._settle()
        except BaseException:
            self.close()
            raise

    def _put(self, shard: int, site: str, values: Any, rounding: Rounding | None) -> ShardFile:
        """Store one site's file."""
        try:
            content = ShardBytes(self.plan, site, to_tensor(values, self.plan.dtypes[site]), rounding)
            self.storage.put(shard_file_name(site, shard), content.pieces())
        except ValueError as error:
            raise UserError(f"site {site} of shard {shard} cannot be stored: {error}") from error
        return ShardFile(content.size, content.xxh3, **content.rounding.figures())

    def _settle(self) -> None:
        """When all shards are there, whoever wrote them, bring the manifest to its final form."""
        if self.missing():
            return
        self._manifest.load()  # what the others have written, and what was removed since
        if len(self._manifest.entries) == self.plan.n_shards and not self._manifest.is_settled:
            self._manifest.settle()

    def _drop_what_is_lost(self) -> None:
        """Forget committed shards without their files, and remove files without a committed shard."""
        sizes = self.storage.sizes()
        entries = self._manifest.entries
        lost = {
            shard
            for shard in self._shards
            if shard in entries and not entries[shard].sizes().items() <= sizes.items()
        }
        if lost and len(self._shards) < self.plan.n_shards and self.storage.size(MANIFEST) is not None:
            raise CacheError(  # the settled manifest is one file, which two writers must not write at once
                f"{self.storage.location} has lost files of shards {sorted(lost)}: run `workbench cache verify` with "
                "--repair on it, or capture all shards with one writer"
            )
        if lost:
            self._manifest.drop(lost)
        files = {shard_file_name(site, shard) for shard in self.missing() for site in self.plan.sites}
        invalid = {entry_name(shard) for shard in self.missing()}
        leftovers = (files | invalid) & sizes.keys()
        if leftovers:
            self.storage.delete(leftovers)

    def _check(self, shard: int, arrays: Mapping[str, Any]) -> None:
        where = self.storage.location
        if self._closed:
            raise UserError(f"the writer of {where} is closed: open the cache for writing again")
        if shard not in self._shards or shard in self._manifest.entries:
            raise UserError(
                f"shard {shard} of {where} is written already or not this writer's: "
                f"give one of the missing ones: {self.missing()}"
            )
        if set(arrays) != set(self.plan.sites):
            raise UserError(
                f"shard {shard} was given the sites {sorted(arrays)}, "
                f"give exactly those of the plan: {sorted(self.plan.sites)}"
            )
        first, last = self.plan.shard_clips(shard)
        for site, values in arrays.items():
            expected = (last - first + 1, *self.plan.shape(site)[1:])
            if np.shape(values) != expected:
                raise UserError(
                    f"site {site} of shard {shard} has the shape {tuple(np.shape(values))}, "
                    f"it must be (clip, step, pass, token, channel) = {expected}"
                )

    def _refuse_another(self, stored: metadata.Group, clips: pd.DataFrame) -> None:
        """Refuse a cache that is neither the one to write nor a smaller one that this writer may extend."""
        if stored == self._group:
            return
        if growth.continues(self._group, stored, clips):
            if len(self._shards) == self.plan.n_shards:
                return
            raise UserError(
                f"{self.storage.location} has {stored.plan.n_clips} clips and is to get {self.plan.n_clips}: "
                "extend it with one writer of all shards"
            )
        if stored.plan == self.plan:
            raise UserError(
                f"{self.storage.location} has another clip table than the one given: "
                "give the same one, or another folder"
            )
        old, new = stored.plan.model_dump(mode="json"), self.plan.model_dump(mode="json")
        fields = [name for name in new if old[name] != new[name]]
        name = fields[0]
        raise UserError(
            f"{self.storage.location} holds another plan, it differs in {', '.join(fields)} "
            f"({name}: {canonical_json(old[name])} there, {canonical_json(new[name])} given): "
            "give the same plan to go on, or another folder to begin anew"
        )

    @contextmanager
    def _explaining(self, shard: int | None = None) -> Iterator[None]:
        """Say in one sentence what the operating system refuses, and how to go on."""
        where = self.storage.location
        goes_on = "goes on" if shard is None else f"goes on with shard {shard}"
        go_on = f"and capture again with the same plan, which {goes_on}"
        try:
            yield
        except OSError as error:
            if isinstance(error, FileExistsError) and shard is not None:
                raise CacheError(
                    f"shard {shard} of {where} was committed by another writer: stop one of the two"
                ) from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"the disk of {where} is full: make room {go_on}") from error
            what = where if shard is None else f"shard {shard} of {where}"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(f"{what} cannot be written ({reason}): fix that {go_on}") from error
