"""A tiny CLAP with random weights in LAION's checkpoint format, and a tokenizer to go with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import ClapConfig, ClapModel

from workbench.scorers.librosa_import import import_librosa

WORDS = 400
TINY_HTSAT: dict[str, Any] = {
    "hidden_size": 128,
    "patch_embeds_hidden_size": 16,
    "depths": [2, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
}
_AUDIO_NAMES = (
    ("audio_model.audio_encoder", "audio_branch"),
    ("batch_norm", "bn0"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.output.dense", "attn.proj"),
    ("attention.self", "attn"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_OTHER_NAMES = (("text_model", "text_branch"), ("linear1", "0"), ("linear2", "2"))


def tiny_state() -> dict[str, torch.Tensor]:
    """Random tensors of a small network, with LAION's names."""
    generator = torch.Generator().manual_seed(0)
    model = ClapModel(
        ClapConfig(
            text_config={
                "vocab_size": WORDS,
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "intermediate_size": 32,
                "max_position_embeddings": 80,
            },
            audio_config=TINY_HTSAT,
        )
    )
    tensors = model.state_dict()
    state = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor = torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
        if ".key." in name or ".value." in name:
            continue
        if ".self.query." in name and name.startswith("audio"):
            parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
            tensor = torch.cat([torch.randn(part.shape, generator=generator) * 0.2 for part in parts])
            name = name.replace("query", "qkv")
        for theirs, laion in _AUDIO_NAMES if name.startswith("audio_model") else _OTHER_NAMES:
            name = name.replace(theirs, laion)
        state[name] = tensor
    for name in ("key", "value"):  # the text's stay apart
        for part in ("weight", "bias"):
            key = f"encoder.layer.0.attention.self.{name}.{part}"
            state[f"text_branch.{key}"] = tensors[f"text_model.{key}"]
    del state["text_branch.embeddings.token_type_ids"]  # not stored by RoBERTa
    state["audio_branch.bn0.running_mean"].fill_(-40.0)
    state["audio_branch.bn0.running_var"].fill_(400.0)
    return state | _spectrogram_state() | _unused_state()


def _spectrogram_state() -> dict[str, torch.Tensor]:
    time, frequency = np.arange(1024), np.arange(513)[:, None]
    fourier = np.hanning(1025)[:-1] * np.exp(-2j * np.pi * frequency * time / 1024)
    mel = import_librosa().filters.mel(sr=48000, n_fft=1024, n_mels=64, fmin=50, fmax=14000)
    return {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.tensor(
            fourier.real[:, None]
        ).float(),
        "audio_branch.spectrogram_extractor.stft.conv_imag.weight": torch.tensor(
            fourier.imag[:, None]
        ).float(),
        "audio_branch.logmel_extractor.melW": torch.tensor(mel.T),
    }


def _unused_state() -> dict[str, torch.Tensor]:
    names = (
        "audio_branch.tscam_conv.weight",
        "audio_branch.head.bias",
        "audio_transform.sequential.0.weight",
    )
    return {name: torch.zeros(2) for name in (*names, "audio_branch.layers.0.blocks.1.attn_mask")}


def save_checkpoint(path: Path, state: dict[str, Any]) -> Path:
    """A checkpoint as LAION's training writes it, with parallel training's prefix and NumPy numbers in its log."""
    named = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 15, "name": "tiny", "esc": np.float64(0.9014), "state_dict": named}, path)
    return path


def save_tokenizer(folder: Path, entries: int = 50_265) -> Path:
    """A byte-level tokenizer in RoBERTa's format: texts use the first 261 entries, the others are padding."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *characters]
    words += [f"filler-{number}" for number in range(entries - len(words))]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def notes(*frequencies: float, seconds: float, sample_rate: int = 48_000) -> np.ndarray:
    """Stereo clips (clip, channel, sample) of decaying notes of one frequency, with a little noise."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(0).standard_normal((len(frequencies), 2, len(time)))
    tones = np.stack([np.sin(2 * np.pi * f * time) * np.exp(-3 * (time % 0.5)) for f in frequencies])
    return (0.5 * tones[:, None] + 0.01 * noise).astype(np.float32)
