"""Names that users gave to concepts, values and files, as figures write them."""

import unicodedata

ELLIPSIS = "…"


def printable(text: str) -> str:
    """`text` on one line, composed (NFC), without what has no shape of its own: control and format characters.

    Among them are the invisible signs that choose an emoji's looks.
    """
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(letter for letter in line if letter.isprintable() and not _chooses_looks(letter))


def shortened(text: str, most: int) -> str:
    """A printable text with at most `most` characters: of a longer one the two ends."""
    line = printable(text)
    if len(line) <= most:
        return line
    tail = (most - 1) // 3
    return line[: most - 1 - tail] + ELLIPSIS + line[len(line) - tail :]


def _chooses_looks(letter: str) -> bool:
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
