"""Phrases of sentences for users."""

LONGEST_QUOTE = 60

CAPTURE_AGAIN = "capture again with the same plan (`workbench trace` with the same options)"
"""What to do about missing shards and tables of a cache."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 pair" or "2 pairs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Return a text with � for characters that a terminal would obey or cannot show."""
    return "".join(character if character.isprintable() else "�" for character in text)


def quoted(text: str) -> str:
    """Return a user's text in quotation marks, printable and shortened to some 60 characters."""
    text = printable(text)
    return f"'{text}'" if len(text) <= LONGEST_QUOTE else f"'{text[:LONGEST_QUOTE].rstrip()}…'"


def numbered(noun: str, first: int, last: int) -> str:
    """Return a range of numbered things, such as "shard 3" or "shards 3 to 5"."""
    return f"{noun} {first}" if first == last else f"{noun}s {first} to {last}"
