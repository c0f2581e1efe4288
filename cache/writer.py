"""Writing a cache, shard by shard, so that a kill at any moment loses at most the shard in flight."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from cache import checksum, metadata
from cache.encoding import to_numpy
from cache.errors import CacheError, UserError
from cache.files import check_room, remove_folder, sync_path, take_lock, temporary_folder
from cache.manifest import Entry, Manifest, ShardFile
from cache.plan import CachePlan
from cache.protocol import CLIPS, GROUP, STAGING, canonical_json, shard_file_name
from cache.shardfile import write_shard_file


class CacheWriter:
    """The only writer of a cache folder: creates it, or reopens it to write what is missing.

    Reopening removes what an interrupted writer left behind, so that the finished folder is byte for byte
    the one that an uninterrupted writer makes. Committed shards whose file has gone missing or has another
    size count as missing again.

    Args:
        path: folder of the cache.
        plan: what to store. A folder that exists must hold the same plan.
        clips: one row per clip; its column `clip` counts from 0.

    Raises:
        UserError: if the folder holds another plan, another version, other clips or something else; if
            another writer has it open; if the disk has no room for what is missing (then nothing is
            written).
    """

    def __init__(self, path: Path | str, plan: CachePlan, clips: pd.DataFrame) -> None:
        self.path = Path(path)
        self.plan = plan
        metadata.check_clip_table(clips, plan.n_clips)
        self._refuse_foreign_folder()
        if not self.path.exists():
            check_room(self.path, plan.total_bytes())
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.path)
        try:
            self._manifest = self._reopen(clips) if (self.path / GROUP).exists() else self._create(clips)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer open the cache. What is committed stays; nothing else is pending."""
        self._lock.close()

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be written, ascending."""
        return [shard for shard in range(self.plan.n_shards) if shard not in self._manifest.entries]

    def write_shard(self, shard: int, arrays: Mapping[str, Any]) -> None:
        """Write and commit the clips of one shard for all sites.

        Args:
            shard: one of `missing()`; its clips are `plan.shard_clips(shard)`.
            arrays: for each site of the plan a numpy array or torch tensor (clip, step, pass, token,
                channel) of floating-point numbers; a numpy uint16 array is taken as the bits of bfloat16
                where that is stored.

        Raises:
            UserError: for a shard that is not missing, a site that is not planned or not given, a wrong
                shape, values that are not finite or do not fit the plan's dtype, and a full disk. Nothing
                is committed then.
        """
        self._check(shard, arrays)
        try:
            with temporary_folder(self.path / STAGING) as staging:
                files = {
                    site: self._stage(staging / site, shard, site, arrays[site]) for site in self.plan.sites
                }
                for site, file in files.items():
                    os.replace(staging / site, self.path / file.name)
                for site in self.plan.sites:
                    sync_path(self.path / site)
            self._manifest.append(Entry(shard, self.plan.shard_clips(shard), files))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the disk of {self.path} is full: make room and capture again with the same plan, "
                f"which goes on with shard {shard}"
            ) from error
        if len(self._manifest.entries) == self.plan.n_shards:
            self._manifest.settle(self._manifest.entries)

    def _check(self, shard: int, arrays: Mapping[str, Any]) -> None:
        if self._lock.closed:
            raise UserError(f"the writer of {self.path} is closed: open the cache for writing again")
        if shard not in range(self.plan.n_shards) or shard in self._manifest.entries:
            raise UserError(
                f"shard {shard} of {self.path} is written already or not planned: "
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

    def _stage(self, temporary: Path, shard: int, site: str, values: Any) -> ShardFile:
        """Write one site's file under its temporary name."""
        plan = self.plan
        try:
            array = to_numpy(values, plan.dtype)
            size, crc = write_shard_file(
                temporary, array, plan.dtype, plan.shard_shape(site), plan.chunk_shape(site)
            )
        except ValueError as error:
            raise UserError(f"site {site} of shard {shard} cannot be stored: {error}") from error
        return ShardFile(shard_file_name(site, shard), size, checksum.to_hex(crc))

    def _refuse_foreign_folder(self) -> None:
        """A folder that is there must be a cache, the beginning of one, or empty."""
        if self.path.is_file():
            raise CacheError(f"{self.path} is a file: give a folder for the cache")
        is_used = self.path.exists() and any(self.path.iterdir())
        if is_used and not metadata.is_interrupted_creation(self.path):
            metadata.read_plan(self.path)

    def _create(self, clips: pd.DataFrame) -> Manifest:
        check_room(self.path, self.plan.total_bytes())
        metadata.create(self.path, self.plan, clips)
        return Manifest(self.path)

    def _reopen(self, clips: pd.DataFrame) -> Manifest:
        self._refuse_another_plan(metadata.read_plan(self.path))
        if not metadata.is_same_table(clips, metadata.read_table(self.path / CLIPS)):
            raise UserError(
                f"{self.path / CLIPS} is another clip table than the one given: "
                "give the same one, or another folder"
            )
        manifest = Manifest(self.path)
        intact = {k for k, entry in manifest.entries.items() if entry.is_intact(self.path)}
        lost = set(range(self.plan.n_shards)) - intact
        check_room(self.path, sum(self.plan.bytes_of(lost).values()))
        remove_folder(self.path / STAGING)
        manifest.settle(intact)
        for shard in lost:
            for site in self.plan.sites:
                (self.path / shard_file_name(site, shard)).unlink(missing_ok=True)
        return manifest

    def _refuse_another_plan(self, stored: CachePlan) -> None:
        if stored.hash == self.plan.hash:
            return
        old, new = stored.model_dump(mode="json"), self.plan.model_dump(mode="json")
        fields = [name for name in new if old[name] != new[name]]
        name = fields[0]
        raise UserError(
            f"{self.path} holds another plan, it differs in {', '.join(fields)} "
            f"({name}: {canonical_json(old[name])} there, {canonical_json(new[name])} given): "
            "give the same plan to go on, or another folder to begin anew"
        )
