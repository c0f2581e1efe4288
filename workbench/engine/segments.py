"""Which conditioning tokens a name means: segments, single words of the prompt, and the words that a pair swaps."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from cache.errors import UserError

WORD = "word:"
ROLES = ("prompt", "template", "swapped", "before", "after")
Span = tuple[int, int]
Aligned = tuple[tuple[tuple[str, ...], tuple[str, ...]], int, int]


@dataclass(frozen=True)
class Conditioning:
    """Where the conditioning tokens of a clip lie: segments and words of the prompt, as spans (first, last + 1)."""

    segments: dict[str, Span]
    words: tuple[tuple[str, int, int], ...]


def segment_positions(
    names: Sequence[str], target: Conditioning, source: Conditioning, n_tokens: int
) -> list[int]:
    """Positions, of `n_tokens`, that the `names` mean for a row patched from `source`.

    A name is a segment of the model (`text`, `lyrics` …; the last reaches to the end, padding included); `prompt` or
    `template`, the text's tokens inside or outside the prompt; `swapped`, `before` or `after`, the prompt's words that
    differ between the two, those before the first and those after the last; or `word:violin`, a word of either
    prompt. Raises UserError for unknown names, and where the two prompts' tokens do not lie at the same places.
    """
    found: set[int] = set()
    for name in names:
        found |= _positions(name, target, source, n_tokens)
    return sorted(found)


def _positions(name: str, target: Conditioning, source: Conditioning, n_tokens: int) -> set[int]:
    if name in target.segments:
        return _segment(name, target, source, n_tokens)
    if not (name in ROLES or name.startswith(WORD)):
        known = ", ".join([*target.segments, *ROLES, f"{WORD}…"])
        raise UserError(f"There is no conditioning segment '{name}': use some of {known}.")
    words = _aligned_words(target, source)
    if name == "prompt":
        return _tokens(words)
    if name == "template":
        return _segment("text", target, source, n_tokens) - _tokens(words)
    if name.startswith(WORD):
        wanted = name.removeprefix(WORD)
        found = [word for word in words if any(wanted in map(_bare, texts) for texts in word[0])]
        if not found:
            raise UserError(
                f"Neither prompt of a pair has the word '{wanted}': choose one that all pairs have."
            )
        return _tokens(found)
    swapped = [i for i, (texts, _, _) in enumerate(words) if texts[0] != texts[1]]
    if not swapped:
        return set()
    ranges = {
        "swapped": [words[i] for i in swapped],
        "before": words[: swapped[0]],
        "after": words[swapped[-1] + 1 :],
    }
    # A token that holds a swapped word and a neighbour of it counts as swapped.
    return _tokens(ranges[name]) - (set() if name == "swapped" else _tokens(ranges["swapped"]))


def _segment(name: str, target: Conditioning, source: Conditioning, n_tokens: int) -> set[int]:
    (first, last), (other_first, other_last) = target.segments[name], source.segments[name]
    final = max(target.segments.values(), key=lambda span: span[1])[1] == last
    if first != other_first or (last != other_last and not final):
        raise UserError(
            f"The {name} of the two prompts do not lie at the same conditioning tokens ({first} to {last}, "
            f"{other_first} to {other_last}): give both the same lyrics."
        )
    return set(range(first, n_tokens if final else last))


def _aligned_words(target: Conditioning, source: Conditioning) -> list[Aligned]:
    """Words of both prompts with their common span of tokens; those that share one token are one entry."""
    ours, theirs = _by_span(target), _by_span(source)
    if list(ours) != list(theirs):
        raise UserError(
            "The words of the two prompts do not lie at the same tokens: use pairs whose prompts have equally many "
            "tokens, word by word, or patch the segment text as a whole."
        )
    return [((ours[span], theirs[span]), *span) for span in ours]


def _by_span(side: Conditioning) -> dict[Span, tuple[str, ...]]:
    words: dict[Span, tuple[str, ...]] = {}
    for word, first, last in side.words:
        words[first, last] = (*words.get((first, last), ()), word)
    return words


def _bare(word: str) -> str:
    return word.strip(string.punctuation)


def _tokens(words: Sequence[Aligned]) -> set[int]:
    return {position for _, first, last in words for position in range(first, last)}
