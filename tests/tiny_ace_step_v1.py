"""A random ACE-Step v1 small enough for tests, in the published layout: two blocks, width 32, 48 kHz stereo."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tests.tiny_ace_step_v1_audio import save_tiny_audio
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer

WORDS = (
    *("a", "the", "song", "slow", "fast", "happy", "sad", "violin", "flute", "no", "calm"),
    *("with", "without", "drums", "at", "tempo", "mood", "lead", "by", "and"),
)
TRANSFORMER: dict[str, Any] = {
    "num_layers": 2,
    "inner_dim": 32,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "mlp_ratio": 2.0,
    "text_embedding_dim": 16,
    "speaker_embedding_dim": 4,
    "ssl_latent_dims": [4, 4],
    "lyric_encoder_vocab_size": 300,
    "lyric_hidden_size": 16,
    "lyric_attention_heads": 2,
    "lyric_linear_units": 32,
}


def save_tiny_v1(folder: Path, **changes: Any) -> Path:
    """Write the published folders with random weights; `changes` modify the transformer's configuration."""
    torch.manual_seed(0)
    transformer = AceStepV1Transformer(**(TRANSFORMER | changes))
    for block in transformer.transformer_blocks:  # so that the prompt has an audible effect at this width
        block.cross_attn.to_out[0].weight.data *= 20
        block.cross_attn.to_v.weight.data *= 5
    transformer.save_pretrained(folder / "ace_step_transformer")
    save_text_encoder(folder / "umt5-base")
    save_tiny_audio(folder)
    return folder


def save_text_encoder(folder: Path) -> None:
    """UMT5 with ten layers, to include the two that guidance weakens."""
    torch.manual_seed(1)
    config = UMT5Config(
        vocab_size=len(WORDS) + 3,
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=10,
        num_heads=4,
        tie_word_embeddings=False,
    )
    UMT5EncoderModel(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
