"""Sparse training arithmetic: equal to dense autograd, for every number of active features."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.tolerances import assert_close
from workbench.sae.sparse import Codes, Selection, decode, dense, encode, fired, largest, largest_of_batch

ROWS, CHANNELS, FEATURES = 7, 12, 96  # the largest 1, 2 and 10 are searched in groups of 8, 8 and 4
NAMES = ("x", "shift", "w_enc", "b_enc", "w_dec")


def parameters(dtype: torch.dtype, rows: int = ROWS, bias: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, CHANNELS), (CHANNELS,), (CHANNELS, FEATURES), (FEATURES,), (FEATURES, CHANNELS))
    values = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    values[3] += bias
    return [value.requires_grad_() for value in values]


def sparse_output(
    select: Selection, x: Tensor, shift: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor
) -> Tensor:
    return decode(encode(x, shift, w_enc, b_enc, select), w_dec)


def dense_output(
    chosen: Callable[[Tensor], Tensor], x: Tensor, shift: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor
) -> Tensor:
    """The same with every activation, and autograd's own gradients."""
    pre = (x - shift) @ w_enc + b_enc
    return torch.where(chosen(pre.detach()), pre, 0).relu() @ w_dec


def largest_mask(pre: Tensor, k: int) -> Tensor:
    return torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(k).indices, True)


def largest_mask_of_batch(pre: Tensor, k: int) -> Tensor:
    return largest_mask(pre.reshape(1, -1), k * len(pre)).view(pre.shape)


SELECTIONS = {
    "a row": (largest, largest_mask),
    "a batch": (largest_of_batch, largest_mask_of_batch),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 10, FEATURES])
@pytest.mark.parametrize("name", SELECTIONS)
def test_values_and_gradients_are_those_of_dense_autograd(name: str, k: int, dtype: torch.dtype) -> None:
    sparse, mask = SELECTIONS[name]
    weights = torch.randn(ROWS, CHANNELS, dtype=dtype, generator=torch.Generator().manual_seed(1))
    outputs, gradients = [], []
    for output in (partial(sparse_output, partial(sparse, k=k)), partial(dense_output, partial(mask, k=k))):
        given = parameters(dtype)
        outputs.append(output(*given))
        gradients.append(torch.autograd.grad((outputs[-1] * weights).sum(), given))
    assert_close(outputs[0], outputs[1])
    for parameter, here, there in zip(NAMES, *gradients, strict=True):
        assert_close(here, there, parameter)
        assert there.abs().max() > 0, parameter


@pytest.mark.parametrize("name", SELECTIONS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    select = partial(SELECTIONS[name][0], k=2)
    assert torch.autograd.gradcheck(partial(sparse_output, select), parameters(torch.float64))


def test_only_positive_pre_activations_are_active() -> None:
    """Nearly all pre-activations are negative: rows have fewer than k active features, some have none."""
    given = parameters(torch.float64, bias=-9.0)
    pre = (given[0] - given[1]) @ given[2] + given[3]
    counts = (pre > 0).sum(1)
    assert counts.min() == 0
    assert 0 < counts.max() < 20
    for select in (largest, largest_of_batch):
        codes = select(pre, k=20)
        assert_close(dense(codes, FEATURES), pre.relu())
        assert torch.equal(fired(codes, FEATURES), (pre > 0).sum(0))
    gradients = torch.autograd.grad(sparse_output(partial(largest, k=20), *given).sum(), given)
    assert torch.equal(gradients[3] != 0, (pre > 0).any(0))


@pytest.mark.parametrize("features", [50, 40_000])
def test_the_decoders_gradient_is_summed_by_feature_at_any_width(features: int) -> None:
    """Narrow and wide autoencoders sort their codes in different ways."""
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(5, features, generator=generator)
    weights = torch.randn(5, 2, generator=generator)
    w_dec = torch.randn(features, 2, generator=generator, requires_grad=True)
    codes = largest(pre, 7)
    (gradient,) = torch.autograd.grad((decode(codes, w_dec) * weights).sum(), w_dec)
    assert_close(gradient, dense(codes, features).T @ weights)


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_batch_without_rows_has_gradients_of_zero(name: str) -> None:
    given = parameters(torch.float32, rows=0)
    output = sparse_output(partial(SELECTIONS[name][0], k=2), *given)
    assert output.shape == (0, CHANNELS)
    for parameter, gradient in zip(NAMES, torch.autograd.grad(output.sum(), given), strict=True):
        assert not gradient.any(), parameter


def test_equal_values_fill_exactly_k_places() -> None:
    codes = largest(torch.ones(2, FEATURES), 2)
    assert dense(codes, FEATURES).sum(1).tolist() == [2, 2]
    assert largest_of_batch(torch.ones(2, FEATURES), 2).value.tolist() == [1] * 4


def test_rows_of_a_batch_share_the_codes() -> None:
    pre = torch.tensor([[5.0, 4.0, 3.0, -1.0], [1.0, 2.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]])
    codes = largest_of_batch(pre, 1)
    assert codes.start.tolist() == [0, 3, 3, 3]
    assert codes.feature.tolist() == [0, 1, 2]
    assert codes.row.tolist() == [0, 0, 0]
    assert largest_of_batch(pre, 2).start.tolist() == [0, 3, 5, 5], "only five are positive"


def test_codes_of_a_part_of_the_features() -> None:
    codes = Codes(torch.tensor([3, 0, 2, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 2, 2, 4]))
    part = codes.within(1, 3)
    assert part.start.tolist() == [0, 0, 0, 2]
    assert part.feature.tolist() == [1, 0]
    assert part.value.tolist() == [3.0, 4.0]
    assert torch.equal(dense(part, 2), dense(codes, 4)[:, 1:3])


def test_the_bias_of_the_encoder_takes_no_shift() -> None:
    given = parameters(torch.float64)
    with_zero = encode(
        given[0], torch.zeros(CHANNELS, dtype=torch.float64), given[2], given[3], partial(largest, k=3)
    )
    without = encode(given[0], None, given[2], given[3], partial(largest, k=3))
    assert torch.equal(with_zero.value, without.value)
    without.value.sum().backward()
    assert given[3].grad is not None
    assert given[3].grad.sum() == ROWS * 3


def test_a_batchs_largest_are_those_of_all_processes() -> None:
    pre = torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(0)) - 0.5
    pre[:3] += 1  # the first process has most of them
    whole, told = largest_of_batch(pre, 3), []
    for share in (pre[:3], pre[3:]):
        largest_of_batch(share, 3, 2, lambda values: told.append(values) or torch.cat([values, values]))
    parts = [largest_of_batch(share, 3, 2, lambda _: torch.cat(told)) for share in (pre[:3], pre[3:])]
    assert torch.cat([dense(part, FEATURES) for part in parts]).equal(dense(whole, FEATURES))
    assert len(parts[0].value) > 3 * 3 > len(parts[1].value)
