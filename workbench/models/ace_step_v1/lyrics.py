"""Tokenise lyrics with ACE-Step v1's published vocabulary, a file that is not part of this project."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.errors import UserError
from cache.wording import quoted
from workbench.models.ace_step_v1.lyric_text import LANGUAGES, clean

FILES = ("lyric_tokenizer/vocab.json", "vocab.json", "acestep/models/lyrics_utils/vocab.json")
GET_VOCABULARY = (
    "get the file acestep/models/lyrics_utils/vocab.json of the GitHub repository ace-step/ACE-Step"
    " and put it into the checkpoint's folder as lyric_tokenizer/vocab.json."
)
START, SPACE = "[START]", "[SPACE]"  # 261 and 2 in the published vocabulary
OTHER_LANGUAGES = ("ar", "ja", "ko", "zh", "zh-cn")

_LANGUAGE_TAG = re.compile(rf"\[({'|'.join((*LANGUAGES, *OTHER_LANGUAGES))})\]", re.IGNORECASE)
_STRUCTURE_TAG = re.compile(r"\[.*?\]")
# Arabic, Hangul, kana and Chinese characters, which must be romanised first; this project does not do that.
_OTHER_SCRIPTS = re.compile("[\u0600-\u06ff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


class LyricTokenizer:
    """Tokeniser of lyrics.

    Without a vocabulary (`None`), it supports only instrumental clips, whose lyrics are empty.
    """

    def __init__(self, vocabulary: Path | None) -> None:
        self.vocabulary = vocabulary

    @classmethod
    def load(cls, where: str | Path | None, checkpoint: Path) -> "LyricTokenizer":
        """Load the vocabulary from `where`: a file, a folder or a hub id; None for the checkpoint's folder.

        Raises:
            UserError: if `where` is given and has no vocabulary. If only the checkpoint lacks it, `encode` raises
                instead.
        """
        if where is None:
            return cls(_in_folder(checkpoint))
        place = Path(where)
        found = place if place.is_file() else _in_folder(place) or _on_hub(str(where))
        if found is None:
            raise UserError(f"There is no lyric vocabulary at {where}: {GET_VOCABULARY}")
        return cls(found)

    def encode(self, lyrics: str, language: str = "en") -> list[int]:
        """Return the token numbers of lyrics; none for empty lyrics.

        They begin with [START]. Each line is its language, its text and [SPACE]; an empty line is just [SPACE].

        Args:
            lyrics: lines of text. A line that begins with a structure tag such as [verse], [chorus] or [inst] counts
                as English, as in training. A language tag such as [fr], at the beginning of a line or on a line of its
                own, applies from there on.
            language: language of the lines before the first language tag; one of `LANGUAGES`.

        Raises:
            UserError: if the vocabulary is missing, or a language or script is not supported.
        """
        if not lyrics:
            return []
        numbers = [self._number(START)]
        for spoken, line in lyric_lines(lyrics, language):
            if line:
                text = f"[{spoken}]{clean(line, spoken)}".replace(" ", SPACE)
                numbers += self._tokenizer.encode(text).ids
            numbers.append(self._number(SPACE))
        return numbers

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # only needed for lyrics

        if self.vocabulary is None:
            raise UserError(f"Lyrics need the lyric vocabulary, which is missing: {GET_VOCABULARY}")
        try:
            return Tokenizer.from_file(str(self.vocabulary))
        except Exception as error:  # the library raises plain Exceptions
            raise UserError(
                f"{self.vocabulary} is not a lyric vocabulary ({error}): {GET_VOCABULARY}"
            ) from error

    def _number(self, token: str) -> int:
        number: int | None = self._tokenizer.token_to_id(token)
        if number is None:
            raise UserError(
                f"{self.vocabulary} is not a lyric vocabulary (it has no {token}): {GET_VOCABULARY}"
            )
        return number


def lyric_lines(lyrics: str, language: str = "en") -> list[tuple[str, str]]:
    """Return the language and text of each line, without language tags; lines with only a tag are left out.

    Raises:
        UserError: if a language or script is not supported.
    """
    _check_language(language)
    lines = []
    for line in map(str.strip, lyrics.split("\n")):
        if tag := _LANGUAGE_TAG.match(line):
            language = tag[1].lower()
            _check_language(language)
            line = line[tag.end() :].strip()
            if not line:
                continue
        if _OTHER_SCRIPTS.search(line):
            raise UserError(
                f"Lyrics in Arabic, Chinese, Japanese or Korean script are not supported: {quoted(line)}."
            )
        lines.append(("en" if _STRUCTURE_TAG.match(line) else language, line))
    return lines


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise UserError(
            f"Lyrics in '{language}' are not supported. Supported languages: {', '.join(LANGUAGES)}."
        )


def _in_folder(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _on_hub(repository: str) -> Path | None:
    from huggingface_hub import hf_hub_download  # only needed for a hub id

    # The local cache first: without a network, asking the hub takes a while to fail.
    for local_files_only in (True, False):
        for name in FILES:
            try:
                return Path(hf_hub_download(repository, name, local_files_only=local_files_only))
            except (OSError, ValueError):  # no such repository or file, no network, or no hub id
                continue
    return None
