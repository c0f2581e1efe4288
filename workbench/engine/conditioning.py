"""Cache keys and values of a constant conditioning: computed in a generation's first calls and reused."""

from collections.abc import Sequence

import torch
from jaxtyping import Float

from workbench.engine.sites import Site

Key = tuple[str, str, str]
"""Prompt, lyrics and pass; rows with the same key have the same conditioning in every call."""


class ConditioningTable:
    """Keys and values of every block, one row per distinct conditioning in a batch.

    Conditioning is encoded once per generation, so its projections are the same in every call.
    """

    def __init__(self) -> None:
        self._kept: dict[Site, dict[Key, Float[torch.Tensor, "token channel"]]] = {}
        self._keys: list[Key] = []
        self._stored: list[Key] = []

    def start_call(self, keys: Sequence[Key], stored: Sequence[Key] = ()) -> None:
        """Start a call whose computed rows have these conditionings, and which also reads those that are `stored`."""
        self._keys, self._stored = list(keys), list(stored)

    def has(self, key: Key) -> bool:
        """Whether a conditioning is cached at every site."""
        return bool(self._kept) and all(key in kept for kept in self._kept.values())

    @property
    def complete(self) -> bool:
        """Whether the values of all rows of this call are cached at every site."""
        return all(map(self.has, self._keys))

    def rows(self, site: Site) -> Float[torch.Tensor, "row token channel"] | None:
        """Return the site's output for this call's rows, or None if it is not cached yet."""
        kept = self._kept.get(site)
        if kept is None or not set(self._keys) <= set(kept):
            return None
        return torch.stack([kept[key] for key in self._keys])

    def with_stored(
        self, site: Site, value: Float[torch.Tensor, "row token channel"]
    ) -> Float[torch.Tensor, "readable_row token channel"]:
        """Return the site's output for this call's rows, followed by what is cached of those that are stored."""
        kept = self._kept[site]
        return torch.cat([value, *(kept[key][None] for key in self._stored)]) if self._stored else value

    def keep(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Cache the site's output for this call's rows, before any edit."""
        kept = self._kept.setdefault(site, {})
        for key, row in zip(self._keys, value, strict=True):
            if key not in kept:
                kept[key] = row.clone()
