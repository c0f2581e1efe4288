"""A tiny MuQ-MuLan with random weights in the folders that its package loads; runs with transformers 4 and 5."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers

RATE = 24_000
TEXTS = ("violin", "a slow song with drums")
_CONFORMER = {
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_depthwise_kernel_size": 5,
    "num_conv_pos_embeddings": 16,
    "position_embeddings_type": "rotary",
}


def save_muq_mulan(folder: Path) -> Path:
    """Write the model and its two parts below a folder; return the model's folder."""
    from muq import MuQ, MuQConfig, MuQMuLan, MuQMuLanConfig
    from muq.muq_mulan.muq_mulan import (
        AudioTransformerConfig,
        ModalModelConfig,
        MuLanConfig,
        TextTransformerConfig,
    )

    torch.manual_seed(0)
    muq, roberta = folder / "muq-tiny", folder / "xlm-roberta-tiny"
    conformer = transformers.Wav2Vec2ConformerConfig(hidden_size=32, num_hidden_layers=2, **_CONFORMER)
    audio = MuQConfig(
        encoder_dim=32,
        encoder_depth=2,
        conv_dim=8,
        codebook_size=16,
        stat={"melspec_2048_mean": 0.0, "melspec_2048_std": 20.0},
        w2v2_config=json.loads(json.dumps(conformer.to_dict())),
    )
    MuQ(audio).save_pretrained(muq)
    words = _save_tokenizer(roberta)
    settings = transformers.XLMRobertaConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=80,
    )
    transformers.XLMRobertaModel(settings).save_pretrained(roberta)
    config = MuQMuLanConfig(
        mulan=MuLanConfig(dim_latent=16),
        audio_model=ModalModelConfig(name=str(muq), model_dim=32, use_layer_idx=1),
        text_model=ModalModelConfig(name=str(roberta), model_dim=32),
        audio_transformer=AudioTransformerConfig(dim=32, tf_depth=1, heads=2, dim_head=16),
        text_transformer=TextTransformerConfig(dim=32, tf_depth=1, heads=2, dim_head=16),
    )
    MuQMuLan(asdict(config)).save_pretrained(folder / "mulan")
    return folder / "mulan"


def _save_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = " abcdefghijklmnopqrstuvwxyzTihs"
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(set(letters))]
    tokenizer = Tokenizer(
        models.BPE({word: number for number, word in enumerate(vocabulary)}, [], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(vocabulary)


def clip(seconds: float) -> np.ndarray:
    """Return a mono clip (sample,) of a gliding tone at `RATE`."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 * time + 30 * time**2))).astype(np.float32)


if __name__ == "__main__":  # writes what the package gives with transformers 4
    from muq import MuQMuLan

    model = MuQMuLan.from_pretrained(sys.argv[1]).eval()
    with torch.no_grad():
        music = torch.cat([model(wavs=torch.from_numpy(clip(length))[None]) for length in (4, 12)])
        words = torch.cat([model(texts=[f"This is a music of {text}"]) for text in TEXTS])
    Path(sys.argv[2]).write_text(json.dumps(model.calc_similarity(music, words).tolist()) + "\n")
