"""Names and layout of an activation cache on disk: the constants and formulas of docs/cache-protocol.md.

That page is normative; what is here follows it.
"""

import json
import math
import re
from functools import lru_cache
from typing import Any, Literal

PROTOCOL = "activation-cache"
VERSION = 2

GROUP = "zarr.json"
CLIPS = "clips.parquet"
CALLS = "calls.parquet"
MANIFEST = "manifest.jsonl"
ENTRIES = "manifest/"
STAGING = ".staging"
LOCK = ".lock"
WRITERS = ".writers"

DIMS = ("clip", "step", "pass", "token", "channel")
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RESERVED = (GROUP, CLIPS, CALLS, MANIFEST, ENTRIES.rstrip("/"))
CONCEPT_PREFIX = "label_"

Dtype = Literal["float16", "bfloat16", "float32"]
Pass = Literal["cond", "text", "null"]
ITEMSIZE: dict[str, int] = {"float16": 2, "bfloat16": 2, "float32": 4}

MIN_CHUNK_BYTES = 2**20
MAX_CHUNK_BYTES = 2**28
MAX_CHUNKS = 2**20  # of a shard
MAX_LENGTH = 2**24  # of clips, tokens and channels
MAX_STEP = 2**31
MAX_ZSTD_LEVEL = 22
INDEX_ENTRY_BYTES = 16
CHECKSUM_BYTES = 4  # after each chunk, and after the index
NO_CHUNK = 2**64 - 1

Shape = tuple[int, int, int, int, int]


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, ASCII only, no NaN.

    Raises:
        ValueError: for NaN, infinity, or what is nested too deep. TypeError: for what JSON cannot hold.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def parse_json(text: bytes) -> Any:
    """The value of a JSON text from anybody.

    Raises:
        ValueError: if it is no JSON in UTF-8, gives a name twice in one object, or is nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names must differ: readers would not agree which of two values holds."""
    found = dict(fields)
    if len(found) < len(fields):
        raise ValueError("an object has one name twice")
    return found


def chunk_shape(shard: Shape, itemsize: int) -> Shape:
    """Inner chunk of a shard, (clip, step, pass, token, channel).

    A chunk is one whole page (token, channel). While it holds less than 1 MiB it grows along pass, then step,
    then clip, each time to the smallest divisor of the shard's length that reaches 1 MiB, or the whole
    length.
    """
    chunk = [1, 1, 1, shard[3], shard[4]]
    for axis in (2, 1, 0):
        lacking = MIN_CHUNK_BYTES / (math.prod(chunk) * itemsize)
        length = shard[axis]
        chunk[axis] = next(n for n in _divisors(length) if n >= lacking or n == length)
    return (chunk[0], chunk[1], chunk[2], chunk[3], chunk[4])


@lru_cache
def _divisors(number: int) -> list[int]:
    """The divisors of a number, ascending."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n < number]


def chunk_grid(shard: Shape, chunk: Shape) -> tuple[int, int, int]:
    """How many chunks a shard has along clip, step and pass."""
    return (shard[0] // chunk[0], shard[1] // chunk[1], shard[2] // chunk[2])


def index_bytes(shard: Shape, chunk: Shape) -> int:
    """Size of the index at the end of a shard file, its checksum included."""
    return math.prod(chunk_grid(shard, chunk)) * INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def shard_file_bytes(clips: int, shard: Shape, itemsize: int, is_compressed: bool = False) -> int:
    """Size of one shard file that holds `clips` clips: chunks (the last padded), then the index.

    An upper bound where chunks are compressed: zstd makes what it cannot compress a little larger, at most by the
    amount of its ZSTD_COMPRESSBOUND.
    """
    chunk = chunk_shape(shard, itemsize)
    _, steps, passes = chunk_grid(shard, chunk)
    written = math.ceil(clips / chunk[0]) * steps * passes
    size = math.prod(chunk) * itemsize
    if is_compressed:
        size += size // 256 + max(0, 2**17 - size) // 2**11
    return written * (size + CHECKSUM_BYTES) + index_bytes(shard, chunk)


def shard_file_name(site: str, shard: int) -> str:
    """Path of a shard file inside the cache, with forward slashes: the zarr key of shard number `shard`."""
    return f"{site}/c.{shard}.0.0.0.0"


def entry_name(shard: int) -> str:
    """Path of a shard's manifest entry while the cache is not complete."""
    return f"{ENTRIES}{shard}.json"
