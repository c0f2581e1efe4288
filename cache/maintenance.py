"""Maintain caches: verify, repair, describe, find and remove them, in folders and object stores."""

import errno
import fcntl
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import metadata
from cache.checksum import xxh3_of_file
from cache.errors import CacheError, UserError
from cache.local_storage import LocalStorage, sync_path
from cache.manifest import Entry, Manifest
from cache.opening import UnsafeFile
from cache.plan import CachePlan
from cache.protocol import (
    CALLS,
    CLIPS,
    ENTRIES,
    GROUP,
    LOCK,
    MANIFEST,
    PROTOCOL,
    STAGING,
    VERSION,
    WRITERS,
    parse_json,
    shard_file_name,
)
from cache.shardfile import read_index
from cache.storage import Location, Storage, open_storage

# Called with the bytes done and the total.
Progress = Callable[[int, int], None]

_THREADS = 4
_HIDDEN = {LOCK, WRITERS, STAGING}


@dataclass(frozen=True)
class Damage:
    """One fault of a cache: the file (or manifest line), what is wrong and, for shard files, the shard.

    `clips` are the first and last clip (inclusive) of the shard.
    """

    name: str
    problem: str
    shard: int | None = None
    clips: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.clips is None:
            return f"{self.name} {self.problem}"
        return f"{self.name} {self.problem} (shard {self.shard}, clips {self.clips[0]} to {self.clips[1]})"


@dataclass(frozen=True)
class SiteInfo:
    """One site of a cache.

    Attributes:
        channels: length of its activation vectors.
        dtype: number format on disk.
        bytes: size of its committed shard files.
        planned_bytes: their size without compression.
        largest: largest magnitude before the cast to the stored format.
        max_error: largest absolute error of the cast.
        rms_error: root mean square over clips of the shards' relative errors. Equal to the relative error of all values
            if every clip has the same sum of squares, and close to it otherwise.

    The last three are None until a shard is committed.
    """

    channels: int
    dtype: str
    bytes: int
    planned_bytes: int
    largest: float | None
    max_error: float | None
    rms_error: float | None


@dataclass(frozen=True)
class CacheInfo:
    """Contents and completeness of a cache; other fields are those of the plan.

    Attributes:
        version: version of the protocol.
        shards: number of shards in the plan.
        committed: number of committed shards.
        bytes: size of all its files.
    """

    location: str
    version: int
    plan_hash: str
    sites: dict[str, SiteInfo]
    n_clips: int
    clips_per_shard: int
    shards: int
    committed: int
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    passes: tuple[str, ...]
    tokens: int
    token_seconds: float
    token_reduction: dict[str, Any]
    zstd_level: int
    bytes: int


@dataclass(frozen=True)
class CacheListing:
    """A cache in a listing: its location and size, and its description or why it has none."""

    location: str
    bytes: int
    info: CacheInfo | None
    problem: str | None = None


def verify(location: Location, progress: Progress | None = None) -> list[Damage]:
    """Return all damage: committed shards are read completely and compared with their checksums.

    Files without a committed shard are not damage: the next writer removes them.

    Raises:
        CacheError: if there is no cache, its `zarr.json` is damaged, or reading a file is not permitted.
    """
    storage = open_storage(location)
    group = metadata.read_group(storage)
    return _find_damage(storage, group, Manifest(storage, group.plan), progress)


def repair(location: Location, progress: Progress | None = None) -> list[Damage]:
    """Remove damaged shards, so that capturing again with the same plan rewrites them.

    Damaged shards are removed from the manifest before their files, so that an interrupted repair can be repeated.
    Damaged metadata is rewritten from the plan and the clip table if possible; a damaged clip table is removed.

    Returns:
        The damage found.

    Raises:
        CacheError: as `verify`, and if another writer has the cache open.
    """
    storage = open_storage(location)
    group = metadata.read_group(storage)
    plan = group.plan
    with closing(storage.claim(0, plan.n_shards - 1)) as claim:
        manifest = Manifest(storage, plan)
        damage = _find_damage(storage, group, manifest, progress)
        if not damage:
            return []
        claim.check()
        _drop(storage, plan, manifest, {fault.shard for fault in damage if fault.shard is not None})
        damaged = {fault.name for fault in damage} & storage.sizes().keys()
        storage.delete(damaged)
        if storage.size(CLIPS) is not None:
            metadata.complete(storage, group, metadata.read_clips(storage, group))
    return damage


