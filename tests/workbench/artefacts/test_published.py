"""Published tables are read as they are written, and what is wrong with one is told."""

from pathlib import Path

import pytest

from cache.errors import UserError
from workbench.artefacts.published import load_published, published_impacts, published_models

FULL = """model,metric,concept,block,attn,impact
small,clap,fast,tf0,cross,0
small,clap,fast,tf1,cross,0.25
small,clap,slow,tf0,cross,
large,clap,fast,tf0,cross,1.25
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_models_impacts_are_read(tmp_path: Path) -> None:
    table = load_published(write(tmp_path, FULL))
    assert published_models(table) == ["small", "large"]
    impacts = published_impacts(table, "small").set_index(["concept", "block"])["impact"]
    assert impacts["fast", "tf0"] == 0
    assert impacts["fast", "tf1"] == 0.25
    assert impacts.isna()["slow", "tf0"]
    assert published_impacts(table, "large")["impact"].tolist() == [1.25]


def test_metric_and_attention_may_be_missing(tmp_path: Path) -> None:
    table = load_published(write(tmp_path, "block,impact,model,concept\ntf7,0.5,one,fast\n"))
    assert published_impacts(table).to_dict("records") == [{"concept": "fast", "block": "tf7", "impact": 0.5}]
    assert table["metric"].tolist() == [""]


def test_an_unknown_model_is_told_with_the_list(tmp_path: Path) -> None:
    table = load_published(write(tmp_path, FULL))
    with pytest.raises(UserError, match=r"no model 'medium'.*small, large"):
        published_impacts(table, "medium")
    with pytest.raises(UserError, match=r"several models.*small, large"):
        published_impacts(table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "model,concept,block\na,b,tf0\n",
            "lacks the column impact. Required: model, concept, block, impact",
        ),
        ("concept,impact\nfast,1\n", "lacks the columns model, block"),
        ("model,concept,block,impact\na,b,tf0,much\n", "impact 'much' in row 1"),
        ("", "is empty"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as told:
        load_published(write(tmp_path, text))
    assert words in str(told.value)


def test_a_missing_file_and_a_binary_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*none\.csv"):
        load_published(tmp_path / "none.csv")
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_published(tmp_path / "table.csv")


def test_two_metrics_of_one_block_are_not_mixed(tmp_path: Path) -> None:
    table = load_published(write(tmp_path, FULL + "small,muq,fast,tf0,cross,0.5\n"))
    with pytest.raises(
        UserError, match=r"several impacts of tf0 on fast for small.*Keep only the rows of one metric"
    ):
        published_impacts(table, "small")
    assert len(published_impacts(table, "large")) == 1
