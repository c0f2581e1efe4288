"""Lyrics as token numbers of ACE-Step v1's published vocabulary: a file that is no part of this project."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.errors import UserError
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
# Arabic, Hangul, kana and Chinese characters: romanised before the vocabulary, which this project does not do.
_OTHER_SCRIPTS = re.compile("[\u0600-\u06ff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


class LyricTokenizer:
    """Turns lyrics into token numbers.

    Without a vocabulary (`None`) it serves instrumental clips, whose lyrics are empty.
    """

    def __init__(self, vocabulary: Path | None) -> None:
        self.vocabulary = vocabulary

    @classmethod
    def load(cls, where: str | Path | None, checkpoint: Path) -> "LyricTokenizer":
        """The tokenizer with the vocabulary at `where`: a file, a folder or a hub id; None: the checkpoint's folder.

        Raises:
            UserError: when `where` is given and nothing is there; a checkpoint without it lacks it until lyrics come.
        """
        if where is None:
            return cls(_in_folder(checkpoint))
        place = Path(where)
        found = place if place.is_file() else _in_folder(place) or _on_hub(str(where))
        if found is None:
            raise UserError(f"There is no lyric vocabulary at {where}: {GET_VOCABULARY}")
        return cls(found)

    def encode(self, lyrics: str, language: str = "en") -> list[int]:
        """Token numbers of lyrics; none for empty ones.

        They begin with [START]; each line begins with its language and ends with [SPACE]; an empty line is its end.

        Args:
            lyrics: Lines of text. One that begins with a structure tag such as [verse], [chorus] or [inst] is taken
                as English, as the network knows it. A language tag such as [fr] at the beginning of a line, or alone
                on one, holds from there on.
            language: That of lines before any language tag; one of `LANGUAGES`.

        Raises:
            UserError: without a vocabulary, and for languages and scripts that are not supported.
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
        from tokenizers import Tokenizer  # only needed where there are lyrics

        if self.vocabulary is None:
            raise UserError(f"Lyrics need the lyric vocabulary, which is not there: {GET_VOCABULARY}")
        try:
            return Tokenizer.from_file(str(self.vocabulary))
        except Exception as error:  # the library has no errors of its own
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
    """Language and text of each line, without language tags; a line with nothing else is left out.

    Raises:
        UserError: for languages and scripts that are not supported.
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
                f"Lyrics in Arabic, Chinese, Japanese or Korean script are not supported: '{line}'."
            )
        lines.append(("en" if _STRUCTURE_TAG.match(line) else language, line))
    return lines


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise UserError(
            f"Lyrics in '{language}' are not supported; the languages are {', '.join(LANGUAGES)}."
        )


def _in_folder(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _on_hub(repository: str) -> Path | None:
    from huggingface_hub import hf_hub_download  # only needed where a hub id is given

    # The local cache first: with no network the hub is tried for a while.
    for local_files_only in (True, False):
        for name in FILES:
            try:
                return Path(hf_hub_download(repository, name, local_files_only=local_files_only))
            except (OSError, ValueError):  # no such repository or file, no network, or no hub id
                continue
    return None
