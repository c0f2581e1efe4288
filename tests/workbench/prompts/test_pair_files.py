"""Files of pairs: written and read back, filled up from the attributes, and what a bad one is told."""

import json
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import UserError
from workbench.prompts.attributes import AttributeSet, load_attributes
from workbench.prompts.counterfactuals import build_candidates, kept_pairs
from workbench.prompts.pair_files import complete, load_pairs, pairs_of, read_source, row_problems, save_pairs
from workbench.prompts.prompt_sets import Pair, Prompt, load_prompt_set

HEADER = "original_feature,clean_prompt,corrupted_prompt"


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    """A CSV file of these lines."""
    file = folder / "pairs.csv"
    file.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return file


def refusal(file: Path, attributes: AttributeSet | None = None) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(UserError) as error:
        load_pairs(file, attributes)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    return str(error.value)


# Written and read back


def test_pairs_come_back_as_they_were(tmp_path: Path) -> None:
    captions = ['a "fast", happy violin', "Slow violins, a woman's voice; NA"]
    pairs = kept_pairs(build_candidates(captions, load_attributes()))
    save_pairs(tmp_path / "new" / "pairs.csv", pairs)
    loaded = load_pairs(tmp_path / "new" / "pairs.csv")
    assert list(loaded) == ["female", "fast", "slow", "happy", "violin"]
    assert [pair for each in loaded.values() for pair in each] == pairs
    assert len(loaded["violin"]) == 2


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\",\n\r'")).filter(
    str.strip
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(texts, texts, texts, texts, texts, texts), min_size=1, max_size=5))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, ...]]) -> None:
    pairs = [Pair(a, Prompt(b, {a: c}), Prompt(d, {a: e}), f) for a, b, c, d, e, f in cells]
    file = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    save_pairs(file, pairs)
    assert pairs_of(complete(read_source(str(file)), "file")) == pairs


def test_the_columns_of_the_paper_come_first(tmp_path: Path) -> None:
    save_pairs(tmp_path / "pairs.csv", kept_pairs(build_candidates(["a violin"], load_attributes())))
    table = pd.read_csv(tmp_path / "pairs.csv")
    assert table.iloc[0].to_dict() == {
        "original_feature": "violin",
        "clean_prompt": "a violin",
        "corrupted_prompt": "a trumpet",
        "concept": "violin",
        "counterfactual_feature": "trumpet",
        "scorer_text": "violin",
    }
    assert list(table.columns)[:3] == HEADER.split(",")


def test_pairs_of_a_prompt_set_keep_their_concept_and_values(tmp_path: Path) -> None:
    pairs = load_prompt_set("organism").pairs("tempo", 4, seed=0)
    save_pairs(tmp_path / "pairs.csv", pairs)
    loaded = load_pairs(tmp_path / "pairs.csv")["tempo"]
    assert [(each.clean.text, each.corrupt.text, each.text) for each in loaded] == [
        (each.clean.text, each.corrupt.text, each.text) for each in pairs
    ]
    assert [(each.clean_value, each.corrupt_value) for each in loaded] == [
        (each.clean_value, each.corrupt_value) for each in pairs
    ]


# The paper's columns


def test_a_file_with_the_papers_columns_is_filled_up_from_the_attributes(tmp_path: Path) -> None:
    file = write(tmp_path, "female,a woman,a man", "harmonica,harmonica,harp", "female,a girl,a boy")
    loaded = load_pairs(file)
    assert list(loaded) == ["female", "harmonica"]
    woman, girl = loaded["female"]
    assert woman == Pair(
        "female",
        Prompt("a woman", {"female": "female"}),
        Prompt("a man", {"female": "male"}),
        "female vocal",
    )
    assert (girl.clean.text, girl.corrupt.text) == ("a girl", "a boy")
    (harmonica,) = loaded["harmonica"]
    assert (harmonica.corrupt_value, harmonica.text) == ("harp", "harmonica")


def test_other_columns_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    file = write(tmp_path, "sad,a sad song,a happy song,7", header=f"\ufeff{HEADER},number")
    assert [pair.corrupt.text for pair in load_pairs(file)["sad"]] == ["a happy song"]


def test_a_row_that_says_everything_may_have_its_own_attribute(tmp_path: Path) -> None:
    more = f"{HEADER},counterfactual_feature,scorer_text"
    file = write(tmp_path, "kazoo,a kazoo,a comb,comb,kazoo music", "sad,sad,happy,,", header=more)
    loaded = load_pairs(file)
    assert loaded["kazoo"] == [
        Pair(
            "kazoo", Prompt("a kazoo", {"kazoo": "kazoo"}), Prompt("a comb", {"kazoo": "comb"}), "kazoo music"
        )
    ]
    assert (loaded["sad"][0].corrupt_value, loaded["sad"][0].text) == ("happy", "sad")


def test_own_attributes_fill_up(tmp_path: Path) -> None:
    own = {"kazoo": {"counterfactual": "comb", "text": "buzz", "swaps": {"kazoo": "comb"}}}
    attributes = AttributeSet.model_validate(own)
    file = write(tmp_path, "kazoo,a kazoo,a comb")
    assert load_pairs(file, attributes)["kazoo"][0].text == "buzz"
    assert "attribute 'kazoo' is unknown (the attributes are female, male" in refusal(file)
    file = write(tmp_path, "sad,sad,happy")
    assert "attribute 'sad' is unknown (the attributes are kazoo)" in refusal(file, attributes)


