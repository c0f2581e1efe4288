"""Encode a shard file chunk by chunk while it is written."""

from collections.abc import Iterator

import numpy as np
import torch
import xxhash
from numcodecs.zstd import Zstd

from cache import checksum
from cache.plan import CachePlan
from cache.protocol import NO_CHUNK
from cache.rounding import TORCH, Rounding
from cache.shardfile import Index


class ShardBytes:
    """The bytes of a site's shard, encoded in pieces while they are written.

    zarr is not used for this because it assembles a whole shard in memory (several times over), and does not fix the
    order of the chunks in the file.

    Args:
        plan: plan of the cache.
        site: name of the site.
        values: all clips of the shard (clip, step, pass, token, channel), on the CPU, in any floating-point format.
        rounding: rounding error, if the values are already cast to the stored format.

    Attributes:
        size, xxh3: bytes encoded so far, and their checksum.
        rounding: rounding error of the cast to the stored format.
    """

    def __init__(
        self, plan: CachePlan, site: str, values: torch.Tensor, rounding: Rounding | None = None
    ) -> None:
        self._plan = plan
        self._site = site
        self._dtype = plan.dtypes[site]
        self._values = values
        self.size = 0
        self._digest = xxhash.xxh3_64()
        self._is_cast = rounding is not None
        self.rounding = rounding or Rounding()

    @property
    def xxh3(self) -> str:
        """XXH3 of the bytes encoded so far, 16 hexadecimal digits."""
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[memoryview]:
        """Yield the file's content: the chunks in C order, each cast and checked, then the index.

        Raises:
            ValueError: for values that cannot be stored (see `cache.rounding.Rounding.check`).
        """
        self.rounding.check(self._dtype)
        chunk = self._plan.chunk_shape(self._site)
        index: Index = np.full((*self._plan.chunk_grid(self._site), 2), NO_CHUNK, dtype="<u8")
        for position in np.ndindex(index.shape[:3]):
            corner = [i * length for i, length in zip(position, chunk[:3], strict=True)]
            block = self._values[
                tuple(slice(start, start + length) for start, length in zip(corner, chunk[:3], strict=True))
            ]
            if len(block) == 0:
                continue
            content = self._content(block, chunk)
            index[position] = (self.size, sum(map(len, content)))
            yield from map(self._counted, content)
        tail = index.tobytes()
        yield self._counted(memoryview(tail + checksum.crc_bytes(tail)))

    def _content(self, block: torch.Tensor, chunk: tuple[int, ...]) -> list[memoryview]:
        """Encode a chunk with its checksum; positions beyond the array's last clip have the fill value."""
        stored = block.to(TORCH[self._dtype])
        if not self._is_cast:
            self.rounding.add(block, stored)
            self.rounding.check(self._dtype)
        if stored.shape != chunk:
            whole = torch.full(chunk, float("nan"), dtype=stored.dtype)
            whole[: len(stored)] = stored
            stored = whole
        content = stored.contiguous().view(torch.uint8).numpy().data.cast("B")
        if self._plan.zstd_level:
            content = memoryview(Zstd(level=self._plan.zstd_level).encode(content)).cast("B")
        return [content, memoryview(checksum.crc_bytes(content))]

    def _counted(self, piece: memoryview) -> memoryview:
        self.size += len(piece)
        self._digest.update(piece)
        return piece
