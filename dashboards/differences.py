"""Where two prompts differ: the part that is marked on the pages, so that it is never what is cut off."""

from dashboards.names import ELLIPSIS, printable

MOST_BEFORE = 48  # characters shown before the part that differs


def marked(text: str, other: str, most_before: int = MOST_BEFORE) -> tuple[str, ...]:
    """`text` as (before, differs, after), where it differs from `other` in whole words; (text,) if it does not.

    A longer beginning is shortened from the left, so that what differs is seen without scrolling.
    """
    words, others = printable(text).split(" "), printable(other).split(" ")
    if words == others:
        return (" ".join(words),)
    start = _shared(words, others)
    rest = min(len(words), len(others)) - start
    end = min(rest, _shared(words[::-1], others[::-1]))
    before, differs, after = words[:start], words[start : len(words) - end], words[len(words) - end :]
    return (_lead(" ".join([*before, ""]), most_before), " ".join(differs), " ".join(["", *after]))


def in_brackets(text: str, other: str, most_before: int = MOST_BEFORE) -> str:
    """The same as plain text, with brackets around what differs."""
    parts = marked(text, other, most_before)
    return parts[0] if len(parts) == 1 else f"{parts[0]}[{parts[1]}]{parts[2]}"


def _shared(words: list[str], others: list[str]) -> int:
    """The number of words that both begin with."""
    pairs = zip(words, others, strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(words), len(others)))


def _lead(text: str, most: int) -> str:
    return text if len(text) <= most else ELLIPSIS + text[len(text) - most + 1 :]
