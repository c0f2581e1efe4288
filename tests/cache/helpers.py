"""Small plans, values known at every coordinate, and whole caches as comparable dictionaries."""

import threading
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from cache import CachePlan, CacheWriter
from cache.storage import Location, open_storage

AnyLocation = TypeVar("AnyLocation", bound=Location)


def make_plan(**changes: Any) -> CachePlan:
    """Two sites, five clips in shards of two (the last one partial), three steps, both passes."""
    fields: dict[str, Any] = {
        "sites": {"tf0.cross_attn": 3, "tf1.mlp": 5},
        "n_clips": 5,
        "steps": (0, 7, 21),
        "sigmas": (1.0, 0.6, 0.1),
        "passes": ("cond", "null"),
        "tokens": 4,
        "token_seconds": 0.04,
        "dtypes": "float16",
        "clips_per_shard": 2,
        "identity": {"model": "made up", "seed": 3},
    }
    return CachePlan(**(fields | changes))


def make_clips(plan: CachePlan) -> pd.DataFrame:
    """A clip table with a column of each kind."""
    numbers = range(plan.n_clips)
    return pd.DataFrame(
        {
            "clip": list(numbers),
            "prompt": [f"a fast violin song, take {k}" for k in numbers],
            "duration": [10.0 + k for k in numbers],
        }
    )


def make_values(plan: CachePlan, site: str) -> Float[np.ndarray, "clip step pass token channel"]:
    """Float32 values of a whole site, the same in every process."""
    rng = np.random.default_rng(len(site) + plan.n_clips)
    return rng.standard_normal(plan.shape(site), dtype=np.float32)


def shard_values(plan: CachePlan, shard: int) -> dict[str, Float[np.ndarray, "clip step pass token channel"]]:
    """A shard's values from `make_values`, as `write_shard` takes them."""
    first, last = plan.shard_clips(shard)
    return {site: make_values(plan, site)[first : last + 1] for site in plan.sites}


def write_cache(
    location: AnyLocation,
    plan: CachePlan,
    order: list[int] | None = None,
    shards: tuple[int, int] | None = None,
) -> AnyLocation:
    """Write the missing shards of a cache (or of a range), in ascending or the given order."""
    with CacheWriter(location, plan, make_clips(plan), shards) as writer:
        for shard in writer.missing() if order is None else order:
            writer.write_shard(shard, shard_values(plan, shard))
    return location


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden names included: path -> content (None for folders)."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def contents(location: Location) -> dict[str, bytes]:
    """Every name in a cache, in a folder or in a store -> its bytes."""
    storage = open_storage(location)
    return {name: storage.read(name) for name in sorted(storage.sizes())}


def living_threads() -> list[str]:
    """Names of the threads that read ahead."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cache-rows")]
