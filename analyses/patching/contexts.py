"""The context of a pair: other prompts that null arms and ablations read from."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cache.errors import UserError
from cache.wording import quoted
from workbench.prompts.prompt_sets import Encode, Pair, PromptSet
from workbench.prompts.reading import SAME
from workbench.provenance import content_hash

N_REFERENCES = 4
TRIES = 50  # prompts drawn before giving up on finding one that is not the pair's own


@dataclass(frozen=True)
class PairContext:
    """A pair with the prompts that its arms may read from, by the name of the source.

    `unrelated` has the corrupt value in another context; `control` differs from the corrupt prompt in another concept
    only (None if the prompts mention no other concept); `references` are any prompts (for mean ablation). `seeds` are
    those of the initial noise, which all runs of the pair share, and no other pair of the concept. `more_texts` are
    scored, too, beside the pair's own text.
    """

    pair: Pair
    unrelated: str | None
    control: str | None
    references: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    more_texts: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts for which the pair's runs are scored."""
        return (self.pair.text, *self.more_texts)

    def prompts(self, source: str) -> tuple[str, ...]:
        """Return the prompts of a source's runs; raise UserError if this pair has none."""
        prompts = {
            "clean": (self.pair.clean.text,),
            "corrupt": (self.pair.corrupt.text,),
            "unrelated": (self.unrelated,),
            "control": (self.control,),
            "references": self.references,
        }[source]
        if not prompts or None in prompts:
            raise UserError(
                f"These pairs of {self.pair.concept} have no {source} prompt. Leave out that arm, or give more pairs "
                "or a prompt set with more concepts."
            )
        return tuple(prompt for prompt in prompts if prompt is not None)


