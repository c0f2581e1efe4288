"""The metadata of a cache: zarr's JSON, which has the plan, and the tables."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from cache import checksum, tables
from cache.encoding import FILL, STORED
from cache.errors import CacheError, UserError
from cache.plan import CachePlan
from cache.protocol import (
    CALLS,
    CLIPS,
    DIMS,
    GROUP,
    MANIFEST,
    PROTOCOL,
    VERSION,
    canonical_json,
    parse_json,
)
from cache.storage import Storage
from cache.wording import CAPTURE_AGAIN

if TYPE_CHECKING:
    import pandas as pd


# Largest `zarr.json` of the group in bytes; parsed, its JSON takes about twenty times as much memory.
GROUP_LIMIT = 2**24


class Group(NamedTuple):
    """The contents of the group's `zarr.json`: the plan, and the hash of the clip table (see `tables.table_hash`)."""

    plan: CachePlan
    clips_hash: str


def read_plan(storage: Storage) -> CachePlan:
    """Read the plan of the cache in a storage; raise as `read_group` does."""
    return read_group(storage).plan


def read_group(storage: Storage) -> Group:
    """Read the `zarr.json` of the cache in a storage.

    Raises:
        CacheError: if there is no cache, it is of another protocol version, or its plan is damaged.
    """
    where = storage.location
    try:
        content = storage.read(GROUP, GROUP_LIMIT)
    except FileNotFoundError as error:
        if storage.size(MANIFEST) is not None:
            raise CacheError(
                f"{where}/{GROUP} is missing. Restore it from a copy, or delete {where} and capture again."
            ) from error
        raise CacheError(
            f"{where} is not an activation cache (no {GROUP}). Give the folder of one, "
            "such as STUDY/activations.zarr, or a new folder to write to."
        ) from error
    try:
        attributes = parse_json(content)["attributes"]
        protocol, version = attributes["protocol"], attributes["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{where}/{GROUP} does not describe an activation cache. Give the folder of one, or a new folder."
        ) from error
    if (protocol, version) != (PROTOCOL, VERSION):
        raise CacheError(
            f"{where} has {protocol} version {version}, but this program reads {PROTOCOL} version {VERSION}. "
            "Use the program version that wrote it, or capture again."
        )
    try:
        group = Group(CachePlan.model_validate(attributes["plan"]), str(attributes["clips_hash"]))
        intact = attributes == _group_attributes(group)
        problem = "" if intact else "its attributes do not match their checksums"
    except UserError as error:
        problem = str(error).rstrip(".")
    except (KeyError, ValueError) as error:  # pydantic's errors are ValueErrors
        problem = _first_problem(error)
    if problem:
        raise CacheError(f"{where}/{GROUP} is damaged ({problem}). Restore it from a copy, or capture again.")
    return group


def create(storage: Storage, group: Group) -> Group:
    """Create a cache in a storage; return its group: the given one, or that of a faster writer.

    Raises:
        UserError: if something else is at the location.
        CacheError: see `read_group`.
    """
    if storage.is_there():
        return read_group(storage)
    try:
        storage.put(GROUP, [_group_json(group)], new=True)
    except FileExistsError:
        return read_group(storage)
    return group


def replace(storage: Storage, group: Group) -> None:
    """Replace the `zarr.json` of the cache in a storage, and nothing else."""
    storage.put(GROUP, [_group_json(group)])


def complete(storage: Storage, group: Group, clips: "pd.DataFrame") -> None:
    """Store all of a cache's metadata except the manifest, where it is missing or damaged.

    `clips` is the group's clip table.
    """
    files = _json_files(group)
    stored = {CALLS: _calls_table(group.plan.steps, group.plan.sigmas), CLIPS: clips}
    for name in damaged_files(storage, group):
        storage.put(name, [tables.to_parquet(stored[name]) if name in stored else files[name]])


def damaged_files(storage: Storage, group: Group) -> list[str]:
    """Return the names of the metadata files that are missing or damaged."""
    plan = group.plan
    damaged = [name for name, content in _json_files(group).items() if _content(storage, name) != content]
    for name, digest, rows in (
        (CLIPS, group.clips_hash, plan.n_clips),
        (CALLS, _calls_hash(plan), len(plan.steps)),
    ):
        try:
            intact = tables.stored_hash(tables.parse(_content(storage, name) or b"", rows)) == digest
        except (OSError, ValueError):
            intact = False
        if not intact:
            damaged.append(name)
    return damaged


