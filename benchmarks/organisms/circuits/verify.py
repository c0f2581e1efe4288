"""Check a trained organism against its circuit: run every patch whose effect the circuit determines."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.organisms.circuits.planted import BLOCKS, HEADS, SETTINGS, Circuit, presence_pairs
from benchmarks.organisms.circuits.readout import concept_readout, decoy_readout
from workbench.engine.edits import Edit, Run, patch
from workbench.engine.runs import Clip
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair

PAIRS = 12
TOLERANCE = 0.1
OTHER = "other"
"""In an arm's patches: the other run of its pair."""


@dataclass(frozen=True)
class Arm:
    """Patches applied together, and whether they are planted to be sufficient and necessary.

    `own` is for a decoy: what counts is then the decoy's own pattern, not the concept's.
    """

    name: str
    patches: tuple[Edit, ...]
    sufficient: bool
    necessary: bool
    own: bool = False


@dataclass(frozen=True)
class Check:
    """What was planted and what was measured; both as fractions of the difference between clean and corrupt."""

    arm: str
    planted_sufficiency: float
    sufficiency: float
    planted_necessity: float
    necessity: float

    @property
    def holds(self) -> bool:
        """Whether both lie within `TOLERANCE` of what was planted."""
        misses = (self.sufficiency - self.planted_sufficiency, self.necessity - self.planted_necessity)
        return all(abs(miss) <= TOLERANCE for miss in misses)


@dataclass(frozen=True)
class Report:
    """Mean scores of the clean and the corrupt runs, and the check of every arm."""

    clean: float
    corrupt: float
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether the runs score 1 and 0, and every arm what was planted, within `TOLERANCE`."""
        runs_hold = abs(self.clean - 1) <= TOLERANCE and abs(self.corrupt) <= TOLERANCE
        return runs_hold and all(check.holds for check in self.checks)


def arms(circuit: Circuit) -> list[Arm]:
    """Every block alone; all readers together; then, where they are planted, steps, heads and decoys."""
    singles = [
        Arm(f"tf{block}", (_reading(block),), block in circuit.sufficient, block in circuit.necessary)
        for block in range(BLOCKS)
    ]
    together = "+".join(f"tf{block}" for block in circuit.readers)
    joint = [Arm(together, (_reading(*circuit.readers),), True, True)] if len(circuit.readers) > 1 else []
    own = [Arm(f"tf{b}, own pattern", (_reading(b),), True, True, own=True) for b in circuit.decoys]
    return singles + joint + _window_arms(circuit) + _head_arms(circuit) + own


def _head_arms(circuit: Circuit) -> list[Arm]:
    if circuit.head_cells is None:
        return []
    cells = [(block, head) for block in circuit.readers for head in range(HEADS)]
    planted = {cell: cell in circuit.head_cells for cell in cells}
    return [Arm(f"tf{b} head {h}", (_head(b, h),), planted[b, h], planted[b, h]) for b, h in cells]


def _window_arms(circuit: Circuit) -> list[Arm]:
    if circuit.steps is None:
        return []
    first, last = circuit.steps
    inside = (_reading(*circuit.readers, steps=(first, last)),)
    around = [(0, first - 1), (last + 1, SETTINGS.num_steps - 1)]
    outside = tuple(_reading(*circuit.readers, steps=steps) for steps in around if steps[0] <= steps[1])
    return [
        Arm(f"steps {first} to {last}", inside, True, True),
        Arm("all other steps", outside, False, False),
    ]


def _reading(*blocks: int, steps: tuple[int, int] | None = None) -> Edit:
    """Patch what these blocks read of the conditioning from the other run."""
    return patch([f"tf{block}.cross_attn" for block in blocks], OTHER, steps=steps)


def _head(block: int, head: int) -> Edit:
    """Patch the output of one head from the other run."""
    return patch(f"tf{block}.cross_attn.heads", OTHER, target="output", heads=(head,))


def verify(model: AudioDiffusionModel, circuit: Circuit, n_pairs: int = PAIRS) -> Report:
    """Run every arm in both directions on `n_pairs` pairs, each with a seed of its own."""
    planned = arms(circuit)
    pairs = presence_pairs(n_pairs, seed=0)
    scores = torch.stack([_scores(model, planned, pair, seed) for seed, pair in enumerate(pairs)]).mean(dim=0)
    return Report(
        clean=float(scores[0, 0]),
        corrupt=float(scores[0, 1]),
        checks=tuple(_check(arm, scores[int(arm.own)], i, len(planned)) for i, arm in enumerate(planned)),
    )


def _scores(
    model: AudioDiffusionModel, planned: list[Arm], pair: Pair, seed: int
) -> Float[Tensor, "pattern row"]:
    """Scores of one batch with shared noise: clean, corrupt, each arm in the corrupt run, each in the clean run."""
    clean, corrupt = Clip(pair.clean.text, seed), Clip(pair.corrupt.text, seed)
    arms = [
        Run(base, arm.patches).bound({OTHER: [Run(other)]})
        for base, other in ((corrupt, clean), (clean, corrupt))
        for arm in planned
    ]
    latents = model.generate_batch([clean, corrupt, *arms], SETTINGS).latents
    return torch.stack([readout.score(latents) for readout in (concept_readout(), decoy_readout())])


def _check(arm: Arm, scores: Float[Tensor, " row"], place: int, n_arms: int) -> Check:
    clean, corrupt = float(scores[0]), float(scores[1])
    brought, left = float(scores[2 + place]), float(scores[2 + n_arms + place])
    return Check(
        arm=arm.name,
        planted_sufficiency=float(arm.sufficient),
        sufficiency=(brought - corrupt) / (clean - corrupt),
        planted_necessity=float(arm.necessary),
        necessity=(clean - left) / (clean - corrupt),
    )
