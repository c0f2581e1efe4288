"""The bytes of a shard file, made chunk by chunk while they are written."""

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
    """The bytes of a site's shard, made piece by piece while they are written.

    Written here and not through zarr because zarr assembles a whole shard in memory (several times over), and because
    here the order of the chunks in the file is ours to fix.

    Args:
        plan: of the cache.
        site: whose values they are.
        values: all clips of the shard (clip, step, pass, token, channel), on the CPU, in any floating-point format.
        rounding: what casting them to the stored format has lost, if that was done already.

    Attributes:
        size, xxh3: bytes made so far, and their checksum.
        rounding: what casting to the stored format lost.
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
        """XXH3 of the bytes made so far, 16 hexadecimal digits."""
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[memoryview]:
        """The file's content: the chunks in C order, each cast and checked, then the index.

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
        """A chunk as it lies in the file, its checksum last; what is beyond the array's last clip is the fill value."""
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