# Bad files


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (['"sad\nx",a,b'], "original_feature must be one line of text without control characters"),
        ([f"{'s' * 5000},a,b"], "original_feature must have at most 200 characters, not 5000"),
        (["sad,a,b", "sad,A,  b"], "row 2: the row is a duplicate"),
        (["sad,a,b", "sad, a  song,A song"], "row 2: clean_prompt and corrupted_prompt are equal."),
        (["kazoo,a,b"], "row 1: the attribute 'kazoo' is unknown (the attributes are female, male, fast"),
        (["sad,,b"], "row 1: clean_prompt is empty"),
        (["sad,a, "], "row 1: corrupted_prompt is empty"),
        ([",a,b"], "row 1: original_feature is empty"),
        (["sad,a,b", "sad,a,a", "sad,b,b", "x,a,b"], "row 2: clean_prompt and corrupted_prompt are equal, and 2"),
        ([], "has no rows. It must have at least one"),
        (["sad,a,b,c,d", "sad,a", "sad,a,b,c,d,e,f"], "cannot be read as a table"),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path: Path, lines: list[str], sentence: str) -> None:
    assert sentence in refusal(write(tmp_path, *lines))


def test_the_same_texts_under_two_attributes_are_no_repetition(tmp_path: Path) -> None:
    assert list(load_pairs(write(tmp_path, "sad,a,b", "slow,a,b", "sad,b,a"))) == ["sad", "slow"]


def test_bad_rows_of_json_lines_are_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    good, bad = (
        json.dumps({"original_feature": "sad", "clean_prompt": "a", "corrupted_prompt": text})
        for text in ("b", "a")
    )
    file.write_text(f"{good}\n\n\n{bad}\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl, line 4: clean_prompt and corrupted_prompt are equal"):
        load_pairs(file)


def test_problems_of_rows_are_told_one_by_one(tmp_path: Path) -> None:
    table = complete(read_source(str(write(tmp_path, "sad,a,b", "sad,a,a", "sad,a,b"))), "file")
    assert row_problems(table).tolist() == [
        "",
        "clean_prompt and corrupted_prompt are equal",
        "the row is a duplicate",
    ]


def test_a_missing_column(tmp_path: Path) -> None:
    file = write(tmp_path, "sad,a", header="original_feature,clean_prompt")
    assert "has no column 'corrupted_prompt'. A file of pairs must have original_feature" in refusal(file)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    assert "There is no file" in refusal(file)
    file.write_bytes(b"")
    assert "is empty. It must have a header" in refusal(file)
    file.write_bytes(f"{HEADER}\nsad,\xff\xfe,b".encode("latin-1"))
    assert "is not UTF-8 text" in refusal(file)
    parquet = tmp_path / "pairs.parquet"
    parquet.write_bytes(b"not parquet")
    assert "cannot be read as a table" in refusal(parquet)


# The hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Downloads give `folder`; returns the list of the names that are asked for."""
    asked = []

    def download(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        assert allow_patterns == ["*.csv", "*.parquet"]
        asked.append(name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def rows(*attributes: str) -> pd.DataFrame:
    """A table in the paper's columns."""
    return pd.DataFrame([(name, f"{name} a", f"{name} b") for name in attributes], columns=HEADER.split(","))


def test_a_data_set_of_the_hub_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    rows("sad", "slow").to_parquet(tmp_path / "data" / "train-0.parquet")
    rows("jazz").to_parquet(tmp_path / "data" / "train-1.parquet")
    asked = fake_hub(monkeypatch, tmp_path)
    table = read_source("some-one/music_prompts.v2")
    assert asked == ["some-one/music_prompts.v2"]
    assert table["original_feature"].tolist() == ["sad", "slow", "jazz"]
    assert table["corrupted_prompt"].tolist() == ["sad b", "slow b", "jazz b"]


def test_a_data_set_of_the_hub_in_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows("sad").to_csv(tmp_path / "all.csv", index=False)
    rows("jazz").to_parquet(tmp_path / "converted.parquet")  # the same once more, as the hub keeps it
    fake_hub(monkeypatch, tmp_path)
    assert read_source("someone/prompts")["original_feature"].tolist() == ["sad"]


def test_a_data_set_without_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="data set someone/prompts has neither CSV nor Parquet files"):
        read_source("someone/prompts")


def test_a_file_here_is_never_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_hub(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    rows("sad").to_csv("folder/pairs.csv", index=False)
    assert len(read_source("folder/pairs.csv")) == 1
    for missing in ("nowhere.csv", "a/b/c", "/tmp/nowhere", "./nowhere", "two words/x"):
        with pytest.raises(UserError, match="There is no file"):
            read_source(missing)
    assert asked == []


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, LocalEntryNotFoundError, ConnectionError])
def test_a_hub_that_fails(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> str:
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="Cannot download the data set 'someone/prompts' from the hub"):
        read_source("someone/prompts")
