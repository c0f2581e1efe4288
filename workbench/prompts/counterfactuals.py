"""Make counterfactual pairs from captions by swapping an attribute's words; unsuitable pairs are dropped.

Nothing is dropped silently: every caption that mentions the attribute is a candidate with a reason.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, nan

import pandas as pd

from cache.errors import UserError
from workbench.prompts.attributes import AttributeSet
from workbench.prompts.defaults import Alignment
from workbench.prompts.prompt_sets import Pair, Prompt
from workbench.prompts.wording import is_negated, lowered, word_pattern
from workbench.scorers import Scorer

Tokenizer = Callable[[str], Sized]
"""Returns the tokens of a text."""
TextSeparation = Callable[[str, str, str], tuple[float, float]]
"""Returns the similarities (such as cosines) of a pair's clean and corrupt texts to the scorer's text."""


class Reason(StrEnum):
    """Why a candidate was kept or dropped."""

    KEPT = "kept"
    OPPOSING = "the caption also has a word of the counterfactual attribute"
    NEGATED = "the caption negates the attribute"
    REPEATED = "the caption is a duplicate"
    LEFT_OVER = "the swapped caption still has a word of the attribute"
    WORDS = "the two texts have different numbers of words"
    TOKENS = "the two texts have different numbers of tokens"
    LIMIT = "the attribute already has enough pairs"
    NO_SIMILARITY = "the similarity is NaN"
    NO_SEPARATION = "the scorer's text does not distinguish the two texts"


@dataclass(frozen=True)
class Candidate:
    """A pair, why it was kept or dropped, and its texts' similarities to the scorer's text (NaN: not computed)."""

    pair: Pair
    reason: Reason
    clean_similarity: float = nan
    corrupt_similarity: float = nan


def build_candidates(
    captions: Iterable[str],
    attributes: AttributeSet,
    names: Sequence[str] = (),
    *,
    alignment: Alignment = "words",
    tokenizer: Tokenizer | None = None,
    limit: int | None = None,
) -> list[Candidate]:
    """Make a candidate for each caption and each of the attributes `names` (default: all) that it mentions.

    A caption qualifies if it has a word of the attribute, not negated, and none of the counterfactual attribute.

    Args:
        captions: the captions.
        attributes: the attribute set.
        names: attributes to use.
        alignment: "words" keeps pairs whose texts have the same number of words, "tokens" those that also have the same
            number of tokens, "any" all.
        tokenizer: counts tokens.
        limit: maximum pairs per attribute; the first ones are kept.

    Raises:
        UserError: for an unknown attribute, or "tokens" without a tokenizer.
    """
    if alignment == "tokens" and tokenizer is None:
        raise UserError("Alignment by tokens needs a tokenizer. Give one, or align by words.")
    normal = [" ".join(caption.split()) for caption in captions]
    counter = tokenizer if alignment == "tokens" else None
    candidates = []
    for name in names or attributes.names:
        kept: set[str] = set()
        for caption in normal:
            if (pair := make_pair(caption, name, attributes)) is None:
                continue
            reason = _fault(pair, attributes, alignment, counter)
            if reason is None and caption in kept:
                reason = Reason.REPEATED
            if reason is None and limit is not None and len(kept) >= limit:
                reason = Reason.LIMIT
            if reason is None:
                kept.add(caption)
            candidates.append(Candidate(pair, reason or Reason.KEPT))
    return candidates


def make_pair(caption: str, name: str, attributes: AttributeSet) -> Pair | None:
    """Make the pair of a caption and its counterfactual, or None if it has no word of the attribute `name`."""
    attribute = attributes.get(name)
    if not word_pattern(attribute.swaps).search(lowered(caption)):
        return None
    corrupt = Prompt(attribute.swapped(caption), {name: attribute.counterfactual})
    return Pair(name, Prompt(caption, {name: name}), corrupt, attribute.text)


def kept_pairs(candidates: Iterable[Candidate]) -> list[Pair]:
    """Return the pairs that were kept."""
    return [candidate.pair for candidate in candidates if candidate.reason is Reason.KEPT]


def filter_pairs(
    pairs: Sequence[Pair],
    separation: TextSeparation,
    margin: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """Keep the pairs whose clean text is closer to the scorer's text by more than `margin`; return candidates."""
    candidates = []
    for done, pair in enumerate(pairs, start=1):
        clean, corrupt = separation(pair.clean.text, pair.corrupt.text, pair.text)
        if not (isfinite(clean) and isfinite(corrupt)):
            reason = Reason.NO_SIMILARITY
        else:
            reason = Reason.KEPT if clean - corrupt > margin else Reason.NO_SEPARATION
        candidates.append(Candidate(pair, reason, float(clean), float(corrupt)))
        if progress is not None:
            progress(done, len(pairs))
    return candidates


def scorer_separation(scorer: Scorer) -> TextSeparation:
    """Return the text comparison of a scorer; raise UserError if it cannot compare texts."""
    compare = getattr(scorer, "compare_texts", None)
    if compare is None:
        raise UserError(f"The scorer '{scorer.name}' cannot compare texts. Use 'clap' or 'clap-laion'.")

    def separation(clean: str, corrupt: str, text: str) -> tuple[float, float]:
        similarities = compare([clean, corrupt], [text])
        return float(similarities[0, 0]), float(similarities[1, 0])

    return separation


def report(candidates: Iterable[Candidate]) -> pd.DataFrame:
    """Return one row per candidate: attributes, texts, whether and why it was kept, and the similarities."""
    rows = [
        (
            each.pair.clean_value,
            each.pair.corrupt_value,
            each.pair.clean.text,
            each.pair.corrupt.text,
            each.reason is Reason.KEPT,
            str(each.reason),
            each.clean_similarity,
            each.corrupt_similarity,
        )
        for each in candidates
    ]
    columns = ["original_feature", "counterfactual_feature", "clean_prompt", "corrupted_prompt"]
    return pd.DataFrame(
        rows, columns=[*columns, "kept", "reason", "clean_similarity", "corrupted_similarity"]
    )


def summary(table: pd.DataFrame) -> str:
    """Summarise a report: candidates and kept pairs per attribute, and the number dropped for each reason."""
    counts = table.groupby("original_feature", sort=False)["kept"].agg(["size", "sum"])
    lines = [f"{'attribute':<14}{'candidates':>10}{'kept':>8}"]
    lines += [f"{name:<14}{size:>10}{kept:>8}" for name, size, kept in counts.itertuples()]
    lines.append(f"{'all':<14}{len(table):>10}{int(table['kept'].sum()):>8}")
    for reason, count in table.loc[~table["kept"].astype(bool), "reason"].value_counts().items():
        lines.append(f"{count} dropped: {reason}")
    return "\n".join(lines)


def _fault(
    pair: Pair, attributes: AttributeSet, alignment: Alignment, tokenizer: Tokenizer | None
) -> Reason | None:
    """Return why a pair is unsuitable on its own, or None."""
    clean, own = lowered(pair.clean.text), word_pattern(attributes.get(pair.concept).swaps)
    if word_pattern(attributes.opposing_words(pair.concept)).search(clean):
        return Reason.OPPOSING
    if any(is_negated(clean, match.start()) for match in own.finditer(clean)):
        return Reason.NEGATED
    if own.search(lowered(pair.corrupt.text)):
        return Reason.LEFT_OVER
    if alignment != "any" and len(pair.clean.text.split()) != len(pair.corrupt.text.split()):
        return Reason.WORDS
    if tokenizer and len(tokenizer(pair.clean.text)) != len(tokenizer(pair.corrupt.text)):
        return Reason.TOKENS
    return None
