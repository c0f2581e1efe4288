"""The plan of a cache: what is stored, in which layout, and how many bytes it takes."""

import hashlib
import json
import math
from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from cache import protocol
from cache.errors import UserError
from cache.protocol import Dtype, Pass, Shape


class TokenReduction(BaseModel):
    """Reduction of the denoiser's tokens to the stored ones.

    "none" keeps all (`size` 1); "stride" keeps every `size`-th, starting with the first; "mean" averages each `size`
    consecutive tokens (the last group may be smaller).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "stride", "mean"] = "none"
    size: PositiveInt = 1

    @model_validator(mode="after")
    def _none_keeps_all(self) -> "TokenReduction":
        if self.kind == "none" and self.size != 1:
            raise UserError(f"A token reduction of kind 'none' must have size 1; got {self.size}.")
        return self

    def stored_tokens(self, tokens: int) -> int:
        """Return how many of `tokens` tokens are stored."""
        return math.ceil(tokens / self.size)


class CachePlan(BaseModel):
    """The contents and layout of a cache. Plans with the same `hash` describe the same store.

    Attributes:
        sites: number of channels by site name.
        dtypes: number format on disk by site name; a single name applies to every site.
        n_clips: clips, numbered from 0.
        steps: captured step indices of the denoiser, in the order of the step axis.
        sigmas: noise level of each captured step.
        passes: captured guidance passes, in the order of the pass axis.
        tokens: stored token positions per clip.
        token_seconds: seconds of audio between consecutive stored tokens.
        token_reduction: how the denoiser's tokens are reduced to the stored ones.
        clips_per_shard: clips in one shard, the unit of writing and resuming.
        zstd_level: 0 is uncompressed; 1 to 22 compress each chunk with zstd.
        identity: what produced the activations (model, weights hash, settings); plain JSON, not interpreted here.

    Raises:
        UserError: for duplicate labels, site names that cannot be folders, and similar.
        pydantic.ValidationError: for values of the wrong type or sign.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: dict[str, PositiveInt]
    dtypes: dict[str, Dtype]
    n_clips: PositiveInt
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    passes: tuple[Pass, ...]
    tokens: PositiveInt
    token_seconds: float = Field(gt=0, allow_inf_nan=False)
    token_reduction: TokenReduction = TokenReduction()
    clips_per_shard: PositiveInt
    zstd_level: int = Field(0, ge=0, le=protocol.MAX_ZSTD_LEVEL)
    identity: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _one_dtype_for_all(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(fields.get("dtypes"), str):
            return {**fields, "dtypes": dict.fromkeys(fields.get("sites", {}), fields["dtypes"])}
        return fields

    @field_validator("identity")
    @classmethod
    def _identity_as_json(cls, identity: dict[str, Any]) -> dict[str, Any]:
        """Convert the identity to what JSON reads back, so that a reopened plan equals the given one."""
        try:
            return dict(json.loads(protocol.canonical_json(identity)))
        except (TypeError, ValueError) as error:
            raise UserError(f"The plan's identity must have plain JSON values: {error}.") from error

    @model_validator(mode="after")
    def _labels_are_usable(self) -> "CachePlan":
        for site in self.sites:
            if not protocol.SITE_NAME.fullmatch(site) or site in protocol.RESERVED:
                raise UserError(
                    f"Site name {site!r} cannot be a folder of the cache. "
                    "Use letters, digits, '.', '_' and '-', such as tf6.cross_attn."
                )
        for name, labels in (("sites", self.sites), ("steps", self.steps), ("passes", self.passes)):
            if not labels or len(set(labels)) < len(labels):
                raise UserError(f"The plan's {name} must be non-empty and unique; got {list(labels)}.")
        if set(self.dtypes) != set(self.sites):
            raise UserError(
                f"The plan must have one dtype for each site, {sorted(self.sites)}; got {sorted(self.dtypes)}."
            )
        if len(self.sigmas) != len(self.steps) or not all(math.isfinite(sigma) for sigma in self.sigmas):
            raise UserError(
                f"The plan must have one finite sigma for each of its {len(self.steps)} steps; "
                f"got {list(self.sigmas)}."
            )
        self._check_lengths()
        for site in self.sites:
            self._check_size(site)
        return self

    def _check_lengths(self) -> None:
        """Raise UserError for implausible numbers of clips, tokens, channels or steps."""
        lengths = {"clips": self.n_clips, "tokens": self.tokens}
        for name, length in {**lengths, "channels": max(self.sites.values())}.items():
            if length > protocol.MAX_LENGTH:
                raise UserError(f"The plan must have at most {protocol.MAX_LENGTH} {name}.")
        if not all(0 <= step < protocol.MAX_STEP for step in self.steps):
            raise UserError(f"The plan's steps must be from 0 to {protocol.MAX_STEP - 1}.")

    def _check_size(self, site: str) -> None:
        """Raise UserError if chunks, or the index of a shard, would not fit into memory."""
        chunk = self.chunk_shape(site)
        size, count = math.prod(chunk) * self.itemsize(site), math.prod(self.chunk_grid(site))
        if size > protocol.MAX_CHUNK_BYTES or count > protocol.MAX_CHUNKS:
            raise UserError(
                f"Shards of {site} may have at most {protocol.MAX_CHUNKS} chunks of {protocol.MAX_CHUNK_BYTES} bytes; "
                f"planned are {count} of {size} bytes. Reduce the tokens, steps or clips_per_shard."
            )

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the plan's canonical JSON, which identifies the store."""
        return hashlib.sha256(protocol.canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    @property
    def n_shards(self) -> int:
        """Number of shards per site."""
        return math.ceil(self.n_clips / self.clips_per_shard)

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First and last clip (inclusive) of each shard."""
        return [self.shard_clips(shard) for shard in range(self.n_shards)]

    def shard_clips(self, shard: int) -> tuple[int, int]:
        """Return the first and last clip (inclusive) of one shard."""
        first = shard * self.clips_per_shard
        return (first, min(first + self.clips_per_shard, self.n_clips) - 1)

    def itemsize(self, site: str) -> int:
        """Return the bytes of one stored value of a site."""
        return protocol.ITEMSIZE[self.dtypes[site]]

    def shape(self, site: str) -> Shape:
        """Return the shape of a site's array: (clip, step, pass, token, channel)."""
        return (self.n_clips, len(self.steps), len(self.passes), self.tokens, self.sites[site])

    def shard_shape(self, site: str) -> Shape:
        """Return the shape of a full shard of a site: (clip, step, pass, token, channel)."""
        return (min(self.clips_per_shard, self.n_clips), *self.shape(site)[1:])

    def chunk_shape(self, site: str) -> Shape:
        """Return the shape of the inner chunks of a site's shards: (clip, step, pass, token, channel)."""
        return protocol.chunk_shape(self.shard_shape(site), self.itemsize(site))

    def chunk_grid(self, site: str) -> tuple[int, int, int]:
        """Return the number of chunks of a full shard of a site along clip, step and pass."""
        return protocol.chunk_grid(self.shard_shape(site), self.chunk_shape(site))

    def bytes_of(self, shards: Collection[int]) -> dict[str, int]:
        """Return each site's bytes on disk for some shards: exact, or an upper bound if compressed."""
        last = self.n_shards - 1
        tails = int(last in shards)
        first_clip, last_clip = self.shard_clips(last)
        sizes = {}
        for site in self.sites:
            shard = self.shard_shape(site)
            full = protocol.shard_file_bytes(shard[0], shard, self.itemsize(site), self.zstd_level > 0)
            tail = protocol.shard_file_bytes(
                last_clip - first_clip + 1, shard, self.itemsize(site), self.zstd_level > 0
            )
            sizes[site] = (len(shards) - tails) * full + tails * tail
        return sizes

    def possible_sizes(self, site: str, is_last: bool) -> range:
        """Return the possible sizes of a shard file in bytes: one, or a range if compressed."""
        first, last = self.shard_clips(self.n_shards - 1 if is_last else 0)
        shape, clips = self.shard_shape(site), last - first + 1
        largest = protocol.shard_file_bytes(clips, shape, self.itemsize(site), self.zstd_level > 0)
        smallest = protocol.index_bytes(shape, self.chunk_shape(site)) if self.zstd_level else largest
        return range(smallest, largest + 1)

    def bytes_per_site(self) -> dict[str, int]:
        """Return each site's bytes on disk: exact, or an upper bound if compressed."""
        return self.bytes_of(range(self.n_shards))

    def total_bytes(self) -> int:
        """Return the bytes of all shard files on disk, without metadata and tables; see `bytes_per_site`."""
        return sum(self.bytes_per_site().values())
