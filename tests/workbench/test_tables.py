"""Tables of others: what their rows say, in every form that data sets have, and what a bad one is told."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cache.errors import UserError
from workbench.prompts.captions import read_captions
from workbench.tables import read_table, text_columns

CAPTIONS = ['a "slow", sad song; NA', "None", "a\u2028b", "NA", "null", "1.0"]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """A file of this content."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def quoted(separator: str, header: str = "id{}caption") -> str:
    """The captions as CSV."""
    cells = ['"' + text.replace('"', '""') + '"' for text in CAPTIONS]
    return "\r\n".join([header.format(separator), *(f"1{separator}{cell}" for cell in cells)]) + "\r\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", quoted(",")),
        ("c.csv", "\ufeff" + quoted(",") + "\r\n\r\n"),
        ("c.csv", quoted(", ")),
        ("c.csv", quoted(";", "id{} Caption ")),
        ("c.CSV", quoted("\t")),
        ("c.tsv", quoted("\t", "ID{}CAPTION")),
        ("c.jsonl", "\n\n".join(json.dumps({"caption": text, "tags": ["x"]}) for text in CAPTIONS)),
        ("c.ndjson", "\r\n".join(json.dumps({"caption": text}, ensure_ascii=False) for text in CAPTIONS)),
        ("c.json", json.dumps([{"Caption": text, "id": 1} for text in CAPTIONS])),
        ("c.txt", "\n\n" + "\r\n".join(CAPTIONS)),
    ],
)
def test_captions_of_every_form_are_the_same(tmp_path: Path, name: str, content: str) -> None:
    assert read_captions(written(tmp_path, name, content)) == CAPTIONS


def test_captions_of_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"caption": [*CAPTIONS, None, ""], "n": 1}).to_parquet(tmp_path / "c.parquet")
    assert read_captions(tmp_path / "c.parquet") == CAPTIONS


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "c.jsonl",
            '{"caption": "a"}\n\n{"caption": null}\n{"id": 1}\n{"caption": " "}',
            "3 rows without a caption, skipped here; the first is line 3.",
        ),
        (
            "c.json",
            '[{"caption": "a"}, {"caption": ""}]',
            "1 row without a caption, skipped here; the first is row 2.",
        ),
        ("c.csv", "id,caption\n1,\n2,a\n", "1 row without a caption, skipped here; the first is row 1."),
        ("c.csv", "caption\n\na\n", ""),
        ("c.txt", "\na\n\n", ""),
    ],
)
def test_rows_without_a_caption_are_counted(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    notes: list[str] = []
    assert read_captions(written(tmp_path, name, content), note=notes.append) == ["a"]
    assert [note.partition(" has ")[2] for note in notes] == ([sentence] if sentence else [])


@pytest.mark.parametrize("index", [["x", "y"], [7, 7], pd.Index([5, 6], name="line")])
def test_rows_of_parquet_are_counted_whatever_their_index(tmp_path: Path, index: object) -> None:
    pd.DataFrame({"caption": ["a", ""]}, index=index).to_parquet(tmp_path / "c.parquet")
    notes: list[str] = []
    assert read_captions(tmp_path / "c.parquet", note=notes.append) == ["a"]
    assert notes[0].endswith("the first is row 2.")


def test_a_column_is_found_in_other_capitals_where_it_is_the_only_one(tmp_path: Path) -> None:
    both = written(tmp_path, "both.csv", "Caption,caption,TEXT\na,b,c\n")
    assert read_captions(both) == ["b"]
    assert read_captions(both, "text") == ["c"]
    with pytest.raises(UserError, match=r"no column 'CAPTION'. Its columns are Caption, caption, TEXT"):
        read_captions(both, "CAPTION")


def test_numbers_and_truth_values_are_text_and_nothing_is_empty(tmp_path: Path) -> None:
    file = written(tmp_path, "c.jsonl", '{"a": 5}\n{"a": true}\n{"a": null}\n{"b": 1}\n{"a": "x"}')
    assert text_columns(read_table(file), ["a", "missing"], "file").to_dict("list") == {
        "a": ["5", "True", "", "", "x"]
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("c.csv", "id,caption\n1,a,b\n", "row 1 below the header has 3 cells, but the header has 2"),
        ("c.csv", "id,caption\n1,a\nrest\n", "row 2 below the header has 1 cells"),
        ("c.csv", "id,caption\n1,a\n1,b,c\n", "row 2 below the header has 3 cells"),
        ("c.csv", "caption\na song, with drums\n", "row 1 below the header has 2 cells"),
        ("c.csv", 'id,caption\n1,"a\n', "cannot be read as a table"),
        ("c.csv", 'id,caption\n1,"a"b\n', "cannot be read as a table"),
        ("c.csv", "caption,caption\na,b\n", "has the column 'caption' twice"),
        ("c.csv", b"caption\ncaf\xe9\n", "is not UTF-8 text"),
        ("c.tsv", "", "is empty"),
        ("c.tsv", "caption\n\n", "has no rows"),
        ("c.jsonl", "", "has no rows"),
        ("c.jsonl", '{"caption": "a"}\nb\n', "c.jsonl, line 2, is not valid JSON"),
        ("c.jsonl", '{"caption": "a"}\n\n \r\nb\n', "c.jsonl, line 4, is not valid JSON"),
        ("c.ndjson", '\n{"caption": "a", "caption": "b"}', "c.ndjson, line 2, has the key 'caption' twice"),
        ("c.jsonl", '{"caption": "a", "caption": "b"}', "has the key 'caption' twice"),
        ("c.jsonl", "{}\n\n{}", "has no rows"),
        ("c.jsonl", '["a"]', "each row must be an object"),
        ("c.json", '{"caption": ["a"]}', "each row must be an object"),
        ("c.json", "[", "is not valid JSON"),
        ("c.json", "[]", "has no rows"),
        ("c.json", '[{"caption": ["a", "b"]}]', "in its column 'caption'; got a list"),
        ("c.json", '[{"caption": {"text": "b"}}]', "in its column 'caption'; got a dict"),
        ("c.parquet", "x", "cannot be read as a table"),
        ("c.txt", '{"caption": "a"}\n', "looks like a table. Rename it"),
        ("c.txt", '[\n{"caption": "a"}]', "looks like a table"),
        ("c", '\n[{"caption": "a"}]', "looks like a table"),
        ("c.txt", "id\tcaption\n1\ta\n", "looks like a table"),
        ("c.txt", '"Caption";"id"\n1;a\n', "looks like a table"),
        ("c.txt", b"\xff\xfea\x00", "is not UTF-8 text"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        read_captions(written(tmp_path, name, content))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_in_parquet_are_no_captions(tmp_path: Path) -> None:
    pd.DataFrame({"caption": [["a"], ["b", "c"]]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(UserError, match="must have text in its column 'caption'"):
        read_captions(tmp_path / "c.parquet")
