"""Captions for counterfactual pairs, from a text file, a table or a prompt set; and tokenizers to align them."""

import logging
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

from cache.errors import UserError
from cache.wording import counted
from workbench.models import model_source
from workbench.prompts.counterfactuals import Tokenizer
from workbench.prompts.defaults import CAPTION_COLUMN
from workbench.prompts.prompt_sets import PromptSet
from workbench.tables import TABLE_ENDINGS, place, read_table, text_columns
from workbench.text_files import LARGEST_TABLE, read_text, text_lines

_log = logging.getLogger(__name__)


def read_captions(
    path: Path, column: str = CAPTION_COLUMN, note: Callable[[str], None] = _log.warning
) -> list[str]:
    """Read captions from a text file with one per line, or from a column of a table (see `read_table`).

    Empty lines and rows without a caption are skipped; `note` is called with a sentence on such rows.

    Raises:
        UserError: if the file is missing, unreadable or without captions, the column is unknown, or the file is a table
            with the ending of a text file.
    """
    if path.suffix.lower() in TABLE_ENDINGS:
        table = read_table(path)
        texts = text_columns(table, [column], str(path))
        if texts.empty:
            names = ", ".join(map(str, table.columns))
            raise UserError(f"{path} has no column '{column}'. Its columns are {names}.")
        found = texts[column].tolist()
        empty = texts.index[texts[column].str.strip() == ""]
        if 0 < len(empty) < len(texts):
            note(
                f"{path} has {counted(len(empty), 'row')} without a caption, skipped here; the first is "
                f"{place(texts, empty[0])}."
            )
    else:
        found = text_lines(read_text(path, LARGEST_TABLE))
        _refuse_table(found, path, column)
    captions = [caption for caption in found if caption.strip()]
    if not captions:
        raise UserError(f"{path} has no captions. Write one per line, or a table with the column '{column}'.")
    return captions


def prompt_captions(prompts: PromptSet, n: int | None = None, seed: int = 0) -> list[str]:
    """Return `n` different prompts of a prompt set (default: all) as captions, in an order drawn with `seed`.

    Raises:
        UserError: if there are fewer.
    """
    return [prompt.text for prompt in prompts.fill(prompts.n_prompts if n is None else n, seed)]


def load_tokenizer(source: str) -> Tokenizer:
    """Load the tokenizer of a model (see `model_source`), or one in a folder or on the hub.

    Raises:
        UserError: if there is none.
    """
    from transformers import AutoTokenizer  # slow to import

    place = source if Path(source).is_dir() else model_source(source)
    tokenizer: Any = None
    # The local cache first: without a network, asking the hub takes a while to fail.
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
        raise UserError(f"'{source}' has no tokenizer. Give a model, or a folder with a tokenizer.json.")

    def tokens(text: str) -> Sized:
        return tokenizer(text).input_ids

    return tokens


def _refuse_table(lines: list[str], path: Path, column: str) -> None:
    """Raise UserError if the lines are a table or JSON, whose syntax would be read as captions."""
    first = next((line.strip() for line in lines if line.strip()), "")
    names = [{name.strip(' "').casefold() for name in first.split(separator)} for separator in ",;\t"]
    is_header = any(len(cells) > 1 and column.casefold() in cells for cells in names)
    if is_header or first.startswith(("{", "[{", '["')) or first == "[":
        raise UserError(
            f"{path} must have one caption per line, but looks like a table. Rename it to end in one of "
            f"{', '.join(TABLE_ENDINGS)}, and give --column."
        )
