"""Captions from files and prompt sets, and tokenizers."""

from pathlib import Path

import pytest

from cache.errors import UserError
from workbench.models import model_source
from workbench.prompts.captions import load_tokenizer, prompt_captions, read_captions
from workbench.prompts.prompt_sets import load_prompt_set


def test_a_text_file_has_one_caption_a_line(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_bytes('\ufeffa fast song\r\n\r\n  \nan élan, "slow"\n'.encode())
    assert read_captions(file) == ["a fast song", 'an élan, "slow"']


def test_a_csv_file_has_a_column_of_captions(tmp_path: Path) -> None:
    file = tmp_path / "captions.CSV"
    file.write_text('number,caption,text\n1,"a fast\nsong",x\n2,,y\n3,NA,z\n')
    assert read_captions(file) == ["a fast\nsong", "NA"]
    assert read_captions(file, "text") == ["x", "y", "z"]
    with pytest.raises(UserError, match=r"no column 'captions'. Its columns are number, caption, text"):
        read_captions(file, "captions")


def test_files_without_captions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_captions(tmp_path / "nowhere.txt")
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_captions(tmp_path)
    file = tmp_path / "captions.txt"
    file.write_text("\n \n")
    with pytest.raises(UserError, match=r"has no captions. Write one per line"):
        read_captions(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_captions(file)


def test_prompts_are_captions() -> None:
    prompts = load_prompt_set("organism")
    assert prompt_captions(prompts, 5, seed=2) == [prompt.text for prompt in prompts.fill(5, 2)]
    assert sorted(prompt_captions(prompts)) == sorted(prompt.text for prompt in prompts.fill(56, 0))
    with pytest.raises(UserError, match="got 57"):
        prompt_captions(prompts, 57)


def test_the_tokenizer_of_a_model_and_of_a_folder() -> None:
    for source in ("organism-shared", str(Path(model_source("organism-shared")) / "tokenizer")):
        tokens = load_tokenizer(source)
        assert len(tokens("a fast song")) == 3
        assert len(tokens("a fast fast song")) == 4


def test_there_is_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"has no tokenizer. Give a model, or a folder with a tokenizer.json"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match="Unknown model 'nothing'"):
        load_tokenizer("nothing")
