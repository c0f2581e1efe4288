"""CLAP with `transformers.ClapModel` and the weights of LAION's checkpoint."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv1d, pad
from transformers import ClapConfig, ClapModel

from cache.errors import UserError
from workbench.scorers.clap import ClapScorer

_HOP = 480  # samples between two frames of the spectrogram, at 48 kHz
_FLOOR = 1e-10  # power
_ROBERTA_NORM_EPS = 1e-5  # ClapTextConfig's default, 1e-12, is not RoBERTa's
_HEAD_DIM = 64  # of RoBERTa

# Tensors of the checkpoint that `ClapModel` does not have: the classifier from HTSAT's pretraining, heads used
# only in training, masks that are recomputed, and the spectrogram's matrices (see `LogMel`).
_UNUSED = re.compile(
    r"audio_branch\.(tscam_conv|head|spectrogram_extractor|logmel_extractor)\.|(audio|text)_transform\.|.*\.attn_mask$"
)
_RENAMES = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
    (r"\.bn0\.", ".batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


class TransformersClapScorer(ClapScorer):
    """CLAP scores without the laion-clap package; the numbers are the package's up to rounding."""

    name = "clap"

    def _build(self, state: dict[str, Tensor]) -> None:
        self._log_mel = LogMel(state)
        self._model = convert(state).eval()

    def _embed_windows(self, windows: Float[Tensor, "window sample"]) -> Float[Tensor, "window dim"]:
        return self._model.get_audio_features(self._log_mel(windows)).pooler_output

    def _embed_tokens(
        self, ids: Int[Tensor, "text token"], mask: Int[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        return self._model.get_text_features(ids, mask).pooler_output


class LogMel(torch.nn.Module):
    """Log mel spectrogram by the checkpoint's own windowed Fourier and mel matrices.

    The network was trained behind them, and the package uses them, so that both spectrograms are equal.
    `ClapFeatureExtractor` by default begins at 0 Hz instead of 50 Hz, and rounds differently.
    """

    real: Float[Tensor, "frequency 1 lag"]
    imaginary: Float[Tensor, "frequency 1 lag"]
    mel: Float[Tensor, "frequency mel"]

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        fourier = "audio_branch.spectrogram_extractor.stft.conv_"
        self.register_buffer("real", state[fourier + "real.weight"])
        self.register_buffer("imaginary", state[fourier + "imag.weight"])
        self.register_buffer("mel", state["audio_branch.logmel_extractor.melW"])

    def forward(self, windows: Float[Tensor, "window sample"]) -> Float[Tensor, "window 1 frame mel"]:
        """Power in dB, at least -100, of frames 10 ms apart, the first centred on the first sample."""
        half = self.real.shape[-1] // 2
        padded = pad(windows[:, None], (half, half), mode="reflect")
        power = conv1d(padded, self.real, stride=_HOP) ** 2 + conv1d(padded, self.imaginary, stride=_HOP) ** 2
        return 10.0 * torch.log10((power.mT @ self.mel).clamp(min=_FLOOR))[:, None]


def convert(state: dict[str, Tensor]) -> ClapModel:
    """Make a `ClapModel` with the tensors of a LAION checkpoint; raise UserError if they do not match."""
    with torch.device("meta"):  # skips random initialisation: every tensor is replaced below
        model = ClapModel(ClapConfig(text_config=text_sizes(state), audio_config=audio_sizes(state)))
    try:
        model.load_state_dict(dict(_renamed(state)), assign=True)
    except RuntimeError as error:
        raise UserError("The CLAP checkpoint does not match an HTSAT network without fusion.") from error
    return model


def text_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """RoBERTa's configuration, read off the tensors' shapes. Raises `KeyError` for a missing tensor."""
    branch = "text_branch.embeddings."
    words = state[branch + "word_embeddings.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "num_hidden_layers": _count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": words.shape[1] // _HEAD_DIM,
        "intermediate_size": state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state[branch + "position_embeddings.weight"].shape[0],
        "type_vocab_size": state[branch + "token_type_embeddings.weight"].shape[0],
        "layer_norm_eps": _ROBERTA_NORM_EPS,
    }


def audio_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """HTSAT's configuration, read off the tensors' shapes. Raises `KeyError` for a missing tensor."""
    stages = range(_count(state, r"audio_branch\.layers\.(\d+)\."))
    table = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    return {
        "hidden_size": state["audio_projection.0.weight"].shape[1],
        "patch_embeds_hidden_size": state["audio_branch.patch_embed.proj.weight"].shape[0],
        "depths": [_count(state, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "num_attention_heads": [state[table.format(stage)].shape[1] for stage in stages],
    }


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _renamed(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under `ClapModel`'s names; a joint query-key-value matrix yields three."""
    for key, tensor in state.items():
        if _UNUSED.match(key):
            continue
        for pattern, replacement in _RENAMES:
            key = re.sub(pattern, replacement, key)
        if ".qkv." in key:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                yield key.replace(".qkv.", f".{part}."), third
        else:
            yield key, tensor
    # Index tables that `ClapModel` keeps among its tensors.
    table = state["text_branch.embeddings.position_embeddings.weight"]
    positions = torch.arange(len(table), device=table.device)[None]
    yield "text_model.embeddings.position_ids", positions
    yield "text_model.embeddings.token_type_ids", torch.zeros_like(positions)
