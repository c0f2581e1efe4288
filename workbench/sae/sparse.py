"""Sparse feature activations: which features of a row are active, how strongly, and training through them.

Only the product of the encoder is dense. The decoder, the gradients of both weight matrices and the gradients of the
activations are sums and dot products over the active features alone (`workbench.sae.bags`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.sae.bags import bag_dots, bag_sums

# The largest values are searched in blocks of this many features: those with the largest maxima hold them.
BLOCK = 32


class Codes(NamedTuple):
    """Active features, row after row: row i has the codes `start[i]:start[i + 1]`. A value of 0 is an unused place."""

    feature: Int64[Tensor, " code"]
    value: Float[Tensor, " code"]
    start: Int64[Tensor, " row_and_one"]

    @property
    def row(self) -> Int64[Tensor, " code"]:
        """Row of each code."""
        rows = torch.arange(len(self.start) - 1, device=self.start.device)
        return rows.repeat_interleave(self.start.diff(), output_size=len(self.feature))

    def within(self, first: int, last: int) -> "Codes":
        """Return the codes of features first to last - 1, numbered from `first`."""
        kept = (self.feature >= first) & (self.feature < last)
        before = torch.cat([self.start.new_zeros(1), kept.cumsum(0)])
        return Codes(self.feature[kept] - first, self.value[kept], before[self.start])


Selection = Callable[[Float[Tensor, "row feature"]], Codes]
"""Chooses the active features by their pre-activations."""


def largest(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the k largest pre-activations of each row, negative ones as 0. Which of equal ones is not specified."""
    rows, features = pre.shape
    if features % BLOCK or k * BLOCK >= features:
        values, feature = pre.topk(k, sorted=False)
    else:
        blocks = pre.unflatten(1, (-1, BLOCK))
        chosen = blocks.amax(2).topk(k, sorted=False).indices
        candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
        values, place = candidates.topk(k, sorted=False)
        feature = chosen.gather(1, place // BLOCK) * BLOCK + place % BLOCK
    start = torch.arange(0, rows * k + 1, k, device=pre.device)
    return Codes(feature.flatten(), torch.relu(values).flatten(), start)


def largest_of_batch(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the largest positive pre-activations of a batch, k a row on average.

    Which of equal ones is not specified.
    """
    rows, features = pre.shape
    count, flat = rows * k, pre.flatten()
    if flat.numel() % BLOCK or count * BLOCK >= flat.numel():
        values, place = flat.topk(count, sorted=False)
    else:
        blocks = flat.view(-1, BLOCK)
        chosen = blocks.amax(1).topk(count, sorted=False).indices
        values, among = blocks[chosen].flatten().topk(count, sorted=False)
        place = chosen[among // BLOCK] * BLOCK + among % BLOCK
    place = place[values > 0].sort().values
    counts = torch.bincount(place // features, minlength=rows)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(place % features, flat[place], start)


def encode(
    x: Float[Tensor, "row channel"],
    shift: Float[Tensor, " channel"] | None,
    w_enc: Float[Tensor, "channel feature"],
    b_enc: Float[Tensor, " feature"],
    select: Selection,
) -> Codes:
    """Return the codes that `select` chooses from the pre-activations `(x - shift) @ w_enc + b_enc`."""
    value, feature, start = _Encode.apply(x, shift, w_enc, b_enc, select)
    return Codes(feature, value, start)


def decode(codes: Codes, w_dec: Float[Tensor, "feature channel"]) -> Float[Tensor, "row channel"]:
    """Return the sum of the active features' decoder rows, each times its activation."""
    return _Decode.apply(codes.value, codes.feature, codes.start, w_dec)


def dense(codes: Codes, features: int) -> Float[Tensor, "row feature"]:
    """Return the activations of all features, 0 for those that are not active."""
    acts = codes.value.new_zeros((len(codes.start) - 1, features))
    return acts.index_put((codes.row, codes.feature), codes.value)


def fired(codes: Codes, features: int) -> Int64[Tensor, " feature"]:
    """Return on how many rows each feature is active."""
    return codes.feature.new_zeros(features).index_add_(0, codes.feature, (codes.value > 0).long())


class _ByFeature(NamedTuple):
    """The order of the codes by feature, in which each feature is a bag of rows."""

    order: Int64[Tensor, " code"]
    row: Int64[Tensor, " code"]
    start: Int64[Tensor, " feature_and_one"]

    @classmethod
    def of(cls, codes: Codes, features: int) -> "_ByFeature":
        feature, order = codes.feature.sort(stable=True)  # stable: the order of the sums is always the same
        bounds = torch.arange(features + 1, device=feature.device)
        return cls(order, codes.row[order], torch.searchsorted(feature, bounds))


class _Encode(torch.autograd.Function):
    """`encode`, with a gradient through the chosen pre-activations only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, w_enc: Tensor, b_enc: Tensor, select: Selection
    ) -> tuple[Tensor, Tensor, Tensor]:
        shifted = x if shift is None else x - shift
        codes = select(torch.addmm(b_enc, shifted, w_enc))
        value = codes.value.to(x.dtype)  # autocast computes the product in half precision
        ctx.save_for_backward(shifted, w_enc, value, codes.feature, codes.start)
        ctx.mark_non_differentiable(codes.feature, codes.start)
        return value, codes.feature, codes.start

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        shifted, w_enc, value, feature, start = ctx.saved_tensors
        for_x, for_shift, for_w_enc, for_b_enc, _ = ctx.needs_input_grad
        of_code = torch.where(value > 0, gradients[0], 0)
        by_feature = _ByFeature.of(Codes(feature, value, start), w_enc.shape[1])
        of_feature = torch.segment_reduce(of_code[by_feature.order], "sum", offsets=by_feature.start)
        return (
            bag_sums(w_enc.T, feature, of_code, start) if for_x else None,
            -(w_enc @ of_feature) if for_shift else None,
            # Feature by feature, so W_enc is best stored so, too (`feature_major`).
            bag_sums(shifted, by_feature.row, of_code[by_feature.order], by_feature.start).T
            if for_w_enc
            else None,
            of_feature if for_b_enc else None,
            None,
        )


class _Decode(torch.autograd.Function):
    """`decode`, with a gradient for the codes' values only, not for those of other features."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, feature: Tensor, start: Tensor, w_dec: Tensor) -> Tensor:
        ctx.save_for_backward(value, feature, start, w_dec)
        return bag_sums(w_dec, feature, value, start)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, feature, start, w_dec = ctx.saved_tensors
        of_row = gradients[0].contiguous()
        for_value, _, _, for_w_dec = ctx.needs_input_grad
        of_w_dec = None
        if for_w_dec:
            by_feature = _ByFeature.of(Codes(feature, value, start), len(w_dec))
            of_w_dec = bag_sums(of_row, by_feature.row, value[by_feature.order], by_feature.start)
        return bag_dots(w_dec, feature, of_row, start) if for_value else None, None, None, of_w_dec
