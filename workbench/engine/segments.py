"""Resolve names to conditioning tokens: segments, words of the prompt, and the words that a pair swaps."""

import itertools
import re
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
    """Positions of a clip's conditioning tokens: segments and words of the prompt, as spans (first, last + 1)."""

    segments: dict[str, Span]
    words: tuple[tuple[str, int, int], ...]


def batch_tokens(of_clips: Sequence[Conditioning]) -> int:
    """Return how many conditioning tokens a batch of clips has, each segment as long as its longest."""
    spans = [clip.segments.values() for clip in of_clips]
    return sum(max(last - first for first, last in of_all) for of_all in zip(*spans, strict=True))


def segment_positions(
    names: Sequence[str], target: Conditioning, source: Conditioning, n_tokens: int
) -> list[int]:
    """Return the positions, out of `n_tokens`, that `names` stand for in a row patched from `source`.

    A name is a segment of the model (`text`, `lyrics` …; the last one includes the padding at the end); `prompt` or
    `template`, the text's tokens inside or outside the prompt; `swapped`, `before` or `after`, the prompt's words that
    differ between the two, those before the first and those after the last; or `word:violin`, a word of either prompt.

    Raises:
        UserError: for unknown names, or if the two prompts' tokens are not at the same positions.
    """
    positions: set[int] = set()
    for name in names:
        positions |= _positions(name, target, source, n_tokens)
    return sorted(positions)


def out_of_place(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sequences of as many tokens have more in common if some of them are shifted.

    That is whether their longest common subsequence is longer than the number of equal tokens at equal positions.
    """
    differing = [place for place, (ours, theirs) in enumerate(zip(one, other, strict=True)) if ours != theirs]
    if not differing:
        return False
    between = slice(differing[0], differing[-1] + 1)  # what they have in common around it stays in its place
    ours, theirs = one[between], other[between]
    return _longest_in_common(ours, theirs) > len(ours) - len(differing)


def _longest_in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the longest common subsequence."""
    longest = [0] * (len(other) + 1)
    for ours in one:
        before = longest.copy()
        for place, theirs in enumerate(other, 1):
            longest[place] = (
                before[place - 1] + 1 if ours == theirs else max(before[place], longest[place - 1])
            )
    return longest[-1]


def _positions(name: str, target: Conditioning, source: Conditioning, n_tokens: int) -> set[int]:
    if name in target.segments:
        return _segment(name, target, source, n_tokens)
    if not (name in ROLES or name.startswith(WORD)):
        known = ", ".join([*target.segments, *ROLES, f"{WORD}…"])
        raise UserError(f"Unknown conditioning segment '{name}'. Use some of {known}.")
    words = _aligned_words(target, source)
    if name == "prompt":
        return _tokens(words)
    if name == "template":
        return _segment("text", target, source, n_tokens) - _tokens(words)
    if name.startswith(WORD):
        wanted = name.removeprefix(WORD)
        matching = [word for word in words if any(wanted in map(_bare, texts) for texts in word[0])]
        if not matching and target is source:
            raise UserError(
                f"A prompt does not have the word '{wanted}'. Choose a word that all prompts have."
            )
        if not matching:
            raise UserError(
                f"Neither prompt of a pair has the word '{wanted}'. Choose a word that all pairs have."
            )
        return _tokens(matching)
    swapped = [i for i, (texts, _, _) in enumerate(words) if texts[0] != texts[1]]
    if not swapped:
        return set()
    ranges = {
        "swapped": [words[i] for i in swapped],
        "before": words[: swapped[0]],
        "after": words[swapped[-1] + 1 :],
    }
    # A token that contains a swapped word and a neighbouring one counts as swapped.
    return _tokens(ranges[name]) - (set() if name == "swapped" else _tokens(ranges["swapped"]))


def _segment(name: str, target: Conditioning, source: Conditioning, n_tokens: int) -> set[int]:
    (first, last), (other_first, other_last) = target.segments[name], source.segments[name]
    final = max(target.segments.values(), key=lambda span: span[1])[1] == last
    if first != other_first or (last != other_last and not final):
        raise UserError(
            f"The {name} of the two prompts must be at the same conditioning tokens; they are at {first} to {last} and "
            f"{other_first} to {other_last}. Give both the same lyrics."
        )
    return set(range(first, n_tokens if final else last))


def _aligned_words(target: Conditioning, source: Conditioning) -> list[Aligned]:
    """Align the words of both prompts by their spans of tokens; words that share a token are one entry."""
    ours, theirs = _by_span(target), _by_span(source)
    if list(ours) != list(theirs):
        raise UserError(
            "The words of the two prompts must be at the same tokens. Use pairs whose prompts have the same number of "
            "tokens, word by word, or patch the whole segment text."
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


def words_at_tokens(
    prompt: str, start: int, offsets: Sequence[tuple[int, int]], first: int
) -> tuple[tuple[str, int, int], ...]:
    """Return the words of a prompt with their spans of tokens (first, last + 1).

    The prompt begins at character `start` of the tokenised text; `offsets` are the character spans of the tokens, the
    first of which is token `first` of the conditioning.
    """
    # A token begins where the previous one ends: if a tokenizer rewrites its text, its start offsets may be wrong.
    ends = [0, *itertools.accumulate((end for _, end in offsets), max)]
    words = []
    for word in re.finditer(r"\S+", prompt):
        inside = [
            first + token
            for token, (begin, end) in enumerate(itertools.pairwise(ends))
            if begin < start + word.end() and end > start + word.start()
        ]
        if inside:  # a long prompt is truncated
            words.append((word.group(), inside[0], inside[-1] + 1))
    return tuple(words)
