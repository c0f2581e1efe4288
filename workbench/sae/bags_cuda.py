"""The products of `workbench.sae.bags` on CUDA, as Triton kernels. Imported only for CUDA tensors.

A program reads several table rows at once, since a feature that is active on most rows makes one long bag. Sums are in
float32, or float64 for float64.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

# Codes and channels that a program reads at once; powers of 2.
CODES, WIDTH = 8, 512


def bag_sums(
    table: Float[Tensor, "index channel"],
    index: Int64[Tensor, " code"],
    value: Float[Tensor, " code"],
    start: Int64[Tensor, " bag_and_one"],
) -> Float[Tensor, "bag channel"]:
    """Return for each bag the sum of `value * table[index]`."""
    table, channels, bags = table.contiguous(), table.shape[1], len(start) - 1
    sums = table.new_empty(bags, channels)
    if sums.numel():
        with torch.cuda.device(table.device):
            grid = (bags, triton.cdiv(channels, WIDTH))
            _sums[grid](
                table,
                index,
                value.contiguous(),
                start,
                sums,
                channels,
                _wide(table),
                CODES=CODES,
                WIDTH=WIDTH,
            )
    return sums


def bag_dots(
    table: Float[Tensor, "index channel"],
    index: Int64[Tensor, " code"],
    rows: Float[Tensor, "bag channel"],
    start: Int64[Tensor, " bag_and_one"],
) -> Float[Tensor, " code"]:
    """Return for each entry of each bag the dot product of `table[index]` with the bag's row."""
    table, rows, channels = table.contiguous(), rows.contiguous(), table.shape[1]
    dots = table.new_empty(len(index))
    if dots.numel():
        with torch.cuda.device(table.device):
            _dots[(len(rows),)](
                table, index, rows, start, dots, channels, _wide(table), CODES=CODES, WIDTH=WIDTH
            )
    return dots


def _wide(table: Tensor) -> object:
    return tl.float64 if table.dtype == torch.float64 else tl.float32


@triton.jit
def _sums(
    table,
    index,
    value,
    start,
    sums,
    channels,
    ACCUMULATOR: tl.constexpr,
    CODES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    bag = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    first = tl.load(start + bag)
    last = tl.load(start + bag + 1)
    total = tl.zeros([WIDTH], dtype=ACCUMULATOR)
    for position in range(first, last, CODES):
        code = position + tl.arange(0, CODES)
        valid = code < last
        row = tl.load(index + code, mask=valid, other=0)
        factor = tl.load(value + code, mask=valid, other=0.0).to(ACCUMULATOR)
        places = row[:, None] * channels + channel[None, :]
        part = tl.load(table + places, mask=valid[:, None] & inside[None, :], other=0.0).to(ACCUMULATOR)
        total += tl.sum(factor[:, None] * part, axis=0)
    tl.store(sums + bag * channels + channel, total.to(sums.dtype.element_ty), mask=inside)


@triton.jit
def _dots(
    table,
    index,
    rows,
    start,
    dots,
    channels,
    ACCUMULATOR: tl.constexpr,
    CODES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    bag = tl.program_id(0).to(tl.int64)
    first = tl.load(start + bag)
    last = tl.load(start + bag + 1)
    for position in range(first, last, CODES):
        code = position + tl.arange(0, CODES)
        valid = code < last
        row = tl.load(index + code, mask=valid, other=0)
        total = tl.zeros([CODES], dtype=ACCUMULATOR)
        for offset in range(0, channels, WIDTH):
            channel = offset + tl.arange(0, WIDTH)
            inside = channel < channels
            other = tl.load(rows + bag * channels + channel, mask=inside, other=0.0).to(ACCUMULATOR)
            places = row[:, None] * channels + channel[None, :]
            part = tl.load(table + places, mask=valid[:, None] & inside[None, :], other=0.0).to(ACCUMULATOR)
            total += tl.sum(part * other[None, :], axis=1)
        tl.store(dots + code, total.to(dots.dtype.element_ty), mask=valid)
