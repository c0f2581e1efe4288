"""Around a pair: the prompts of the runs that null arms and ablations read from."""

import random
from dataclasses import dataclass

from cache.errors import UserError
from workbench.models.protocol import AudioDiffusionModel
from workbench.prompts import Pair, PromptSet
from workbench.reading import SAME, prompt_key
from workbench.study import StudySpec

N_REFERENCES = 4


@dataclass(frozen=True)
class PairContext:
    """A pair with the prompts that its arms may read from, by the name of the source.

    `unrelated` has the corrupt value in another context, `control` differs from the corrupt prompt in another concept
    only (None where the pairs say nothing of other concepts), `references` are any prompts (for mean ablation).
    """

    pair: Pair
    unrelated: str | None
    control: str | None
    references: tuple[str, ...]

    def prompts(self, source: str) -> tuple[str, ...]:
        """Prompts of the runs of a source; raises UserError where this pair has none."""
        prompts = {
            "clean": (self.pair.clean.text,),
            "corrupt": (self.pair.corrupt.text,),
            "unrelated": (self.unrelated,),
            "control": (self.control,),
            "references": self.references,
        }[source]
        if not prompts or None in prompts:
            raise UserError(
                f"These pairs of {self.pair.concept} offer no {source} prompt: leave that arm out, or give more pairs "
                "or a prompt set with more concepts."
            )
        return tuple(prompt for prompt in prompts if prompt is not None)


def prompt_set_contexts(prompts: PromptSet, concept: str, n: int, seed: int) -> list[PairContext]:
    """`n` pairs of a concept of a prompt set, or all, with what surrounds them, drawn with `seed`."""
    draw = random.Random(f"context-{concept}-{seed}")
    contexts = []
    for pair in prompts.pairs(concept, min(n, prompts.n_pairs(concept)), seed):
        others = {
            name: draw.choice([value for value in prompts.concepts[name] if value != label])
            for name, label in pair.corrupt.labels.items()
            if label and name != concept
        }
        control = dict([draw.choice(list(others.items()))]) if others else None
        references = prompts.fill(min(N_REFERENCES, prompts.n_prompts), draw.randrange(2**31))
        contexts.append(
            PairContext(
                pair,
                prompts.changed(pair.corrupt, others).text if others else None,
                prompts.changed(pair.corrupt, control).text if control else None,
                tuple(prompt.text for prompt in references),
            )
        )
    return contexts


def listed_contexts(pairs: list[Pair], n: int) -> list[PairContext]:
    """The first `n` of listed pairs (all, where there are fewer), surrounded by the others."""
    contexts = []
    for place, pair in enumerate(pairs[:n]):
        rest = pairs[place + 1 :] + pairs[:place]
        alike = [other.corrupt.text for other in rest if other.corrupt_value == pair.corrupt_value]
        sides = [prompt.text for other in rest for prompt in (other.clean, other.corrupt)]
        contexts.append(PairContext(pair, alike[0] if alike else None, None, tuple(sides[:N_REFERENCES])))
    return contexts


def told_apart(
    model: AudioDiffusionModel, study: StudySpec, contexts: dict[str, list[PairContext]]
) -> tuple[dict[str, list[PairContext]], list[dict[str, str]]]:
    """The pairs whose two prompts the model can tell apart, and those that are dropped, with the reason.

    Its text encoders read a limited number of tokens, and may not know a word: two prompts that are the same tokens to
    them are the same run. Raises UserError for a concept of which no pair is left.
    """
    kept: dict[str, list[PairContext]] = {}
    dropped = []
    for concept, pairs in contexts.items():
        kept[concept] = []
        for context in pairs:
            clean, corrupt = context.pair.clean.text, context.pair.corrupt.text
            keys = {prompt_key(model, text, study.lyrics, study.settings) for text in (clean, corrupt)}
            if len(keys) == 1:
                dropped.append({"concept": concept, "clean": clean, "corrupt": corrupt, "reason": SAME})
            else:
                kept[concept].append(context)
        if pairs and not kept[concept]:
            raise UserError(
                f"No pair of {concept} is left: {SAME}, as in '{dropped[-1]['clean']}' / "
                f"'{dropped[-1]['corrupt']}'. Give pairs that differ in words that the model reads."
            )
    return kept, dropped
