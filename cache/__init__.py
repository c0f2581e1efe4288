"""The activation cache: arrays of activations on disk, with their labels. Independent of any model.

    writer = CacheWriter(path, plan, clips)             # creates, or reopens the same plan
    for k in writer.missing():
        writer.write_shard(k, {site: values})           # (clip, step, pass, token, channel)
    cache = ActivationCache(path)
    cache.read("tf6.cross_attn", clips=[0, 3])          # float32

The format on disk is docs/cache-protocol.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError, UserError

if TYPE_CHECKING:
    from cache.plan import CachePlan
    from cache.reader import ActivationCache
    from cache.writer import CacheWriter

__all__ = ["ActivationCache", "CacheError", "CachePlan", "CacheWriter", "UserError"]

_MODULES = {"ActivationCache": "cache.reader", "CachePlan": "cache.plan", "CacheWriter": "cache.writer"}


def __getattr__(name: str) -> Any:
    """Import zarr and pandas on first use: every command imports `cache.errors` and must start quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cache' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
