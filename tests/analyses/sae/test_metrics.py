"""The metrics of a reconstruction on arrays small enough to do by hand, and what they must not depend on."""

import pytest
import torch

from analyses.sae.metrics import Reconstruction

ROWS = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # mean (2, 2), squared distances from it 5 + 5
ACTS = torch.tensor([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])
NAMES = ("explained_variance", "normalised_error", "squared_error", "l0", "dead_fraction", "dense_fraction")


def measure(
    x: torch.Tensor, x_hat: torch.Tensor, acts: torch.Tensor, batch: int | None = None
) -> Reconstruction:
    metrics = Reconstruction(x.shape[1], acts.shape[1])
    for start in range(0, len(x), batch or len(x)):
        part = slice(start, start + (batch or len(x)))
        metrics.add(x[part], x_hat[part], acts[part])
    return metrics


def test_by_hand() -> None:
    metrics = measure(ROWS, torch.tensor([[0.0, 0.0], [3.0, 2.0]]), ACTS)  # squared errors 1 and 4
    assert metrics.explained_variance == pytest.approx(1 - 5 / 10)
    assert metrics.normalised_error == pytest.approx((1 / 1 + 4 / 25) / 2)
    assert metrics.squared_error == pytest.approx(5 / 4)
    assert metrics.l0 == pytest.approx(1.5)
    assert metrics.dead_fraction == pytest.approx(1 / 3)
    assert metrics.dense_fraction == pytest.approx(2 / 3)  # positive on one and on two of two rows


def test_a_feature_is_dense_above_a_tenth_of_the_rows() -> None:
    acts = torch.zeros(20, 3)
    acts[:2, 0], acts[:3, 1] = 1.0, 1.0
    metrics = measure(torch.ones(20, 2), torch.ones(20, 2), acts)
    assert metrics.dense_fraction == pytest.approx(1 / 3)
    assert metrics.dead_fraction == pytest.approx(1 / 3)


def test_the_ends_of_the_scale() -> None:
    perfect, mean = measure(ROWS, ROWS, ACTS), measure(ROWS, ROWS.mean(0).expand(2, 2), ACTS)
    zero = measure(ROWS, torch.zeros(2, 2), ACTS)
    assert (perfect.explained_variance, perfect.normalised_error) == (1, 0)
    assert mean.explained_variance == pytest.approx(0)
    assert zero.explained_variance < 0
    assert zero.normalised_error == 1


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_batches_do_not_matter(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise, acts = (torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    whole, parts = measure(x, x + noise / 3, acts), measure(x, x + noise / 3, acts, batch)
    order = torch.randperm(40, generator=generator)
    shuffled = measure(x[order], (x + noise / 3)[order], acts[order], batch)
    merged = measure(x[:11], (x + noise / 3)[:11], acts[:11], batch)
    merged.merge(measure(x[11:], (x + noise / 3)[11:], acts[11:]))
    for name in NAMES:
        for other in (parts, shuffled, merged):
            assert getattr(other, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    assert whole.explained_variance == pytest.approx(
        1 - (noise / 3).square().sum() / (x - x.mean(0)).square().sum()
    )


def test_shift_and_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    metrics = measure(x, x + noise / 3, x)
    moved = measure(1e4 + 3 * x, 1e4 + 3 * (x + noise / 3), x)
    assert moved.explained_variance == pytest.approx(metrics.explained_variance, rel=1e-9)
    assert moved.squared_error == pytest.approx(9 * metrics.squared_error, rel=1e-9)
    scaled = measure(3 * x, 3 * (x + noise / 3), 3 * x)
    for name in ("normalised_error", "l0", "dead_fraction", "dense_fraction"):
        assert getattr(scaled, name) == pytest.approx(getattr(metrics, name), rel=1e-12)


def test_rows_without_spread_or_size_have_no_ratio() -> None:
    zeros = measure(torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3, 4))
    assert zeros.explained_variance != zeros.explained_variance
    assert zeros.normalised_error != zeros.normalised_error
    assert (zeros.l0, zeros.dead_fraction) == (0, 1)
    one_zero_row = measure(
        torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]]), ACTS
    )
    assert one_zero_row.normalised_error == pytest.approx(1 / 4)
