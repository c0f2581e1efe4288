"""A small lyric vocabulary in the published layout: tags, letters and two merges."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace

SPECIAL = ("[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[de]", "[fr]", "[verse]", "[inst]")
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéèß',.!?-"


def write_vocabulary(path: Path) -> Path:
    """Write it and return its path; token ids are below 60."""
    tokens = [*SPECIAL, *LETTERS, "th", "the"]
    model = BPE(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[("t", "h"), ("th", "e")],
        unk_token="[UNK]",
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path
