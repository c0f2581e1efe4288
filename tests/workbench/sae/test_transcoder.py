"""Transcoders by hand: from the channels of one site to those of another."""

import pytest
import torch

from workbench.sae.base import Objective, TrainingBatch
from workbench.sae.transcoder import BatchTopKTranscoderObjective, TopKTranscoderObjective


@pytest.mark.parametrize(
    "objective",
    [TopKTranscoderObjective(k=1, d_out=3), BatchTopKTranscoderObjective(k=1, d_out=3)],
    ids=lambda objective: objective.architecture,
)
def test_by_hand(objective: Objective) -> None:
    sae = objective.new_sae(2, 2, {"hook_name": "tf1.cross_attn", "hook_name_out": "tf2.mlp"})
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
        sae.b_dec.copy_(torch.tensor([1.0, 1.0, 1.0]))
    assert (sae.config.d_in, sae.config.d_out, sae.config.settings["d_out"]) == (2, 3, 3)
    x, target = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[1.0, 1.0, 5.0], [4.0, 1.0, 0.0]])
    done = objective.step(sae, TrainingBatch(x, target, torch.zeros(2).bool(), 0.0))
    # The decoder bias is not subtracted: pre-activations (1, 4) and (3, 2).
    assert done.x_hat.tolist() == [[1.0, 1.0, 5.0], [4.0, 1.0, 1.0]]
    assert done.terms["error"].item() == pytest.approx(1 / 6)


def test_without_another_width_it_has_its_inputs() -> None:
    sae = TopKTranscoderObjective().new_sae(8, 16, {})
    assert sae.W_dec.shape == (16, 8)
    assert sae.config.FIXED["apply_b_dec_to_input"] is False
