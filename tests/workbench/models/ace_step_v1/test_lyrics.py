"""Lyrics to token numbers with a vocabulary of this project's own: lines, tags, languages, and what is refused."""

from pathlib import Path

import huggingface_hub
import pytest
from tokenizers import Tokenizer

from cache.errors import UserError
from tests.workbench.models.ace_step_v1.tiny_lyrics import write_vocabulary
from workbench.models.ace_step_v1.lyric_text import LANGUAGES, clean
from workbench.models.ace_step_v1.lyric_words import WORDS
from workbench.models.ace_step_v1.lyrics import FILES, LyricTokenizer, lyric_lines


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "any.json")


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> LyricTokenizer:
    return LyricTokenizer(vocabulary)


def tokens(tokenizer: LyricTokenizer, lyrics: str, language: str = "en") -> str:
    """The encoded lyrics, read back with the library alone."""
    library = Tokenizer.from_file(str(tokenizer.vocabulary))
    return " ".join(library.id_to_token(number) for number in tokenizer.encode(lyrics, language))


def test_lines_begin_with_their_language_and_end_with_a_space(tokenizer: LyricTokenizer) -> None:
    assert tokens(tokenizer, "The end\nOh") == "[START] [en] the [SPACE] e n d [SPACE] [en] o h [SPACE]"


def test_an_empty_line_is_its_end(tokenizer: LyricTokenizer) -> None:
    assert tokens(tokenizer, "a\n\n  \r\nb") == "[START] [en] a [SPACE] [SPACE] [SPACE] [en] b [SPACE]"


@pytest.mark.parametrize("tag", ["[inst]", "[Inst]", "[verse]"])
def test_structure_tags_are_english_tokens(tokenizer: LyricTokenizer, tag: str) -> None:
    assert tokens(tokenizer, tag, "de") == f"[START] [en] {tag.lower()} [SPACE]"


def test_empty_lyrics_have_no_tokens_and_need_no_vocabulary(tokenizer: LyricTokenizer) -> None:
    assert tokenizer.encode("") == LyricTokenizer(None).encode("") == []


def test_the_language_is_that_of_the_text_until_a_tag_changes_it(tokenizer: LyricTokenizer) -> None:
    found = tokens(tokenizer, "ö\n[fr] é\n[verse]\nè\n[EN]\nthe", "de")
    assert found == (
        "[START] [de] ö [SPACE] [fr] é [SPACE] [en] [verse] [SPACE] [fr] è [SPACE] [en] the [SPACE]"
    )


def test_a_line_with_a_structure_tag_first_is_all_english() -> None:
    assert lyric_lines("[verse] Bär\nBär", "de") == [("en", "[verse] Bär"), ("de", "Bär")]


def test_characters_that_the_vocabulary_lacks_are_unknown(tokenizer: LyricTokenizer) -> None:
    assert tokens(tokenizer, "a~") == "[START] [en] a [UNK] [SPACE]"


def test_lines_are_cleaned_in_their_language(tokenizer: LyricTokenizer) -> None:
    assert tokens(tokenizer, "& 1", "de") == "[START] [de] u n d [SPACE] e i n s [SPACE]"


@pytest.mark.parametrize(
    ("line", "language", "expected"),
    [
        ("WE ARE 2", "en", "we are two"),
        ('"So"  it\tgoes', "en", "so it goes"),
        ("1,234 ways", "en", "one thousand, two hundred and thirty-four ways"),
        ("1.234 Wege", "de", "eintausendzweihundertvierunddreißig wege"),
        ("$1,234 or so", "en", "one thousand, two hundred and thirty-four dollars or so"),
        ("5€, not 5.50€", "en", "five euro, not five euro, fifty cents"),
        ("our 3rd, at 100%", "en", "our third, at one hundred percent"),
        ("DIŞARI & IŞIK", "tr", "dişari ve işik"),
        ("İyi", "tr", "iyi"),
        # Turkish decimals and Czech numbers have no words, nor has an amount of euros in Turkish.
        ("2,5", "tr", "iki,beş"),
        ("7 & 5€", "tr", "yedi ve beş€"),
        ("7 & 5€", "cs", "7 a 5€"),
        ("ABC  & 5", "hi", "abc & 5"),
    ],
)
def test_what_is_spelled_out(line: str, language: str, expected: str) -> None:
    assert clean(line, language) == expected


