"""Read a cache: by label, lazily, or shuffled for training."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from cache import metadata
from cache.chunks import ChunkReader, Positions
from cache.encoding import decode
from cache.errors import CacheError, UserError
from cache.manifest import Manifest
from cache.protocol import CONCEPT_PREFIX, DIMS
from cache.storage import Location, open_storage
from cache.wording import CAPTURE_AGAIN

if TYPE_CHECKING:
    import pandas as pd
    import torch
    import xarray as xr

    from cache.shuffle import ShuffledRows


_NAMED = 3  # damaged lines in an error


class ActivationCache:
    """A cache, opened for reading.

    Every chunk is verified against its checksum, so that damage raises an error instead of giving wrong numbers.

    Args:
        location: folder or URL of the cache, or a `Storage`.
        allow_partial: also open a cache with missing shards; reading those is still an error.

    Attributes:
        storage: where the cache is stored.
        group: contents of the cache's `zarr.json`.
        plan: contents and layout of the cache.
        manifest: the committed shards.

    Raises:
        CacheError: if there is no cache, it has another version, is damaged, or (unless allowed) incomplete.
    """

    def __init__(self, location: Location, allow_partial: bool = False) -> None:
        self.storage = open_storage(location)
        self.group = metadata.read_group(self.storage)
        self.plan = self.group.plan
        self.manifest = Manifest(self.storage, self.plan)
        self._chunk_readers: dict[str, ChunkReader] = {}
        missing = self.plan.n_shards - len(self.manifest.entries)
        if missing and not allow_partial:
            damaged = (
                f"; damaged in the manifest: {', '.join(self.manifest.damaged[:_NAMED])}"
                if self.manifest.damaged
                else ""
            )
            raise CacheError(
                f"{self.storage.location} is half-written: {missing} of {self.plan.n_shards} shards are missing "
                f"(the first is {self._first_missing()}{damaged}). To write them, "
                f"{CAPTURE_AGAIN}; or open it with allow_partial=True."
            )

    def _first_missing(self) -> int:
        """Return the number of the first missing shard."""
        return next(shard for shard in range(self.plan.n_shards) if shard not in self.manifest.entries)

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return list(self.plan.sites)

    @cached_property
    def clips(self) -> "pd.DataFrame":
        """The clip table: one row per clip, column `clip` counting from 0."""
        return metadata.read_clips(self.storage, self.group)

    @cached_property
    def calls(self) -> "pd.DataFrame":
        """The captured calls of the denoiser: columns `step` (index) and `sigma` (noise level)."""
        return metadata.read_calls(self.storage, self.group)

    def read(
        self,
        site: str,
        clips: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        passes: Sequence[str] | None = None,
        tokens: slice | None = None,
        *,
        concepts: Mapping[str, Any] | None = None,
        sigmas: tuple[float, float] | None = None,
        seconds: tuple[float, float] | None = None,
    ) -> Float[np.ndarray, "clip step pass token channel"]:
        """Read activations as float32, in the order of the given labels; None means all.

        Args:
            site: name of the site.
            clips: clip numbers.
            steps: step indices, as in `calls`.
            passes: "cond", "null".
            tokens: slice of token positions.
            concepts: required value of each concept, such as {"mood": "sad"}: the column `label_mood` of the clip
                table.
            sigmas: smallest and largest noise level (inclusive).
            seconds: time range: tokens that begin at `seconds[0]` or later and before `seconds[1]`.

        Raises:
            UserError: if a site or label is unknown.
            CacheError: if a shard is missing or damaged.
        """
        positions = (
            self.clips_where(concepts, self.positions("clip", clips)),
            self.steps_within(sigmas, self.positions("step", steps)),
            self.positions("pass", passes),
            self.tokens_within(seconds, range(self.plan.tokens)[tokens or slice(None)]),
            range(self.channels(site)),
        )
        return self.read_positions(site, positions)

    def dataset(self, site: str) -> "xr.DataArray":
        """Return a site as a lazy array, which reads what is indexed from disk when its values are needed.

        Dims (clip, step, pass, token, channel), float32; coordinates clip and the columns of the clip table, step,
        sigma (along step), pass, and seconds (along token: the time at which the token begins).
        """
        import xarray as xr  # slow to import, and opening a cache does not need it

        from cache.lazy import lazy_array

        plan = self.plan
        self.channels(site)
        return xr.DataArray(
            lazy_array(plan.shape(site), lambda positions: self.read_positions(site, positions)),
            dims=DIMS,
            coords={
                **{name: ("clip", self.clips[name].to_numpy()) for name in self.clips.columns},
                "step": list(plan.steps),
                "sigma": ("step", list(plan.sigmas)),
                "pass": list(plan.passes),
                "seconds": ("token", np.arange(plan.tokens) * plan.token_seconds),
            },
            name=site,
        )

    def shuffled_rows(
        self,
        site: str,
        batch_size: int,
        seed: int,
        clips: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        passes: Sequence[str] | None = None,
        device: "str | torch.device" = "cpu",
    ) -> "ShuffledRows":
        """Return all activation vectors of a site, once per epoch in random order; see `cache.shuffle.ShuffledRows`."""
        from cache.shuffle import ShuffledRows

        return ShuffledRows(self, site, batch_size, seed, clips, steps, passes, device)

    def channels(self, site: str) -> int:
        """Return the number of channels of a site.

        Raises:
            UserError: if the cache has no such site.
        """
        if site not in self.plan.sites:
            raise UserError(f"{self.storage.location} has no site {site!r}; it has {', '.join(self.sites)}.")
        return self.plan.sites[site]

    def positions(self, dim: str, labels: Sequence[int | str] | None) -> Sequence[int]:
        """Return the positions of labels along "clip", "step" or "pass"; None means all.

        Raises:
            UserError: for a label that the cache does not have.
        """
        known: dict[str, Sequence[int | str]] = {
            "clip": range(self.plan.n_clips),
            "step": self.plan.steps,
            "pass": self.plan.passes,
        }
        if labels is None:
            return range(len(known[dim]))
        unknown = [label for label in labels if label not in known[dim]]
        if unknown:
            raise UserError(
                f"{self.storage.location} has no {dim} {unknown[0]!r}; it has {_listed(known[dim])}."
            )
        return [known[dim].index(label) for label in labels]

    def clips_where(self, concepts: Mapping[str, Any] | None, clips: Sequence[int]) -> Sequence[int]:
        """Return the clips that have the given value of each concept.

        Raises:
            UserError: if no clip has the concept or value.
        """
        for concept, value in (concepts or {}).items():
            column = f"{CONCEPT_PREFIX}{concept}"
            if column not in self.clips.columns:
                known = [
                    name.removeprefix(CONCEPT_PREFIX)
                    for name in self.clips
                    if name.startswith(CONCEPT_PREFIX)
                ]
                raise UserError(
                    f"{self.storage.location} has no concept {concept!r}; it has {', '.join(known) or 'none'}."
                )
            matches = (self.clips[column] == value).to_numpy()
            if not matches.any():
                values = ", ".join(map(str, self.clips[column].unique()))
                raise UserError(
                    f"{self.storage.location} has no clip with {concept}={value}; it has {values}."
                )
            clips = [clip for clip in clips if matches[clip]]
        return clips

    def steps_within(self, sigmas: tuple[float, float] | None, steps: Sequence[int]) -> Sequence[int]:
        """Return the positions along step whose sigma is within a range (inclusive).

        Raises:
            UserError: if there are none.
        """
        if sigmas is None:
            return steps
        low, high = sigmas
        kept = [step for step in steps if low <= self.plan.sigmas[step] <= high]
        if not kept:
            raise UserError(
                f"{self.storage.location} has no step with a sigma from {low:g} to {high:g}; "
                f"it has {', '.join(f'{sigma:.3g}' for sigma in self.plan.sigmas)}."
            )
        return kept

    def tokens_within(self, seconds: tuple[float, float] | None, tokens: Sequence[int]) -> Sequence[int]:
        """Return the tokens that begin within a time range in seconds (its end is exclusive).

        Raises:
            UserError: if there are none.
        """
        if seconds is None:
            return tokens
        start, end = seconds
        kept = [token for token in tokens if start <= token * self.plan.token_seconds < end]
        if not kept:
            length = self.plan.tokens * self.plan.token_seconds
            raise UserError(
                f"{self.storage.location} has no token from {start:g} to {end:g} s; its clips are {length:g} s long."
            )
        return kept

    def read_positions(
        self, site: str, positions: Sequence[Positions]
    ) -> Float[np.ndarray, "clip step pass token channel"]:
        """Read activations as float32 at the positions along each dimension; raise as `read` does."""
        return decode(self.read_stored(site, positions), self.plan.dtypes[site])

    def read_stored(
        self, site: str, positions: Sequence[Positions]
    ) -> Shaped[np.ndarray, "clip step pass token channel"]:
        """Read stored values (bfloat16 as uint16) at the positions along each dimension; raise as `read` does."""
        return self.chunk_reader(site).read(positions)

    def chunk_reader(self, site: str) -> ChunkReader:
        """Return the reader of a site's inner chunks, for reading them in any order."""
        self.channels(site)
        if site not in self._chunk_readers:
            self._chunk_readers[site] = ChunkReader(self.storage, self.plan, self.manifest, site)
        return self._chunk_readers[site]


def _listed(labels: Sequence[int | str]) -> str:
    return f"{labels[0]} to {labels[-1]}" if isinstance(labels, range) else ", ".join(map(str, labels))
