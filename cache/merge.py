"""Merge or copy caches between folders and object stores, checking every file."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import xxhash

from cache import metadata
from cache.errors import CacheError, UserError
from cache.manifest import Entry, Manifest, ShardFile
from cache.plan import CachePlan
from cache.protocol import CLIPS, shard_file_name
from cache.reader import ActivationCache
from cache.room import check_room
from cache.storage import Location, Storage, open_storage

# Called with the bytes done and the total.
Progress = Callable[[int, int], None]

_THREADS = 4
_PIECE_BYTES = 8 * 2**20


def merge(sources: Sequence[Location], target: Location, progress: Progress | None = None) -> None:
    """Copy the committed shards of caches with the same plan into one cache, which is created or continued.

    Every file is compared with its checksum while it is copied; a shard is committed once its files are complete. An
    interrupted merge resumes when it is repeated. With a single source it copies a cache, also to and from an object
    store.

    Raises:
        UserError: if the plans or clip tables differ, if two caches have different files for a shard, or if the target
            is something else or too small.
        CacheError: if a source is damaged, or a writer has the target open.
    """
    caches = [ActivationCache(source, allow_partial=True) for source in sources]
    _refuse_other_captures(caches)
    group, plan, clips = caches[0].group, caches[0].plan, caches[0].clips
    origins = _origins(caches)
    storage = open_storage(target)
    if storage.is_there():
        _refuse_another(storage, metadata.read_group(storage), group)
    else:
        check_room(storage, plan, origins.keys())
    with closing(storage.claim(0, plan.n_shards - 1)) as claim:
        _refuse_another(storage, metadata.create(storage, group), group)
        if storage.size(CLIPS) is None:
            storage.put(CLIPS, [caches[0].storage.read(CLIPS)])  # byte for byte the same cache
        metadata.complete(storage, group, clips)
        manifest = Manifest(storage, plan)
        wanted = _lacking(storage, manifest, origins)
        check_room(storage, plan, wanted)

        def copy(shard: int) -> int:
            source = origins[shard]
            entry = source.manifest.entries[shard]
            for site, file in entry.files.items():
                name = shard_file_name(site, shard)
                storage.put(name, _checked_pieces(source.storage, name, file))
            claim.check()
            manifest.append(entry)
            return sum(entry.sizes().values())

        total = sum(sum(origins[shard].manifest.entries[shard].sizes().values()) for shard in wanted)
        done = 0
        try:
            with ThreadPoolExecutor(_THREADS, "cache-merge") as pool:
                for copied in pool.map(copy, wanted):
                    done += copied
                    if progress is not None:
                        progress(done, total)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(
                f"Cannot write {storage.location} ({reason}). Fix this and merge again, which resumes the merge."
            ) from error
        if len(manifest.entries) == plan.n_shards and not manifest.is_settled:
            manifest.settle()


def _refuse_other_captures(caches: Sequence[ActivationCache]) -> None:
    """Raise UserError if the caches have different plans or clip tables."""
    if not caches:
        raise UserError("Nothing to merge. Give the folder or URL of at least one cache.")
    first = caches[0]
    for other in caches[1:]:
        _refuse_another(other.storage, other.group, first.group)


def _refuse_another(storage: Storage, stored: metadata.Group, group: metadata.Group) -> None:
    if stored.plan != group.plan:
        fields = [
            name for name in CachePlan.model_fields if getattr(stored.plan, name) != getattr(group.plan, name)
        ]
        raise UserError(
            f"Caches to merge must have the same plan; {storage.location} differs from the first in "
            f"{', '.join(fields)}."
        )
    if stored != group:
        raise UserError(
            f"Caches to merge must have the same clip table; that of {storage.location} differs from the first."
        )


def _origins(caches: Sequence[ActivationCache]) -> dict[int, ActivationCache]:
    """Map each shard to the first cache that has it, in ascending order."""
    origins: dict[int, ActivationCache] = {}
    for cache in caches:
        for shard, entry in cache.manifest.entries.items():
            first = origins.setdefault(shard, cache)
            _refuse_conflict(first.storage, first.manifest.entries[shard], cache.storage, entry)
    return dict(sorted(origins.items()))


def _lacking(storage: Storage, manifest: Manifest, origins: dict[int, ActivationCache]) -> list[int]:
    """Return the shards that a target does not have yet, after checking those that it has."""
    for shard in origins.keys() & manifest.entries.keys():
        origin = origins[shard]
        _refuse_conflict(storage, manifest.entries[shard], origin.storage, origin.manifest.entries[shard])
    return [shard for shard in origins if shard not in manifest.entries]


def _refuse_conflict(one: Storage, entry: Entry, other: Storage, other_entry: Entry) -> None:
    different = [site for site, file in entry.files.items() if file.xxh3 != other_entry.files[site].xxh3]
    if different:
        raise UserError(
            f"Shard {entry.shard} differs between {one.location} and {other.location} (in {', '.join(different)}). "
            f"Remove it from the wrong one with `workbench cache rm --shard {entry.shard}` and merge again."
        )


def _checked_pieces(source: Storage, name: str, file: ShardFile) -> Iterator[memoryview]:
    """Yield the content of a shard file.

    It is read in a separate thread, because obstore cannot read in the thread in which it writes.

    Raises:
        CacheError: at the end, if it differs from the manifest.
    """
    digest = xxhash.xxh3_64()
    damaged = CacheError(
        f"{source.location}/{name} is missing or damaged. Run `workbench cache verify --repair` on "
        f"{source.location} and merge again."
    )
    try:
        with ThreadPoolExecutor(1, "cache-merge-reader") as reader:
            for offset in range(0, file.bytes, _PIECE_BYTES):
                piece = memoryview(bytearray(min(_PIECE_BYTES, file.bytes - offset)))
                reader.submit(source.read_into, name, offset, piece).result()
                digest.update(piece)
                yield piece
    except (FileNotFoundError, EOFError) as error:
        raise damaged from error
    if digest.hexdigest() != file.xxh3:
        raise damaged
