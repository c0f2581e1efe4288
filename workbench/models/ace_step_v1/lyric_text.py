"""A line of lyrics as ACE-Step v1 expects it: lower case, with numbers, symbols and abbreviations spelled out."""

import re
from contextlib import suppress
from functools import partial

from num2words import num2words

from workbench.models.ace_step_v1.lyric_words import WORDS, Words

LANGUAGES = (*WORDS, "hi")
CURRENCIES = {"GBP": "£", "USD": r"\$", "EUR": "€"}
# What num2words raises for numbers, currencies and languages that it has no words for.
UNSPEAKABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def clean(line: str, language: str) -> str:
    """The line cleaned as the published sampler does it; `language` is one of `LANGUAGES`.

    Numbers for which there are no words stay digits. Of Hindi only letters' case and spaces are changed.
    """
    if language == "tr":  # of "İ", Python's lower case keeps the dot as a character of its own
        line = line.replace("İ", "i")
    line = line.lower()
    if language in WORDS:
        line = _spell_out(line.replace('"', ""), language)
    return " ".join(line.split())


def _spell_out(line: str, language: str) -> str:
    words = WORDS[language]
    if words.numbers is not None:
        # A line with a number that cannot be spoken keeps all of its numbers, as in the published cleaning.
        with suppress(*UNSPEAKABLE):
            line = _speak_numbers(line, language)
    for short, full in words.abbreviations.items():
        line = re.sub(rf"\b{short}{words.abbreviation_end}", full, line, flags=re.IGNORECASE)
    for symbol, name in words.symbol_names().items():
        line = line.replace(symbol, f" {name} ")
    return line


def _speak_numbers(line: str, language: str) -> str:
    """Amounts of money first, then decimals, ordinals and whole numbers, in words."""
    words = WORDS[language]
    line = _ungroup_thousands(line, language)
    line = _speak_money(line, words)
    if language != "tr":
        line = re.sub(r"[0-9]+[.,][0-9]+", lambda found: _decimal(found[0], words), line)
    line = re.sub(
        rf"([0-9]+)(?:{words.ordinal})",
        lambda found: num2words(int(found[1]), ordinal=True, lang=words.numbers),
        line,
    )
    return re.sub(r"[0-9]+", lambda found: num2words(int(found[0]), lang=words.numbers), line)


def _ungroup_thousands(line: str, language: str) -> str:
    """Without the marks between thousands: commas in English and Russian, dots elsewhere."""
    if language in ("en", "ru"):
        return re.sub(r"\b\d{1,3}(?:,\d{3})*(?:\.\d+)?\b", lambda found: found[0].replace(",", ""), line)
    # The published cleaning takes any character for a mark between thousands, but drops dots alone.
    return re.sub(r"\b\d{1,3}(?:.\d{3})*(?:,\d+)?\b", lambda found: found[0].replace(".", ""), line)


def _speak_money(line: str, words: Words) -> str:
    """Amounts in words, up to the first currency that the language has no words for."""
    for currency, sign in CURRENCIES.items():
        amounts = rf"{sign}[0-9.,]*[0-9]|[0-9.,]*[0-9]{sign}"
        try:
            line = re.sub(amounts, partial(_money, currency, words), line)
        except UNSPEAKABLE:
            return line
    return line


def _money(currency: str, words: Words, amount: re.Match[str]) -> str:
    value = float(re.sub(r"[^\d.]", "", amount[0].replace(",", ".")))
    spoken: str = num2words(value, to="currency", currency=currency, lang=words.numbers)
    if value.is_integer() and words.cents in spoken:
        return spoken[: spoken.rindex(words.cents)]
    return spoken


def _decimal(number: str, words: Words) -> str:
    return num2words(float(number.replace(",", ".")), lang=words.numbers)
