"""Small plans, values that are known at every coordinate, and whole folders as comparable dictionaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cache import CachePlan, CacheWriter


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
        "dtype": "float16",
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
    """What `write_shard` takes, out of `make_values`."""
    first, last = plan.shard_clips(shard)
    return {site: make_values(plan, site)[first : last + 1] for site in plan.sites}


def write_cache(path: Path, plan: CachePlan, order: list[int] | None = None) -> Path:
    """Write what is missing of a cache, in ascending or the given order of shards."""
    with CacheWriter(path, plan, make_clips(plan)) as writer:
        for shard in order or writer.missing():
            writer.write_shard(shard, shard_values(plan, shard))
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder: path -> content (None for folders)."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
