"""Sparse feature activations: which features of a row are active, and how strongly."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Codes(NamedTuple):
    """Active features of each row; a value of 0 is an unused place."""

    feature: Int64[Tensor, "row k"]
    value: Float[Tensor, "row k"]


def largest(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the k largest pre-activations of each row, negative ones as 0."""
    found = pre.topk(k, dim=-1, sorted=False)
    return Codes(found.indices, torch.relu(found.values))


def decode(codes: Codes, w_dec: Float[Tensor, "feature channel"]) -> Float[Tensor, "row channel"]:
    """Return the sum of the active features' decoder rows, each times its activation."""
    return (dense(codes, len(w_dec))) @ w_dec


def dense(codes: Codes, features: int) -> Float[Tensor, "row feature"]:
    """Return the activations of all features, 0 for those that are not active."""
    rows = codes.value.new_zeros((len(codes.value), features))
    return rows.scatter(-1, codes.feature, codes.value)


def fired(codes: Codes, features: int) -> Int64[Tensor, " feature"]:
    """Return on how many rows each feature is active."""
    return torch.bincount(codes.feature[codes.value > 0], minlength=features)
