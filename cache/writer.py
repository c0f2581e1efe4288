"""Write a cache shard by shard, so that a kill at any time loses at most the shards in flight."""

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
from cache.wording import CAPTURE_AGAIN

# Files of a shard written in parallel: while one waits for the disk, another is cast and checksummed.
_FILES_AT_ONCE = 4


class CacheWriter:
    """The only writer of some shards of a cache: creates the cache, or reopens it to write missing shards.

    Reopening removes what an interrupted writer left behind, so that the finished cache is byte for byte the same as
    that of an uninterrupted writer. Committed shards whose file is missing or has another size count as missing.

    Args:
        location: folder or URL of the cache, or a `Storage`.
        plan: what to store. An existing cache must have the same plan, or one with fewer clips, which is then extended:
            full shards stay, and the new clips follow.
        clips: one row per clip; the column `clip` counts from 0.
        shards: first and last shard to write, by default all; other writers may write other shards at the same time.

    Raises:
        UserError: if the location has another plan, another version, other clips or something else; if another writer
            has one of the shards; or if there is no room for the missing shards (nothing is written then).
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
                f"Shards must be from 0 to {plan.n_shards - 1} in this plan; got {first} to {last}."
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
        """Release the shards. Committed shards stay, and nothing else is pending."""
        self._closed = True
        self._claim.close()

    def missing(self) -> list[int]:
        """Return the numbers of this writer's shards that are not written yet, in ascending order."""
        return [shard for shard in self._shards if shard not in self._manifest.entries]

    def write_shard(
        self, shard: int, arrays: Mapping[str, Any], roundings: Mapping[str, Rounding] | None = None
    ) -> None:
        """Write and commit the clips of one shard for all sites.

        Args:
            shard: one of `missing()`; its clips are `plan.shard_clips(shard)`.
            arrays: for each site of the plan, a numpy array or torch tensor (clip, step, pass, token, channel) of
                floating-point numbers on the CPU; for bfloat16, a numpy uint16 array is interpreted as its bits.
            roundings: for each site, the rounding error of an array that is already cast to the stored format; other
                arrays are cast here.

        Raises:
            UserError: for a shard that is not missing, a missing or unplanned site, a wrong shape, values that are not
                finite or too large for the site's dtype, or a full disk. Nothing is committed then.
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
        """Claim the shards, create or check the cache, and remove what interrupted writers left."""
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
            raise UserError(f"Cannot store site {site} of shard {shard}: {error}.") from error
        return ShardFile(content.size, content.xxh3, **content.rounding.summary())

    def _settle(self) -> None:
        """Bring the manifest to its final form once all shards are committed, by any writer."""
        if self.missing():
            return
        self._manifest.load()  # other writers may have added or removed entries
        if len(self._manifest.entries) == self.plan.n_shards and not self._manifest.is_settled:
            self._manifest.settle()

    def _drop_what_is_lost(self) -> None:
        """Drop committed shards without their files, and remove files without a committed shard."""
        sizes = self.storage.sizes()
        entries = self._manifest.entries
        lost = {
            shard
            for shard in self._shards
            if shard in entries and not entries[shard].sizes().items() <= sizes.items()
        }
        if lost and len(self._shards) < self.plan.n_shards and self.storage.size(MANIFEST) is not None:
            raise CacheError(  # the settled manifest is one file, which two writers must not write at once
                f"{self.storage.location} has lost files of the shards {sorted(lost)}. Run `workbench cache verify "
                "--repair` on it, or capture all shards with one writer."
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
            raise UserError(f"The writer of {where} is closed. Open the cache for writing again.")
        if shard not in self._shards or shard in self._manifest.entries:
            raise UserError(
                f"Shard {shard} of {where} is already written or belongs to another writer. "
                f"Missing shards of this writer: {self.missing()}."
            )
        if set(arrays) != set(self.plan.sites):
            raise UserError(
                f"Shard {shard} must have exactly the planned sites {sorted(self.plan.sites)}; got {sorted(arrays)}."
            )
        first, last = self.plan.shard_clips(shard)
        for site, values in arrays.items():
            expected = (last - first + 1, *self.plan.shape(site)[1:])
            if np.shape(values) != expected:
                raise UserError(
                    f"Site {site} of shard {shard} must have the shape (clip, step, pass, token, channel) = "
                    f"{expected}; got {tuple(np.shape(values))}."
                )

    def _refuse_another(self, stored: metadata.Group, clips: pd.DataFrame) -> None:
        """Raise UserError unless the stored cache has the same plan, or a smaller one that this writer may extend."""
        if stored == self._group:
            return
        if growth.continues(self._group, stored, clips):
            if len(self._shards) == self.plan.n_shards:
                return
            raise UserError(
                f"Extending {self.storage.location} from {stored.plan.n_clips} to {self.plan.n_clips} clips needs one "
                "writer of all shards."
            )
        if stored.plan == self.plan:
            raise UserError(
                f"{self.storage.location} has a different clip table. Give the same one, or another folder."
            )
        old, new = stored.plan.model_dump(mode="json"), self.plan.model_dump(mode="json")
        fields = [name for name in new if old[name] != new[name]]
        name = fields[0]
        raise UserError(
            f"{self.storage.location} has a different plan: it differs in {', '.join(fields)} "
            f"({name}: {canonical_json(old[name])} there, {canonical_json(new[name])} given). "
            "Give the same plan to continue, or another folder to start over."
        )

    @contextmanager
    def _explaining(self, shard: int | None = None) -> Iterator[None]:
        """Turn errors of the operating system into one sentence that says how to continue."""
        where = self.storage.location
        resumes = "resumes" if shard is None else f"resumes with shard {shard}"
        advice = f"and {CAPTURE_AGAIN}, which {resumes}."
        try:
            yield
        except OSError as error:
            if isinstance(error, FileExistsError) and shard is not None:
                raise CacheError(
                    f"Shard {shard} of {where} was committed by another writer. Stop one of the two."
                ) from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"The disk of {where} is full. Free some space {advice}") from error
            what = where if shard is None else f"shard {shard} of {where}"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(f"Cannot write {what} ({reason}). Fix this {advice}") from error
