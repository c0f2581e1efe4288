"""Files that people wrote: what they say, and the one sentence for each thing that can be wrong with them."""

import os
from pathlib import Path

import pytest

from analyses.patching.asking import asked_spec
from cache.errors import UserError
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.prompts.attributes import load_attributes
from workbench.prompts.prompt_sets import load_prompt_set
from workbench.studies.study import Study
from workbench.text_files import LARGEST_DOCUMENT, parse_json, read_document, read_text, text_lines

READERS = {
    "prompts": lambda _, file: load_prompt_set(str(file)),
    "attributes": lambda _, file: load_attributes(str(file)),
    "arms": lambda study, file: asked_spec(study, arms=file),
}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def written(folder: Path, content: bytes | str, name: str = "file.yaml") -> Path:
    """A file of this content."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refusal(file: Path) -> str:
    """The sentence with which a document is refused."""
    with pytest.raises(UserError) as error:
        read_document(file, f"The prompt set {file.name}")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["file.yaml", "file.json"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_documents_takes_one_that_is_too_large(
    tiny: AceStep15, tmp_path: Path, reader: str, name: str
) -> None:
    study = Study.create(tmp_path / "study", study_spec(tiny), tiny.describe(), str)
    for size, sentence in (
        (LARGEST_DOCUMENT, "not valid|must be|arms"),
        (LARGEST_DOCUMENT + 1, "at most 4,194,304"),
    ):
        file = written(tmp_path, "x" * size, name)
        with pytest.raises(UserError, match=sentence) as refused:
            READERS[reader](study, file)
        assert ("must have at most" in str(refused.value)) == (size > LARGEST_DOCUMENT)


def test_all_that_yaml_says_is_text(tmp_path: Path) -> None:
    text = "\ufeffa: yes\r\nb: [1990, 80s, ~x, 1_000]\r\n'null': \"\"\r\n? long\r\n: {on: off}\r\n# a comment\r\n"
    assert read_document(written(tmp_path, text), "file") == {
        "a": "yes",
        "b": ["1990", "80s", "~x", "1_000"],
        "null": "",
        "long": {"on": "off"},
    }


def test_an_alias_is_what_it_names(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, "a: &x {b: c}\nd: *x\ne: *x"), "file") == {
        "a": {"b": "c"},
        "d": {"b": "c"},
        "e": {"b": "c"},
    }


def test_json_keeps_its_types(tmp_path: Path) -> None:
    file = written(tmp_path, '\ufeff{"a": ["x", 1, null]}', "file.JSON")
    assert read_document(file, "file") == {"a": ["x", 1, None]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: x\nb: {c: x, d: y, c: z}", "file.yaml, line 2, has the key 'c' twice"),
        ("- {yes: x, 'yes': y}", "has the key 'yes' twice"),
        ("a: x\nb:", "line 2, has an empty value"),
        ("a: null", "has an empty value"),
        ("{a: ~}", "has an empty value"),
        ("null: a", "has an empty value"),
        ("? [a]\n: b", "has a key that is not text"),
        ("a: &a {b: c}\nd: {<<: *a}", "has a merge key"),
        ("a: !!python/object/apply:os.system [echo]", "line 1, has the tag"),
        ("a: !include other.yaml", "has the tag !include"),
        ("a: !!int 3", "has the tag"),
        ("a: [b", "is not valid YAML in line"),
        ("a: b: c", "is not valid YAML in line 1: mapping values are not allowed here."),
        ("a: *nothing", "is not valid YAML in line 1"),
        ("a: x\n---\nb: x", "is not valid YAML in line 2"),
        ("a: \x1b[31m", "is not valid YAML"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("[" * 60 + "]" * 60, "is nested too deeply"),
        ("[" * 100_000, "is nested too deeply"),
        ("a: " + "{b: " * 60, "is not valid YAML"),
        ("&a [*a]", "is nested too deeply"),
        (BOMB, "has more than 200,000 values"),
        ("x" * (LARGEST_DOCUMENT + 1), "at most 4,194,304 bytes"),
        (b"caf\xe9", "is not UTF-8 text"),
        ("caf\xe9".encode("utf-16"), "is not UTF-8 text"),
        ("cafe".encode("utf-16-le"), "is not UTF-8 text"),
        ("cafe".encode("utf-32"), "is not UTF-8 text"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_documents_that_are_refused(tmp_path: Path, content: bytes | str, sentence: str) -> None:
    assert sentence in refusal(written(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "has the key 'b' twice"),
        ('[{"a": 1}, {"a": 1, "a": 1}]', "has the key 'a' twice"),
        ('{"a": NaN}', "has the value NaN"),
        ("[-Infinity]", "has the value -Infinity"),
        ("[" * 100_000, "is nested too deeply"),
        ("1" * 5000, "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_json_that_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match="The file of arms") as error:
        parse_json(text, "The file of arms")
    assert sentence in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, sentence in {
        tmp_path / "nowhere": "There is no file",
        tmp_path: "is a folder, not a file",
        written(tmp_path, "x") / "below": "There is no file",
        Path("x" * 5000): "cannot be read",
    }.items():
        with pytest.raises(UserError, match=sentence):
            read_text(path, LARGEST_DOCUMENT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a file"):
        read_text(tmp_path / "pipe", LARGEST_DOCUMENT)


def test_lines_end_at_newlines_only() -> None:
    text = "one\u2028still one\r\ntwo\x0bstill two\x85\x0c\x1c\n\nfour"
    assert text_lines(text) == ["one\u2028still one", "two\x0bstill two\x85\x0c\x1c", "", "four"]
