"""The planted circuits: which blocks, heads and steps mediate the concept, and what a perfect localisation finds."""

from dataclasses import dataclass
from typing import Literal

from workbench.engine.settings import GenerationSettings
from workbench.prompts.prompt_sets import Pair, load_prompt_set

CONCEPT = "drums"
PRESENT = "with drums"
BLOCKS = 5
HEADS = 4
SHIFT = 3.0
SETTINGS = GenerationSettings(duration=2.0, num_steps=8, guidance_scale=1.0, options={"shift": SHIFT})
"""How the organisms generate. No guidance: it would exaggerate what a block writes, and neither "both are needed" nor
"either suffices" survives an exaggeration; without it a score of 1 is the planted pattern at its planted strength.
"""

Cells = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Circuit:
    """A planted circuit and its truth.

    The blocks `readers` read whether the prompt says drums; the drums pattern is in the music where `rule` of what
    they read is true. `decoys` read the same word for a pattern of their own, which is not the concept. `head` is the
    only head of the reader that writes anything, `steps` (first, last) the only steps at which the reader reads the
    word; None where this is not planted. No other block can read the word at all.

    Sufficient: patched from the clean (drums) into the corrupt (no drums) run, it brings the drums. Necessary: patched
    from the corrupt into the clean run, it takes them away. All readers patched together always do both.
    """

    name: str
    description: str
    readers: tuple[int, ...]
    rule: Literal["any", "all"] = "any"
    decoys: tuple[int, ...] = ()
    head: int | None = None
    steps: tuple[int, int] | None = None

    @property
    def sufficient(self) -> frozenset[int]:
        """Blocks that are sufficient alone."""
        return frozenset(self.readers if self.rule == "any" or len(self.readers) == 1 else ())

    @property
    def necessary(self) -> frozenset[int]:
        """Blocks that are necessary alone."""
        return frozenset(self.readers if self.rule == "all" or len(self.readers) == 1 else ())

    @property
    def mediators(self) -> frozenset[int]:
        """Blocks that mediate the concept, whether sufficient, necessary or neither alone; decoys do not."""
        return frozenset(self.readers)

    @property
    def head_cells(self) -> Cells | None:
        """(block, head) cells that mediate the concept, each sufficient and necessary alone; None: not planted."""
        return None if self.head is None else frozenset((block, self.head) for block in self.readers)

    @property
    def step_cells(self) -> Cells | None:
        """(block, step) cells at which the word is read; None: not planted.

        They are sufficient and necessary together, and all other steps together are neither. For one step of them
        alone nothing is planted: it moves the music part of the way, and the steps that follow pull it back.
        """
        if self.steps is None:
            return None
        return frozenset(
            (block, step) for block in self.readers for step in range(self.steps[0], self.steps[1] + 1)
        )


CIRCUITS: dict[str, Circuit] = {
    circuit.name: circuit
    for circuit in (
        Circuit("one-block", "Block 2 alone reads the concept.", readers=(2,)),
        Circuit("redundant", "Blocks 1 and 3 read the concept; either suffices (OR).", readers=(1, 3)),
        Circuit(
            "complementary",
            "Blocks 1 and 3 read the concept; both are needed (AND).",
            readers=(1, 3),
            rule="all",
        ),
        Circuit("step-window", "Block 2 reads the concept at steps 2 to 5 of 8 only.", (2,), steps=(2, 5)),
        Circuit("one-head", "Head 2 of block 2 alone mediates the concept.", readers=(2,), head=2),
        Circuit(
            "decoy",
            "Block 3 mediates the concept; block 1 reads the same word and changes something else.",
            readers=(3,),
            decoys=(1,),
        ),
    )
}


def presence_pairs(n: int, seed: int) -> list[Pair]:
    """`n` pairs of the organisms' prompt set whose clean prompt has drums and whose corrupt one has none.

    The direction matters: read as absence, an OR would be an AND.
    """
    pairs = load_prompt_set("organism").pairs(CONCEPT, 2 * n, seed)
    return [pair for pair in pairs if pair.clean_value == PRESENT]