@pytest.mark.parametrize("language", WORDS)
def test_every_language_spells_out_its_symbols(language: str) -> None:
    names = WORDS[language].symbol_names()
    assert clean("x&y", language) == f"x {names['&']} y"
    assert clean("".join(names), language) == " ".join(names.values())


def test_a_number_that_cannot_be_spoken_does_not_stop_the_rest() -> None:
    """In num2words, Hungarian has no words for four decimals, and Turkish none for such a number."""
    assert clean("Dr. 1,4679 & 1", "hu") == "doktor 1,4679 és 1"
    assert clean(f"Dr. {'9' * 25} & 1", "tr") == f"doktor {'9' * 25} ve 1"


@pytest.mark.parametrize("place", FILES)
def test_the_vocabulary_is_found_in_the_checkpoint(tmp_path: Path, place: str) -> None:
    write_vocabulary(tmp_path / place)
    assert LyricTokenizer.load(None, tmp_path).vocabulary == tmp_path / place
    assert len(LyricTokenizer.load(None, tmp_path).encode("a")) == 4


def test_the_vocabulary_named_comes_before_that_of_the_checkpoint(tmp_path: Path, vocabulary: Path) -> None:
    write_vocabulary(tmp_path / "vocab.json")
    assert LyricTokenizer.load(vocabulary, tmp_path).vocabulary == vocabulary
    assert LyricTokenizer.load(tmp_path, Path("nowhere")).vocabulary == tmp_path / "vocab.json"


def test_the_vocabulary_comes_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vocabulary: Path
) -> None:
    asked = []

    def download(repository: str, name: str, local_files_only: bool) -> str:
        asked.append((repository, name, local_files_only))
        if local_files_only or name != "vocab.json":
            raise FileNotFoundError
        return str(vocabulary)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert LyricTokenizer.load("someone/lyrics", tmp_path).vocabulary == vocabulary
    assert asked[0] == ("someone/lyrics", FILES[0], True)


def test_a_missing_vocabulary_is_missed_when_lyrics_come(tmp_path: Path) -> None:
    tokenizer = LyricTokenizer.load(None, tmp_path)
    with pytest.raises(UserError, match=r"acestep/models/lyrics_utils/vocab\.json of .* ace-step/ACE-Step"):
        tokenizer.encode("[inst]")


def test_a_vocabulary_named_and_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no lyric vocabulary at .*gone\.json: get the file"):
        LyricTokenizer.load(tmp_path / "gone.json", tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}'])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(UserError, match=r"vocab\.json is not a lyric vocabulary"):
        LyricTokenizer.load(None, tmp_path).encode("a")


def test_a_vocabulary_of_something_else_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    text = vocabulary.read_text(encoding="utf-8").replace("[START]", "[BEGIN]")
    (tmp_path / "vocab.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"it has no \[START\]"):
        LyricTokenizer.load(None, tmp_path).encode("a")


@pytest.mark.parametrize("line", ["夜の歌", "밤의 노래", "你好", "أغنية"])
def test_scripts_that_need_romanising_are_refused(line: str) -> None:
    with pytest.raises(UserError, match=f"not supported: '{line}'"):
        lyric_lines(line)


@pytest.mark.parametrize("language", ["ja", "zh-cn", "ko", "ar"])
def test_languages_without_cleaning_are_refused(language: str) -> None:
    assert language not in LANGUAGES
    with pytest.raises(
        UserError, match=f"Lyrics in '{language}' are not supported. Supported languages: en, de"
    ):
        lyric_lines("la", language)
    with pytest.raises(UserError, match=f"Lyrics in '{language}'"):
        lyric_lines(f"[{language}] la")