def prompt_set_contexts(
    prompts: PromptSet, concept: str, n: int, seed: int, encode: Encode = str
) -> list[PairContext]:
    """Draw `n` pairs of a concept (or all, if there are fewer) from a prompt set, with their contexts.

    Of a pair and its reverse there is one: they have the same two runs, so the second would add nothing.
    `encode` returns the key of what the model reads from a prompt. Where possible, the drawn prompts differ, to the
    model, from the pair's own.
    """
    draw = random.Random(f"context-{concept}-{seed}")
    contexts = []
    for pair in prompts.pairs(concept, min(n, prompts.n_pairs(concept) // 2), seed):
        own = _own(pair, encode)
        unrelated, control = _surroundings(prompts, pair, own, draw, encode)
        references = _references(prompts, own, draw, encode)
        contexts.append(PairContext(pair, unrelated, control, references))
    return contexts


def n_listed(pairs: list[Pair], encode: Encode = str) -> int:
    """Return the number of listed pairs that repeat and reverse no other."""
    return len({frozenset(_own(pair, encode)) for pair in pairs})


def _surroundings(
    prompts: PromptSet, pair: Pair, own: set[str], draw: random.Random, encode: Encode
) -> tuple[str | None, str | None]:
    """Return the unrelated and the control prompt of a pair; None if it mentions no other concept."""
    labels = {name: label for name, label in pair.corrupt.labels.items() if label and name != pair.concept}
    if not labels:
        return None, None
    for _ in range(TRIES):
        others = {
            name: draw.choice([value for value in prompts.concepts[name] if value != label])
            for name, label in labels.items()
        }
        control = dict([draw.choice(list(others.items()))])
        drawn = [prompts.changed(pair.corrupt, values).text for values in (others, control)]
        if own.isdisjoint(map(encode, drawn)):
            break
    return drawn[0], drawn[1]


def _references(prompts: PromptSet, own: set[str], draw: random.Random, encode: Encode) -> tuple[str, ...]:
    """Draw prompts, not all of which are the pair's own to the model."""
    for _ in range(TRIES):
        drawn = prompts.fill(min(N_REFERENCES, prompts.n_prompts), draw.randrange(2**31))
        if not own.issuperset(encode(prompt.text) for prompt in drawn):
            break
    return tuple(prompt.text for prompt in drawn)


def listed_contexts(pairs: list[Pair], n: int, encode: Encode = str) -> list[PairContext]:
    """Return listed pairs up to the `n`-th that repeats and reverses no other, with the other pairs as their contexts.

    `encode` returns the key of what the model reads from a prompt. Prompts that are the pair's own to the model are not
    used as its context.
    """
    contexts = []
    different: set[frozenset[str]] = set()
    for place, pair in enumerate(pairs):
        if len(different) == n:
            break
        different.add(frozenset(_own(pair, encode)))
        own = _own(pair, encode)
        rest = pairs[place + 1 :] + pairs[:place]
        alike = [other.corrupt.text for other in rest if other.corrupt_value == pair.corrupt_value]
        unrelated = next((text for text in alike if encode(text) not in own), alike[0] if alike else None)
        sides = [prompt.text for other in rest for prompt in (other.clean, other.corrupt)]
        references = [text for text in sides if encode(text) not in own]
        contexts.append(PairContext(pair, unrelated, None, tuple(references[:N_REFERENCES])))
    return contexts


def drop_indistinguishable(
    contexts: dict[str, list[PairContext]], sources: Iterable[str], encode: Encode
) -> tuple[dict[str, list[PairContext]], list[dict[str, str]]]:
    """Split pairs into those that the model can tell apart, and those that are dropped, with the reason.

    Text encoders read a limited number of tokens and may not know a word; two prompts with the same tokens are the same
    run. A pair is dropped if its two prompts are the same to the model, if it repeats another pair or its reverse, or
    if one of the `sources` that arms read from has only the pair's own two prompts.

    Raises:
        UserError: if a concept has no pairs left.
    """
    kept: dict[str, list[PairContext]] = {}
    dropped = []
    for concept, pairs in contexts.items():
        kept[concept] = []
        seen: dict[frozenset[str], Pair] = {}
        for context in pairs:
            clean, corrupt = context.pair.clean.text, context.pair.corrupt.text
            reason = _fault(context, sources, encode)
            own = frozenset(_own(context.pair, encode))
            if not reason and (first := seen.get(own)) is not None:
                is_reverse = encode(first.clean.text) != encode(clean)
                reason = (
                    f"to the model it is {'the reverse of' if is_reverse else 'the same as'} the pair "
                    f"{quoted(first.clean.text)} / {quoted(first.corrupt.text)}"
                )
            if reason:
                dropped.append({"concept": concept, "clean": clean, "corrupt": corrupt, "reason": reason})
            else:
                seen[own] = context.pair
                kept[concept].append(context)
        if pairs and not kept[concept]:
            raise UserError(
                f"No pair of {concept} is left: {dropped[-1]['reason']}, as in {quoted(dropped[-1]['clean'])} / "
                f"{quoted(dropped[-1]['corrupt'])}. Give pairs that differ in words that the model reads."
            )
    return kept, dropped


def with_noise(
    contexts: dict[str, list[PairContext]], seeds: tuple[int, int], n: int
) -> dict[str, list[PairContext]]:
    """Give each pair `n` seeds of its own, which follow from its two prompts and `seeds`, those of study and map.

    So a pair has the same noise in every map with these seeds, whatever else is in it. Pairs that shared their noise
    would not be independent, and intervals over pairs would be too narrow.
    """
    return {
        concept: [
            replace(context, seeds=tuple(_noise_seed(context.pair, *seeds, number) for number in range(n)))
            for context in pairs
        ]
        for concept, pairs in contexts.items()
    }


def _noise_seed(pair: Pair, *numbers: int) -> int:
    """Return a seed below 2³² that depends on the pair, in either order, and on the numbers."""
    sides = sorted((pair.clean.text, pair.corrupt.text))
    return int(content_hash([*sides, *numbers])[:8], 16)


def _fault(context: PairContext, sources: Iterable[str], encode: Encode) -> str:
    """Return why the model cannot use a pair, or ""."""
    own = _own(context.pair, encode)
    if len(own) == 1:
        return SAME
    for source in sorted(sources):
        prompts = context.prompts(source)
        if own.issuperset(map(encode, prompts)):
            return f"its {source} prompt {quoted(prompts[0])} has the same tokens as one of the pair's own prompts"
    return ""


def _own(pair: Pair, encode: Encode) -> set[str]:
    """Return the keys of what the model reads from a pair's two prompts."""
    return {encode(pair.clean.text), encode(pair.corrupt.text)}
