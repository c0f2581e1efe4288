"""Edits of linear modules' weights, such as a LoRA at a strength."""

from collections.abc import Sequence
from typing import Unpack

from workbench.engine.edits.edit import Edit, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.tensors import HashedTensor, Numbers


def low_rank(
    down: Numbers,
    up: Numbers,
    sites: str | Sequence[str],
    strength: float = 1.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Low-rank change of weights: add `strength * up @ down` to that of the linear module whose output is the site.

    Other runs of the batch keep their weights. A LoRA's factors are down (rank, in) and up (out, rank), as in PEFT's
    `lora_A` and `lora_B`; its scale is part of the strength. The module of an attention's own site (`cross_attn`,
    `self_attn`) is its output projection (`to_out.0`); those of its `q`, `k` and `v` are `to_q`, `to_k` and `to_v`.
    """
    factors = {"down": HashedTensor.of(down), "up": HashedTensor.of(up)}
    return make_edit("low_rank", sites, [], window, "weights", strength=strength, **factors)
