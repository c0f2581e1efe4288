"""Format the names that users give to concepts, values and files."""

import unicodedata

ELLIPSIS = "…"


def printable(text: str) -> str:
    """`text` on one line, composed (NFC), without control and format characters and variation selectors."""
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(letter for letter in line if letter.isprintable() and not _is_selector(letter))


def shortened(text: str, most: int) -> str:
    """A printable text of at most `most` characters; a longer text keeps its two ends."""
    line = printable(text)
    if len(line) <= most:
        return line
    tail = (most - 1) // 3
    return line[: most - 1 - tail] + ELLIPSIS + line[len(line) - tail :]


def in_two_lines(text: str, most: int) -> list[str]:
    """A printable text of at most `most` characters in one line, or between words in two of similar length."""
    line = shortened(text, most)
    places = [place for place, letter in enumerate(line) if letter == " "]
    if len(line) <= most // 2 or not places:
        return [line]
    middle = min(places, key=lambda place: abs(2 * place - len(line)))
    return [line[:middle], line[middle + 1 :]]


def _is_selector(letter: str) -> bool:
    """Whether this is a variation selector, an invisible character that chooses how an emoji looks."""
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
