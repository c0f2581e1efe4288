"""Sums and dot products over bags: the sparse products of an autoencoder, without a dense matrix of its activations.

A bag is the part `start[i]:start[i + 1]` of a flat list of (index, value): the active features of a row, or the rows on
which a feature is active. On CUDA both are Triton kernels, elsewhere plain torch. Results do not depend on chance: each
bag is summed in the order of the list.
"""

import warnings

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Only `sampled_addmm` reads the sparse matrix, and tests compare it with dense products.
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)


def bag_sums(
    table: Float[Tensor, "index channel"],
    index: Int64[Tensor, " code"],
    value: Float[Tensor, " code"],
    start: Int64[Tensor, " bag_and_one"],
) -> Float[Tensor, "bag channel"]:
    """Return for each bag the sum of `value * table[index]`."""
    if table.is_cuda:
        from workbench.sae.bags_cuda import bag_sums as on_cuda

        return on_cuda(table, index, value, start)
    sums, *_ = torch.embedding_bag(
        table.contiguous(), index, start, False, 0, False, value, include_last_offset=True
    )
    return sums


def bag_dots(
    table: Float[Tensor, "index channel"],
    index: Int64[Tensor, " code"],
    rows: Float[Tensor, "bag channel"],
    start: Int64[Tensor, " bag_and_one"],
) -> Float[Tensor, " code"]:
    """Return for each entry of each bag the dot product of `table[index]` with the bag's row."""
    if table.is_cuda:
        from workbench.sae.bags_cuda import bag_dots as on_cuda

        return on_cuda(table, index, rows, start)
    pattern = torch.sparse_csr_tensor(
        start, index, table.new_zeros(len(index)), (len(rows), len(table)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, rows, table.T, beta=0).values()
