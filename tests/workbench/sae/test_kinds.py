"""What holds for every kind of autoencoder: scale of the inputs, scale of the features, axes, the first batch."""

import pytest
import torch

from tests.tolerances import assert_close
from tests.workbench.sae.random_sae import random_kind
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.base import TrainingBatch

ROWS = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
WITHOUT_TOPK = [name for name, entry in ARCHITECTURES.items() if "k" not in entry.config.model_fields]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unscaled_it_does_to_inputs_what_it_did_to_scaled_ones(architecture: str) -> None:
    sae = random_kind(architecture)
    with torch.no_grad():
        acts, x_hat = sae.encode(5 * ROWS), sae(5 * ROWS)
        assert (acts > 0).any()
        sae.unscale(5.0)
        assert_close(sae.encode(ROWS), acts / 5)
        assert_close(sae(ROWS), x_hat / 5)


@pytest.mark.parametrize("architecture", [name for name in WITHOUT_TOPK if name != "jumprelu"])
def test_scaled_features_reconstruct_the_same(architecture: str) -> None:
    sae = random_kind(architecture)
    factor = torch.linspace(0.5, 3, 20)
    with torch.no_grad():
        acts, x_hat, decoder = sae.encode(ROWS), sae(ROWS), sae.W_dec.clone()
        sae.scale_features(factor)
        assert_close(sae.encode(ROWS), acts * factor)
        assert_close(sae(ROWS), x_hat)
        assert_close(sae.W_dec, decoder / factor[:, None])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shift_of_the_input_moves_into_the_biases(architecture: str) -> None:
    sae = random_kind(architecture)
    shift = torch.linspace(-1, 2, 6)
    with torch.no_grad():
        acts = sae.encode(ROWS + shift)
        sae.shift_input(shift)
        assert_close(sae.encode(ROWS), acts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_leading_axes_do_not_matter(architecture: str) -> None:
    sae = random_kind(architecture)
    with torch.no_grad():
        assert_close(sae.encode(ROWS.reshape(3, 4, 6)), sae.encode(ROWS).reshape(3, 4, 20))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_every_trained_parameter_gets_a_gradient(architecture: str, progress: float) -> None:
    sae = random_kind(architecture)
    objective = ARCHITECTURES[architecture].objective.model_validate({})
    done = objective.step(sae, TrainingBatch(ROWS, ROWS, torch.arange(20) > 12, progress))
    sum(done.terms.values(), torch.zeros(())).backward()
    for name, parameter in sae.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert done.x_hat.shape == ROWS.shape
    assert done.fired.shape == (20,)
    assert done.fired.sum() > 0


@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_a_free_decoder_has_unit_rows_at_the_end(architecture: str) -> None:
    sae = random_kind(architecture)
    objective = ARCHITECTURES[architecture].objective.model_validate({})
    with torch.no_grad():
        sae.W_dec[3] = 0
        before = sae.W_dec.clone()
        objective.constrain(sae)
        assert torch.equal(sae.W_dec, before)
        x_hat = sae(ROWS)
        kept = objective.trained(sae)
        assert_close(kept(ROWS), x_hat)
        norms = kept.W_dec.norm(dim=1)
    assert_close(norms, torch.ones(20).index_fill(0, torch.tensor(3), 0))
