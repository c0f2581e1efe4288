"""Lines of lyrics cleaned for ACE-Step v1 against what the original makes of them."""

import json
from pathlib import Path

import pytest

from workbench.models.ace_step_v1.lyric_text import LANGUAGES, clean

FIXTURE = Path(__file__).parent / "fixtures" / "ace_step_v1" / "lyrics.json"
ORIGINAL: dict[str, dict[str, str]] = json.loads(FIXTURE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_are_cleaned_as_in_the_original(language: str) -> None:
    lines = ORIGINAL[language]
    assert {line: clean(line, language) for line in lines} == lines


def test_every_language_is_compared() -> None:
    assert set(ORIGINAL) == set(LANGUAGES)
    assert all(len(lines) >= 4 for language, lines in ORIGINAL.items() if language != "hi")
