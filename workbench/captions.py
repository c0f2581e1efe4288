"""Captions for counterfactual pairs, from a text file, a CSV file or a prompt set; and tokenizers to align them."""

from collections.abc import Sized
from pathlib import Path
from typing import Any

from cache.errors import UserError
from workbench.counterfactuals import Tokenizer
from workbench.models import model_source
from workbench.prompts import PromptSet
from workbench.tables import read_table


def read_captions(path: Path, column: str = "caption") -> list[str]:
    """The captions of a text file, one a line, or of a column of a CSV file (by its ending); empty ones are left out.

    Raises UserError for a file that is missing, unreadable or without captions, and for an unknown column.
    """
    if path.suffix.lower() == ".csv":
        table = read_table(path)
        if column not in table:
            raise UserError(f"{path} has no column '{column}': its columns are {', '.join(table.columns)}.")
        found = table[column].tolist()
    else:
        found = _read_lines(path)
    captions = [caption for caption in found if caption.strip()]
    if not captions:
        raise UserError(f"{path} has no captions: write one a line, or a column '{column}' of a CSV file.")
    return captions


def prompt_captions(prompts: PromptSet, n: int | None = None, seed: int = 0) -> list[str]:
    """`n` different prompts of a prompt set (default: all), in the order that `seed` draws, as captions.

    Raises UserError when there are fewer.
    """
    return [prompt.text for prompt in prompts.fill(prompts.n_prompts if n is None else n, seed)]


def load_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model (see `model_source`), or one in a folder or on the hub.

    Raises UserError when there is none.
    """
    from transformers import AutoTokenizer  # seconds

    place = source if Path(source).is_dir() else model_source(source)
    tokenizer: Any = None
    # The local cache first: with no network the hub is tried for a while.
    for local_files_only in (True, False):
        for subfolder in ("tokenizer", ""):
            try:
                tokenizer = AutoTokenizer.from_pretrained(
                    place, subfolder=subfolder, local_files_only=local_files_only
                )
            except (OSError, ValueError, KeyError):
                continue
            break
        if tokenizer is not None:
            break
    if tokenizer is None or len(tokenizer) == 0:
        raise UserError(
            f"There is no tokenizer in '{source}': name a model, or a folder with a tokenizer.json."
        )

    def tokens(text: str) -> Sized:
        return tokenizer(text).input_ids

    return tokens


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it as such.") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"There is no file {path}.") from error
