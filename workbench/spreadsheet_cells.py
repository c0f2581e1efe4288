"""Text in the cells of CSV files, which spreadsheets must not run as formulas."""

FORMULAS = ("=", "+", "-", "@", "\t")


def protected(text: str) -> str:
    """Return a text that no spreadsheet runs: with an apostrophe before it if it begins with one of `FORMULAS`.

    See https://owasp.org/www-community/attacks/CSV_Injection. A bare carriage return becomes a line break: it would end
    the row, as it is not quoted. A text with apostrophes before a formula gets another one, so that `unprotected` gives
    the same text again.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.lstrip("'").startswith(FORMULAS) else text


def unprotected(text: str) -> str:
    """Return the text of a cell that `protected` wrote."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULAS) else text
