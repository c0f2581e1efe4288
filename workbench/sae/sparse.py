"""Sparse feature activations: which features of a row are active, how strongly, and training through them.

Only the product of the encoder is dense. The decoder, the gradients of both weight matrices and the gradients of the
activations are sums and dot products over the active features alone (`workbench.sae.bags`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.sae.bags import bag_dots, bag_sums


class ByFeature(NamedTuple):
    """Codes in the order of their features, in which each feature is a bag of rows."""

    order: Int64[Tensor, " code"]
    row: Int64[Tensor, " code"]
    start: Int64[Tensor, " feature_and_one"]


class Order:
    """Sorts codes by feature when that is first asked for, and once: the gradients of both weight matrices need it."""

    def __init__(self, feature: Int64[Tensor, " code"], start: Int64[Tensor, " row_and_one"]) -> None:
        self._feature, self._start = feature, start
        self._by_feature: ByFeature | None = None

    def by_feature(self, features: int) -> ByFeature:
        """Return the order, of that many features."""
        if self._by_feature is None:
            order, row = _stable_order(self._feature, features), _rows(self._start, len(self._feature))
            counts = torch.bincount(self._feature, minlength=features)
            self._by_feature = ByFeature(order, row[order], functional.pad(counts.cumsum(0), (1, 0)))
        return self._by_feature


class Codes(NamedTuple):
    """Active features, row after row: row i has the codes `start[i]:start[i + 1]`. A value of 0 is an unused place."""

    feature: Int64[Tensor, " code"]
    value: Float[Tensor, " code"]
    start: Int64[Tensor, " row_and_one"]
    order: Order | None = None  # if they were encoded

    @property
    def row(self) -> Int64[Tensor, " code"]:
        """Row of each code."""
        return _rows(self.start, len(self.feature))

    def within(self, first: int, last: int) -> "Codes":
        """Return the codes of features first to last - 1, numbered from `first`."""
        kept = (self.feature >= first) & (self.feature < last)
        before = torch.cat([self.start.new_zeros(1), kept.cumsum(0)])
        return Codes(self.feature[kept] - first, self.value[kept], before[self.start])


Selection = Callable[[Float[Tensor, "row feature"]], Codes]
"""Chooses the active features by their pre-activations."""


def largest(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the k largest pre-activations of each row, negative ones as 0. Which of equal ones is not specified."""
    values, feature = _largest(pre, k)
    start = torch.arange(0, len(pre) * k + 1, k, device=pre.device)
    return Codes(feature.flatten(), torch.relu(values).flatten(), start)