def describe(location: Location) -> CacheInfo:
    """Describe a cache from its plan and manifest, without reading shards.

    Raises:
        CacheError: if there is no cache, or its `zarr.json` is damaged.
    """
    storage = open_storage(location)
    plan = metadata.read_plan(storage)
    entries = Manifest(storage, plan).entries
    return CacheInfo(
        location=storage.location,
        version=VERSION,
        plan_hash=plan.hash,
        sites={site: _describe_site(plan, site, entries) for site in plan.sites},
        n_clips=plan.n_clips,
        clips_per_shard=plan.clips_per_shard,
        shards=plan.n_shards,
        committed=len(entries),
        steps=plan.steps,
        sigmas=plan.sigmas,
        passes=plan.passes,
        tokens=plan.tokens,
        token_seconds=plan.token_seconds,
        token_reduction=plan.token_reduction.model_dump(),
        zstd_level=plan.zstd_level,
        bytes=sum(storage.sizes().values()),
    )


def find(location: Path | str) -> list[CacheListing]:
    """Find the caches under a folder or URL (including itself), sorted by location; links to folders are not followed.

    Raises:
        UserError: if the folder does not exist.
    """
    listings = []
    for place in sorted(_cache_places(location), key=str):
        storage = open_storage(place)
        try:
            info = describe(storage)
            listings.append(CacheListing(storage.location, info.bytes, info))
        except (CacheError, UnsafeFile) as error:
            listings.append(CacheListing(storage.location, _bytes_of(storage), None, str(error)))
    return listings


def removable_bytes(location: Location) -> int:
    """Return the bytes that `remove` would remove.

    Raises:
        CacheError: if the location has no cache, one of another version, or other files as well.
    """
    storage = open_storage(location)
    _last_shard_of_removable(storage)
    return sum(storage.sizes().values())


def remove(location: Location) -> None:
    """Remove a cache with its folder.

    The manifest is removed first and `zarr.json` last: if this is interrupted, no reader takes the rest for a complete
    cache, and removing it again finishes.

    Raises:
        CacheError: see `removable_bytes`; also if a writer has the cache open.
    """
    storage = open_storage(location)
    with closing(storage.claim(0, _last_shard_of_removable(storage))):
        _delete_all(storage)
    if isinstance(storage, LocalStorage):
        _remove_folder(storage.folder)


def remove_unwritten(location: Location, first: Callable[[], None]) -> None:
    """Call `first` and remove a cache without committed shards, while nobody can write to it.

    If a shard is committed, the cache stays and `first` is not called.

    Raises:
        CacheError: as `remove`; nothing is removed then.
    """
    storage = open_storage(location)
    with closing(storage.claim(0, _last_shard_of_removable(storage))):
        if Manifest(storage, metadata.read_plan(storage)).entries:
            return
        first()
        _delete_all(storage)
    if isinstance(storage, LocalStorage):
        _remove_folder(storage.folder)


def remove_shards(location: Location, shards: Collection[int]) -> None:
    """Remove single shards, so that they are captured again.

    Raises:
        UserError: if the plan does not have one of the shards.
        CacheError: if there is no cache, or a writer has it open.
    """
    storage = open_storage(location)
    plan = metadata.read_plan(storage)
    unknown = sorted(shard for shard in shards if shard not in range(plan.n_shards))
    if unknown:
        raise UserError(
            f"{storage.location} has no shard {unknown[0]}; its shards are 0 to {plan.n_shards - 1}."
        )
    with closing(storage.claim(0, plan.n_shards - 1)):
        _drop(storage, plan, Manifest(storage, plan), set(shards))


def _find_damage(
    storage: Storage, group: metadata.Group, manifest: Manifest, progress: Progress | None
) -> list[Damage]:
    """See `verify`."""
    damage = []
    for damaged in manifest.damaged:
        name, _, reason = damaged.partition(" (")
        damage.append(Damage(name, f"is damaged ({reason}"))
    damage += [Damage(name, "is missing or damaged") for name in metadata.damaged_files(storage, group)]
    sizes = storage.sizes()
    files = [(entry, site) for entry in manifest.entries.values() for site in entry.files]
    total, done = sum(entry.files[site].bytes for entry, site in files), 0
    with ThreadPoolExecutor(_THREADS, "cache-verify") as pool:
        problems = pool.map(lambda file: _problem(storage, group.plan, sizes, *file), files)
        for (entry, site), problem in zip(files, problems, strict=True):
            done += entry.files[site].bytes
            if progress is not None:
                progress(done, total)
            if problem:
                damage.append(Damage(shard_file_name(site, entry.shard), problem, entry.shard, entry.clips))
    return damage


