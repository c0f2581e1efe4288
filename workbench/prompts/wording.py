"""Swap words in a sentence: whole words, simultaneously, with the right capitals and a/an."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

_VOWEL_SOUND = re.compile(
    r"(?!eu|ew|uni(?![nm])|us[aeu]|uk|ut[io]|one\b|once)(?:[aeiou]|hour|honest|heir|honou?r)"
)
_NO_NOUN = re.compile(
    r"\s*(?:$|[.,;:!?)\]–—]|(?:after|alone|along|also|and|are|as|at|before|but|by|during|for|from|in|into|is|like|of|on"
    r"|or|over|sings?|singing|that|through|to|too|under|was|were|when|where|while|who|with)\b)"
)
_NEGATION = re.compile(
    r"(?<!\w)(?:no|not|non|nor|neither|never|without|lack|lacks|lacking|\w+n['’]t)"
    r"(?:[\s-]+(?:an?|any|the|too|very|so|being|use|using|have|having))*[\s-]+$"
)


def lowered(text: str) -> str:
    """Return `text` in lower case, character by character, so that positions are the same."""
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for words (or phrases) in lowered text: whole words only, longest first.

    A hyphen ends a word, so "violin" matches in "violin-driven" but not in "violinist".
    """
    return _compiled(tuple(words))


@lru_cache(maxsize=256)
def _compiled(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?!\w)")


def is_negated(text: str, start: int) -> bool:
    """Whether what starts at `start` in lowered text is negated, such as "drums" in "without any drums"."""
    return _NEGATION.search(text, 0, start) is not None


def swap_words(text: str, swaps: Mapping[str, str], alone: Mapping[str, str] | None = None) -> str:
    """Replace each word of `swaps` (lower case; also phrases) in `text` by its counterpart.

    Replacement is simultaneous: a counterpart is never replaced again. Counterparts take the capitals of what they
    replace, and a preceding "a" or "an" is adjusted. `alone` has different counterparts for words that are not followed
    by a noun ("her" is "his" in "her voice", and "him" in "with her").
    """
    return "".join(_pieces(text, swaps, alone or {}))


def _pieces(text: str, swaps: Mapping[str, str], alone: Mapping[str, str]) -> Iterator[str]:
    low = lowered(text)
    done = 0
    for match in word_pattern(swaps).finditer(low):
        found = text[match.start() : match.end()]
        lists = (alone, swaps) if _NO_NOUN.match(low, match.end()) else (swaps,)
        counterpart = next(words[match[0]] for words in lists if match[0] in words)
        yield _with_article(text[done : match.start()], counterpart, _is_capitals(found))
        yield _in_case_of(found, counterpart)
        done = match.end()
    yield text[done:]


def _with_article(before: str, counterpart: str, capitals: bool) -> str:
    """Return the text before a counterpart, with a final article adjusted to it."""
    article = re.search(r"(?<!\w)an?(?= $)", before, re.IGNORECASE)
    if article is None:
        return before
    agreeing = "an" if _VOWEL_SOUND.match(counterpart.lower()) else "a"
    agreeing = agreeing.upper() if capitals and article[0].isupper() else _in_case_of(article[0][0], agreeing)
    return f"{before[: article.start()]}{agreeing} "


def _in_case_of(model: str, word: str) -> str:
    """Return `word` with the capitalisation of `model`."""
    if _is_capitals(model):
        return word.upper()
    if model.istitle() and re.search(r"\w[\s-]+\w", model):
        return re.sub(r"(?<![\w'’])\w", lambda match: match[0].upper(), word)
    return word[:1].upper() + word[1:] if model[0].isupper() else word


def _is_capitals(text: str) -> bool:
    return text.isupper() and len(text) > 1
