"""Clean lyrics as ACE-Step v1 expects them: lower case, with numbers, symbols and abbreviations spelled out."""

import re
from contextlib import suppress
from functools import partial

from num2words import num2words

from workbench.models.ace_step_v1.lyric_words import WORDS, Words

LANGUAGES = (*WORDS, "hi")
CURRENCIES = {"GBP": "£", "USD": r"\$", "EUR": "€"}
# The errors that num2words raises for numbers, currencies and languages that it cannot spell out.
UNSPEAKABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def clean(line: str, language: str) -> str:
    """Clean a line as the published sampler does; `language` is one of `LANGUAGES`.

    Numbers that cannot be spelled out stay digits. In Hindi, only case and spaces are changed.
    """
    if language == "tr":  # Python lower-cases "İ" to "i" and a separate dot character
        line = line.replace("İ", "i")
    line = line.lower()
    if language in WORDS:
        line = _spell_out(line.replace('"', ""), language)
    return " ".join(line.split())


def _spell_out(line: str, language: str) -> str:
    words = WORDS[language]
    if words.numbers is not None:
        # A line with a number that cannot be spelled out keeps all its numbers, as in the published cleaning.
        with suppress(*UNSPEAKABLE):
            line = _speak_numbers(line, language)
    for short, full in words.abbreviations.items():
        line = re.sub(rf"\b{short}{words.abbreviation_end}", full, line, flags=re.IGNORECASE)
    for symbol, name in words.symbol_names().items():
        line = line.replace(symbol, f" {name} ")
    return line


def _speak_numbers(line: str, language: str) -> str:
    """Spell out amounts of money first, then decimals, ordinals and whole numbers."""
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
    """Remove the thousands separators: commas in English and Russian, dots elsewhere."""
    if language in ("en", "ru"):
        return re.sub(r"\b\d{1,3}(?:,\d{3})*(?:\.\d+)?\b", lambda found: found[0].replace(",", ""), line)
    # The published cleaning accepts any character as a thousands separator, but removes only dots.
    return re.sub(r"\b\d{1,3}(?:.\d{3})*(?:,\d+)?\b", lambda found: found[0].replace(".", ""), line)


def _speak_money(line: str, words: Words) -> str:
    """Spell out amounts, up to the first currency that the language has no words for."""
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