def _problem(storage: Storage, plan: CachePlan, sizes: dict[str, int], entry: Entry, site: str) -> str | None:
    """Return what is wrong with one committed shard file, or None."""
    name, expected = shard_file_name(site, entry.shard), entry.files[site]
    if name not in sizes:
        return "is missing"
    if sizes[name] != expected.bytes:
        return f"has {sizes[name]} bytes, not {expected.bytes}"
    try:
        if xxh3_of_file(storage, name, expected.bytes) != expected.xxh3:
            return "differs from its checksum"
        read_index(storage, plan, site, entry.shard, expected.bytes)
    except ValueError as error:
        return f"is malformed ({error})"
    except (FileNotFoundError, EOFError):
        return "is missing or truncated"
    except OSError as error:
        # A broken disk is damage; missing permission is not, and must not make a repair drop the shard.
        if error.errno == errno.EIO:
            return f"cannot be read ({error.strerror})"
        raise CacheError(
            f"{storage.location}/{name} cannot be read ({error.strerror}). Make it readable and run this again."
        ) from error
    return None


def _delete_all(storage: Storage) -> None:
    """Delete all files of a cache; see `remove`."""
    names = storage.sizes().keys()
    manifest = {name for name in names if name == MANIFEST or name.startswith(ENTRIES)}
    storage.delete(manifest)
    storage.delete(names - manifest - {GROUP})
    storage.delete([GROUP])


def _drop(storage: Storage, plan: CachePlan, manifest: Manifest, shards: set[int]) -> None:
    """Remove shards and damaged lines; entries before files, so that no entry is ever without its file."""
    manifest.drop(shards)
    storage.delete([shard_file_name(site, shard) for shard in shards for site in plan.sites])


def _describe_site(plan: CachePlan, site: str, entries: dict[int, Entry]) -> SiteInfo:
    files = [entry.files[site] for entry in entries.values()]
    clips = [entry.clips[1] - entry.clips[0] + 1 for entry in entries.values()]
    squares = sum(n * file.rms_error**2 for n, file in zip(clips, files, strict=True))
    return SiteInfo(
        channels=plan.sites[site],
        dtype=plan.dtypes[site],
        bytes=sum(file.bytes for file in files),
        planned_bytes=plan.bytes_of(entries.keys())[site],
        largest=max((file.largest for file in files), default=None),
        max_error=max((file.max_error for file in files), default=None),
        rms_error=math.sqrt(squares / sum(clips)) if files else None,
    )


def _bytes_of(storage: Storage) -> int:
    """Return the bytes stored; 0 if the storage contains unsafe files."""
    try:
        return sum(storage.sizes().values())
    except UnsafeFile:
        return 0


def _cache_places(location: Path | str) -> Iterator[Path | str]:
    """Yield the locations of the caches under a folder or URL."""
    if isinstance(location, str) and "://" in location:
        storage = open_storage(location)
        names = [f"/{name}" for name in storage.sizes()]
        places: list[str] = []
        for name in sorted((name for name in names if name.endswith(f"/{GROUP}")), key=len):
            place = name.removesuffix(f"/{GROUP}")
            inside = any(place.startswith(f"{other}/") for other in places)
            if not inside and _is_cache(storage, name.removeprefix("/")):
                places.append(place)
        yield from (f"{storage.location}{place}" for place in places)
        return
    if not Path(location).is_dir():
        raise UserError(f"{location} is not a folder. Give the folder in which to look for caches.")
    for folder, folders, files in os.walk(location):
        if GROUP in files and _is_cache(LocalStorage(Path(folder)), GROUP):
            folders.clear()
            yield Path(folder)


def _is_cache(storage: Storage, name: str) -> bool:
    """Whether a zarr.json belongs to a cache of any version."""
    try:
        return bool(
            parse_json(storage.read(name, metadata.GROUP_LIMIT))["attributes"]["protocol"] == PROTOCOL
        )
    except (UnsafeFile, ValueError, KeyError, TypeError):
        return False


def _last_shard_of_removable(storage: Storage) -> int:
    """Return the last shard of the cache in a storage; 0 if only hidden names are left in its folder.

    Raises:
        CacheError: see `removable_bytes`.
    """
    if isinstance(storage, LocalStorage) and storage.folder.is_dir():
        names = set(os.listdir(storage.folder))
        if names <= _HIDDEN:
            return 0  # a removal was interrupted
    else:
        names = {name.partition("/")[0] for name in storage.sizes()}
    plan = metadata.read_plan(storage)
    own = {GROUP, CLIPS, CALLS, MANIFEST, ENTRIES.rstrip("/"), *plan.sites, *_HIDDEN}
    if names - own:
        raise CacheError(
            f"{storage.location} has files that do not belong to the cache ({', '.join(sorted(names - own))}). "
            "Move them elsewhere first."
        )
    return plan.n_shards - 1


def _remove_folder(folder: Path) -> None:
    """Remove what is left of a cache's folder, unless a writer has started a new cache there."""
    with (folder / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # no writer can claim shards in the meantime
        if not (folder / WRITERS).exists() and not (folder / GROUP).exists():
            shutil.rmtree(folder.resolve())  # the path may be a link
            sync_path(folder.absolute().parent)