def read_clips(storage: Storage, group: Group) -> "pd.DataFrame":
    """Read the clip table.

    Raises:
        CacheError: if it is missing or damaged.
    """
    return _read_table(storage, CLIPS, group.clips_hash, group.plan.n_clips)


def read_calls(storage: Storage, group: Group) -> "pd.DataFrame":
    """Read the table of captured calls.

    Raises:
        CacheError: if it is missing or damaged.
    """
    plan = group.plan
    return _read_table(storage, CALLS, _calls_hash(plan), len(plan.steps))


def _read_table(storage: Storage, name: str, digest: str, rows: int) -> "pd.DataFrame":
    try:
        table = tables.parse(storage.read(name, tables.MAX_FILE_BYTES), rows)
        is_as_written = tables.stored_hash(table) == digest
        problem = "" if is_as_written else "its values have changed"
    except (OSError, ValueError) as error:
        problem = str(error).rstrip(".")
    if problem:
        raise CacheError(
            f"{storage.location}/{name} is missing or damaged ({problem}). Delete it and {CAPTURE_AGAIN}, "
            "which rewrites it."
        )
    return tables.to_pandas(table)


def _first_problem(error: Exception) -> str:
    """Describe what is wrong with a plan in a few words."""
    if isinstance(error, ValidationError):
        place = error.errors(include_url=False, include_input=False)[0]["loc"]
        return f"its plan has no valid {place[0]}" if place else "it has no plan"
    return "its attributes do not match their checksums"


def _content(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except FileNotFoundError:
        return None


def _json_files(group: Group) -> dict[str, bytes]:
    """Return the contents of all files of zarr's JSON by name; the group's comes last."""
    arrays = {f"{site}/{GROUP}": _array_json(group.plan, site) for site in group.plan.sites}
    return {**arrays, GROUP: _group_json(group)}


def _calls_hash(plan: CachePlan) -> str:
    sigmas = tuple(map(float.hex, plan.sigmas))  # 0.0 == -0.0, but they are stored differently
    return _hash_of_calls(plan.steps, sigmas)


@lru_cache
def _hash_of_calls(steps: tuple[int, ...], sigmas: tuple[str, ...]) -> str:
    """Return the `table_hash` of a table of calls; a process opens caches with the same calls again and again."""
    return tables.table_hash(_calls_table(steps, tuple(map(float.fromhex, sigmas))))


def _calls_table(steps: tuple[int, ...], sigmas: tuple[float, ...]) -> "pd.DataFrame":
    import pandas as pd  # slow to import, and opening a cache does not need it

    return pd.DataFrame({"step": steps, "sigma": sigmas})


def check_clip_table(clips: "pd.DataFrame", n_clips: int) -> None:
    """Raise UserError unless the column `clip` numbers the clips 0 … n_clips - 1 in order."""
    numbers = clips["clip"].to_numpy() if "clip" in clips.columns else np.array([])
    if numbers.dtype.kind not in "iu" or not np.array_equal(numbers, np.arange(n_clips)):
        raise UserError(
            f"The clip table must have one row for each of the plan's {n_clips} clips and an integer "
            f"column 'clip' that counts them from 0; got {len(clips)} rows with the columns {list(clips.columns)}."
        )


def _group_attributes(group: Group) -> dict[str, Any]:
    attributes = {
        "protocol": PROTOCOL,
        "version": VERSION,
        "plan": group.plan.model_dump(mode="json"),
        "plan_hash": group.plan.hash,
        "clips_hash": group.clips_hash,
    }
    return {**attributes, "xxh3": checksum.xxh3(canonical_json(attributes).encode())}


def _group_json(group: Group) -> bytes:
    return canonical_json(
        {"zarr_format": 3, "node_type": "group", "attributes": _group_attributes(group)}
    ).encode()


def _array_json(plan: CachePlan, site: str) -> bytes:
    """Return the zarr v3 metadata of a site's array."""
    dtype = plan.dtypes[site]
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    codecs = [little]
    if plan.zstd_level:
        codecs.append({"name": "zstd", "configuration": {"level": plan.zstd_level, "checksum": False}})
    codecs.append({"name": "crc32c"})
    sharding = {
        "chunk_shape": plan.chunk_shape(site),
        "codecs": codecs,
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    fill = FILL[dtype]
    return canonical_json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": plan.shape(site),
            "data_type": STORED[dtype].name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": plan.shard_shape(site)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if fill != fill else fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": DIMS,
            "storage_transformers": [],
            "attributes": {"value_dtype": dtype},
        }
    ).encode()