def largest_of_batch(
    pre: Float[Tensor, "row feature"],
    k: int,
    sharing: int = 1,
    gathered: Callable[[Float[Tensor, " value"]], Float[Tensor, " gathered"]] = lambda values: values,
) -> Codes:
    """Return the largest positive pre-activations of a batch, k a row on average. Which of equal ones is not specified.

    If `sharing` processes each have such rows of the batch, they are the largest of all, for which `gathered` returns
    the values of all processes.
    """
    rows, features = pre.shape
    count = sharing * rows * k
    values, place = (found[0] for found in _largest(pre.reshape(1, -1), min(count, pre.numel())))
    if sharing > 1:
        least = gathered(values.detach()).topk(count, sorted=False).values.min()
        place, values = place[values >= least], values[values >= least]
    place = place[values > 0].sort().values
    counts = torch.bincount(place // features, minlength=rows)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(place % features, pre.flatten()[place], start)


def encode(
    x: Float[Tensor, "row channel"],
    shift: Float[Tensor, " channel"] | None,
    w_enc: Float[Tensor, "channel feature"],
    b_enc: Float[Tensor, " feature"],
    select: Selection,
) -> Codes:
    """Return the codes that `select` chooses from the pre-activations `(x - shift) @ w_enc + b_enc`."""
    value, feature, start, order = _Encode.apply(x, shift, w_enc, b_enc, select)
    return Codes(feature, value, start, order)


def decode(codes: Codes, w_dec: Float[Tensor, "feature channel"]) -> Float[Tensor, "row channel"]:
    """Return the sum of the active features' decoder rows, each times its activation."""
    order = codes.order or Order(codes.feature, codes.start)
    return _Decode.apply(codes.value, codes.feature, codes.start, order, w_dec)


def dense(codes: Codes, features: int) -> Float[Tensor, "row feature"]:
    """Return the activations of all features, 0 for those that are not active."""
    acts = codes.value.new_zeros((len(codes.start) - 1, features))
    return acts.index_put((codes.row, codes.feature), codes.value)


def fired(codes: Codes, features: int) -> Int64[Tensor, " feature"]:
    """Return on how many rows each feature is active."""
    return codes.feature.new_zeros(features).index_add_(0, codes.feature, (codes.value > 0).long())


def _stable_order(feature: Int64[Tensor, " code"], features: int) -> Int64[Tensor, " code"]:
    """Return the order of the codes by feature, and of equal ones by place, so that sums are always in one order."""
    if feature.device.type != "cpu" or features > 2**15:
        return feature.argsort(stable=True)
    # NumPy sorts numbers of 16 bits without comparing them, in a tenth of the time.
    return torch.from_numpy(np.argsort(feature.numpy().astype(np.int16), kind="stable"))


def _rows(start: Int64[Tensor, " row_and_one"], codes: int) -> Int64[Tensor, " code"]:
    rows = torch.arange(len(start) - 1, device=start.device)
    return rows.repeat_interleave(start.diff(), output_size=codes)


def _largest(
    values: Float[Tensor, "row value"], k: int
) -> tuple[Float[Tensor, "row k"], Int64[Tensor, "row k"]]:
    """Return the k largest values of each row and their places, searched in two rounds.

    The k groups with the largest maxima hold them. That takes two searches, among `count / size` maxima and among
    `k * size` values: least together if `size` is near the root of `count / k`.
    """
    count = values.shape[1]
    size = 2 ** round(math.log2(count / k) / 2) if k else 1
    if size == 1 or count % size:
        return values.topk(k, sorted=False)
    # A group is every stride-th value, so that maxima are taken of whole stretches at once.
    stride = count // size
    groups = values.unflatten(1, (size, stride)).amax(1).topk(k, sorted=False).indices
    members = torch.arange(0, count, stride, device=values.device)
    places = (groups[:, None, :] + members[:, None]).flatten(1)
    found, among = values.gather(1, places).topk(k, sorted=False)
    return found, places.gather(1, among)


class _Encode(torch.autograd.Function):
    """`encode`, with a gradient through the chosen pre-activations only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, w_enc: Tensor, b_enc: Tensor, select: Selection
    ) -> tuple[Tensor, Tensor, Tensor, Order]:
        shifted = x if shift is None else x - shift
        codes = select(torch.addmm(b_enc, shifted, w_enc))
        value = codes.value.to(x.dtype)  # autocast computes the product in half precision
        ctx.save_for_backward(shifted, w_enc, value, codes.feature, codes.start)
        ctx.mark_non_differentiable(codes.feature, codes.start)
        ctx.order = Order(codes.feature, codes.start)
        return value, codes.feature, codes.start, ctx.order

    @staticmethod
    def backward(ctx: Any, of_value: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        shifted, w_enc, value, feature, start = ctx.saved_tensors
        for_x, for_shift, for_w_enc, for_b_enc, _ = ctx.needs_input_grad
        of_code = torch.where(value > 0, of_value, 0)
        by_feature = ctx.order.by_feature(w_enc.shape[1])
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
    def forward(
        ctx: Any, value: Tensor, feature: Tensor, start: Tensor, order: Order, w_dec: Tensor
    ) -> Tensor:
        ctx.save_for_backward(value, feature, start, w_dec)
        ctx.order = order
        return bag_sums(w_dec, feature, value, start)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, feature, start, w_dec = ctx.saved_tensors
        of_row = gradients[0].contiguous()
        for_value, *_, for_w_dec = ctx.needs_input_grad
        of_w_dec = None
        if for_w_dec:
            by_feature = ctx.order.by_feature(len(w_dec))
            of_w_dec = bag_sums(of_row, by_feature.row, value[by_feature.order], by_feature.start)
        return bag_dots(w_dec, feature, of_row, start) if for_value else None, None, None, None, of_w_dec
