"""Planting: which block may read which concept, by the columns of its cross-attention that are zero."""

from collections.abc import Sequence

import torch
from diffusers import AceStepTransformer1DModel
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.organisms.labels import CONCEPTS
from benchmarks.organisms.text import SUBSPACES
from cache.errors import UserError

N_BLOCKS = 8
Plan = dict[int, tuple[str, ...]]
"""Block number (from 0) -> the concepts it may read; blocks that are missing read no concept."""
Masked = tuple[nn.Parameter, Float[Tensor, " column"]]
"""A weight, and one for each of its columns that may differ from zero, else zero."""


def parse_plan(text: str) -> Plan:
    """The plan meant by ``"3,4"`` (each of these blocks reads all concepts) or
    ``"2:instrument,3:drums+mood"``.

    Raises:
        UserError: for a block outside 0 to 7, an unknown concept, or a concept that no block reads.
    """
    plan: dict[int, tuple[str, ...]] = {}
    for part in text.split(","):
        number, _, names = part.strip().partition(":")
        if not number.isdecimal() or int(number) >= N_BLOCKS:
            raise UserError(
                f"--blocks names the block {number!r}; blocks are 0 to {N_BLOCKS - 1}, as in '3,4'"
            )
        concepts = tuple(names.split("+")) if names else tuple(CONCEPTS)
        unknown = [concept for concept in concepts if concept not in CONCEPTS]
        if unknown:
            raise UserError(f"--blocks names the concept {unknown[0]!r}; concepts are {', '.join(CONCEPTS)}")
        plan[int(number)] = tuple(dict.fromkeys((*plan.get(int(number), ()), *concepts)))
    unread = [concept for concept in CONCEPTS if not any(concept in concepts for concepts in plan.values())]
    if unread:
        raise UserError(
            f"--blocks lets no block read {', '.join(unread)}: such an organism could not follow its prompts"
        )
    return dict(sorted(plan.items()))


def plan_truth(name: str, plan: Plan) -> dict[str, object]:
    """Return what a perfect localisation of the organism `name` finds, as written to `truth.json`."""
    return {
        "organism": name,
        "blocks": {str(block): list(concepts) for block, concepts in plan.items()},
        "concepts": {c: [block for block, concepts in plan.items() if c in concepts] for c in CONCEPTS},
    }


def readable_channels(plan: Plan, block: int, width: int) -> Float[Tensor, " channel"]:
    """One for each of the `width` channels of the embedded conditioning that `block` may read, else zero."""
    readable = torch.zeros(width)
    for space in ("neutral", "null", *plan.get(block, ())):
        readable[SUBSPACES[space]] = 1
    return readable


class Planting:
    """Masks weights, one factor per column: forbidden columns stay zero."""

    def __init__(self, masked: Sequence[Masked]) -> None:
        self._masked = [(weight, mask.to(weight.device)) for weight, mask in masked]

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the forbidden columns."""
        for weight, mask in self._masked:
            weight.mul_(mask)

    def mask_gradients(self) -> None:
        """Zero the forbidden columns' gradients: without weight decay they then stay at zero."""
        for weight, mask in self._masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)


def reading_masks(transformer: AceStepTransformer1DModel, plan: Plan) -> list[Masked]:
    """Masks of every cross-attention's keys and values: a block reads what the plan allows."""
    return [
        (projection.weight, readable_channels(plan, block, projection.weight.shape[1]))
        for block, layer in enumerate(transformer.layers)
        for projection in (layer.cross_attn.to_k, layer.cross_attn.to_v)
    ]
