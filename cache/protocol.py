"""Names and layout of an activation cache on disk: the constants and formulas of docs/cache-protocol.md.

That page is normative.
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
    """Return the canonical JSON of a value: keys sorted, no spaces, ASCII only, no NaN.

    Raises:
        ValueError: for NaN, infinity, or values nested too deeply.
        TypeError: for values that JSON cannot represent.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: if it is not JSON in UTF-8, repeats a key in an object, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; raise ValueError for repeated keys, of which parsers pick different values."""
    value = dict(fields)
    if len(value) < len(fields):
        raise ValueError("an object has a key twice")
    return value


def chunk_shape(shard: Shape, itemsize: int) -> Shape:
    """Return the shape of the inner chunks of a shard: (clip, step, pass, token, channel).

    A chunk starts as one slice (token, channel). While it is smaller than 1 MiB it grows along pass, then step, then
    clip, each time to the smallest divisor of the shard's length that reaches 1 MiB, or the whole length.
    """
    chunk = [1, 1, 1, shard[3], shard[4]]
    for axis in (2, 1, 0):
        lacking = MIN_CHUNK_BYTES / (math.prod(chunk) * itemsize)
        length = shard[axis]
        chunk[axis] = next(n for n in _divisors(length) if n >= lacking or n == length)
    return (chunk[0], chunk[1], chunk[2], chunk[3], chunk[4])


@lru_cache
def _divisors(number: int) -> list[int]:
    """Return the divisors of a number in ascending order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n < number]


def chunk_grid(shard: Shape, chunk: Shape) -> tuple[int, int, int]:
    """Return the number of chunks of a shard along clip, step and pass."""
    return (shard[0] // chunk[0], shard[1] // chunk[1], shard[2] // chunk[2])


def index_bytes(shard: Shape, chunk: Shape) -> int:
    """Return the size of the index at the end of a shard file, including its checksum."""
    return math.prod(chunk_grid(shard, chunk)) * INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def shard_file_bytes(clips: int, shard: Shape, itemsize: int, is_compressed: bool = False) -> int:
    """Return the size of a shard file with `clips` clips: chunks (the last one padded), then the index.

    For compressed chunks this is an upper bound: zstd enlarges incompressible data slightly, at most to its
    ZSTD_COMPRESSBOUND.
    """
    chunk = chunk_shape(shard, itemsize)
    _, steps, passes = chunk_grid(shard, chunk)
    written = math.ceil(clips / chunk[0]) * steps * passes
    size = math.prod(chunk) * itemsize
    if is_compressed:
        size += size // 256 + max(0, 2**17 - size) // 2**11
    return written * (size + CHECKSUM_BYTES) + index_bytes(shard, chunk)


def shard_file_name(site: str, shard: int) -> str:
    """Return the zarr key of shard number `shard`: its path inside the cache, with forward slashes."""
    return f"{site}/c.{shard}.0.0.0.0"


def entry_name(shard: int) -> str:
    """Return the path of a shard's manifest entry, used until the cache is complete."""
    return f"{ENTRIES}{shard}.json"
