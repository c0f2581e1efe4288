"""Reading a cache: by label, lazily, or shuffled for training. Nothing here writes."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from jaxtyping import Float, Shaped

from cache import checksum, metadata
from cache.encoding import STORED, WIDE, decode
from cache.errors import CacheError, UserError
from cache.lazy import lazy_array
from cache.manifest import Manifest
from cache.pages import Positions, read_positions
from cache.protocol import CALLS, CLIPS, DIMS
from cache.shuffle import shuffled_rows

# zarr's default of 10 reads at a time leaves a disk idle between the pages of a shard.
zarr.config.set({"async.concurrency": 64})


class ActivationCache:
    """A cache folder, opened for reading.

    Args:
        path: folder of the cache.
        allow_partial: open it though shards are missing; reading one of those is an error all the same.

    Attributes:
        path: the folder.
        plan: what the cache holds.
        manifest: which shards are there.

    Raises:
        CacheError: if the folder is missing, no cache, of another version, damaged, or (unless allowed)
            half-written.
    """

    def __init__(self, path: Path | str, allow_partial: bool = False) -> None:
        self.path = Path(path)
        self.plan = metadata.read_plan(self.path)
        self.manifest = Manifest(self.path)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        missing = [shard for shard in range(self.plan.n_shards) if shard not in self.manifest.entries]
        if missing and not allow_partial:
            raise CacheError(
                f"{self.path} is half-written, {len(missing)} of {self.plan.n_shards} shards are missing "
                f"(the first is {missing[0]}): capture again with the same plan, "
                "or open it with allow_partial=True"
            )

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return list(self.plan.sites)

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table: one row per clip, column `clip` counting from 0."""
        return metadata.read_table(self.path / CLIPS)

    @cached_property
    def calls(self) -> pd.DataFrame:
        """The kept calls of the denoiser: columns `step` (index) and `sigma` (noise level)."""
        return metadata.read_table(self.path / CALLS)

    def read(
        self,
        site: str,
        clips: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        passes: Sequence[str] | None = None,
        tokens: slice | None = None,
    ) -> Float[np.ndarray, "clip step pass token channel"]:
        """Activations as float32, in the order of the labels asked for; None means all.

        Args:
            site: name of the site.
            clips: clip numbers.
            steps: step indices, as in `calls`.
            passes: "cond", "null".
            tokens: slice of token positions.

        Raises:
            UserError: for an unknown site or label. CacheError: for a shard that is missing or damaged.
        """
        positions = (
            self.positions("clip", clips),
            self.positions("step", steps),
            self.positions("pass", passes),
            range(self.plan.tokens)[tokens or slice(None)],
            range(self.channels(site)),
        )
        return self.read_positions(site, positions)

    def dataset(self, site: str) -> xr.DataArray:
        """A site as an array that reads from disk what is indexed, when its values are asked for.

        Dims (clip, step, pass, token, channel), float32; coordinates clip, step, sigma (along step), pass,
        and seconds (along token: where in the music the token begins).
        """
        plan = self.plan
        self.channels(site)
        return xr.DataArray(
            lazy_array(plan.shape(site), lambda positions: self.read_positions(site, positions)),
            dims=DIMS,
            coords={
                "clip": np.arange(plan.n_clips),
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
        steps: Sequence[int] | None = None,
        passes: Sequence[str] | None = None,
    ) -> Iterator[Float[np.ndarray, "row channel"]]:
        """Every activation vector of a site exactly once, in random order, as float32 batches.

        See `cache.shuffle.shuffled_rows`.
        """
        return shuffled_rows(self, site, batch_size, seed, steps, passes)

    def verify(self) -> list[str]:
        """Read every committed shard file and name those that are missing or differ from their checksum.

        To repair: delete the named files and capture again with the same plan, which writes their shards.
        """
        files = [file for entry in self.manifest.entries.values() for file in entry.files.values()]
        return [
            file.name
            for file in files
            if not file.has_right_size(self.path)
            or checksum.to_hex(checksum.of_file(self.path / file.name)) != file.crc32c
        ]

    def channels(self, site: str) -> int:
        """Channels of a site.

        Raises:
            UserError: if the cache has no such site.
        """
        if site not in self.plan.sites:
            raise UserError(f"{self.path} has no site {site!r}: it has {', '.join(self.sites)}")
        return self.plan.sites[site]

    def positions(self, dim: str, labels: Sequence[int | str] | None) -> Sequence[int]:
        """Where labels lie along "clip", "step" or "pass"; None means everywhere.

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
            raise UserError(f"{self.path} has no {dim} {unknown[0]!r}: it has {_listed(known[dim])}")
        return [known[dim].index(label) for label in labels]

    def read_positions(
        self, site: str, positions: Sequence[Positions]
    ) -> Float[np.ndarray, "clip step pass token channel"]:
        """Activations as float32 at the positions given for each dimension; raises like `read`."""
        return decode(self._read(site, positions, WIDE[self.plan.dtype]), self.plan.dtype)

    def read_stored(
        self, site: str, positions: Sequence[Positions]
    ) -> Shaped[np.ndarray, "clip step pass token channel"]:
        """Values as stored (bfloat16 as uint16) at the positions given; raises like `read`."""
        return self._read(site, positions, STORED[self.plan.dtype])

    def _read(
        self, site: str, positions: Sequence[Positions], dtype: np.dtype[Any]
    ) -> Shaped[np.ndarray, "clip step pass token channel"]:
        for shard in sorted({int(clip) // self.plan.clips_per_shard for clip in positions[0]}):
            self._check_shard(site, shard)
        try:
            return read_positions(self._array(site), positions, dtype)
        except (ValueError, OSError) as error:
            raise CacheError(
                f"{self.path / site} cannot be read ({error}): find the damaged shards with verify(), "
                "delete their files and capture again with the same plan"
            ) from error

    def _check_shard(self, site: str, shard: int) -> None:
        """Refuse what zarr would fill with its fill value without a word."""
        first, last = self.plan.shard_clips(shard)
        if shard not in self.manifest.entries:
            raise CacheError(
                f"shard {shard} of {self.path} (clips {first} to {last}) is not written yet: "
                "capture again with the same plan, or read other clips"
            )
        file = self.manifest.entries[shard].files[site]
        if not file.has_right_size(self.path):
            raise CacheError(
                f"{self.path / file.name} (clips {first} to {last}) is missing or not {file.bytes} bytes: "
                "capture again with the same plan, which writes it anew"
            )

    def _array(self, site: str) -> "zarr.Array[Any]":
        """The site's zarr array, opened once."""
        if site not in self._arrays:
            path = self.path / site
            try:
                array = zarr.open_array(store=path, mode="r")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _damaged_array(path) from error
            if (array.shape, array.dtype) != (self.plan.shape(site), STORED[self.plan.dtype]):
                raise _damaged_array(path)
            self._arrays[site] = array
        return self._arrays[site]


def _damaged_array(path: Path) -> CacheError:
    return CacheError(f"{path / 'zarr.json'} is missing or damaged: restore it from a copy, or capture again")


def _listed(labels: Sequence[int | str]) -> str:
    return f"{labels[0]} to {labels[-1]}" if isinstance(labels, range) else ", ".join(map(str, labels))
