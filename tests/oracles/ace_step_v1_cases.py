"""Small random configurations of ACE-Step v1's denoiser and their inputs, shared by the original and this project."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

LAYERS = {0: 1, 1: 2, 2: 3, 3: 4, 4: 2, 5: 17, 6: 22, 7: 1}
"""Layers by seed. Seeds 17 and 22 have some, or all and more, of the blocks whose queries are weakened."""

ERG_SEEDS = tuple(seed for seed, layers in LAYERS.items() if layers > 15)

INSTRUMENTAL_SEED = 7
"""The seed of the case in which no row has lyrics."""


@dataclass(frozen=True)
class Case:
    """A configuration, and the lengths of each row's text and lyrics (0: none) and of its latents, in frames."""

    seed: int
    config: dict[str, Any]
    text_lengths: tuple[int, ...]
    lyric_lengths: tuple[int, ...]
    frame_lengths: tuple[int, ...]

    def normal(self, name: str, *shape: int) -> np.ndarray:
        """Standard normals for an input, from the seed and its name."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())]).standard_normal(shape)

    def inputs(self) -> dict[str, np.ndarray]:
        """Floats in float64, token ids and masks in int64; padding contains values that must not matter."""
        rows, config = len(self.text_lengths), self.config
        masks = {
            "text_mask": mask(self.text_lengths),
            "lyric_mask": mask(tuple(max(length, 1) for length in self.lyric_lengths)),
            "frame_mask": mask(self.frame_lengths),
        }
        for row, length in enumerate(self.lyric_lengths):
            masks["lyric_mask"][row, length:] = 0
        text = self.normal("text", *masks["text_mask"].shape, config["text_embedding_dim"])
        text[masks["text_mask"] == 0] = 3.0
        draws = np.random.default_rng([self.seed, 5])
        tokens = draws.integers(1, config["lyric_encoder_vocab_size"], masks["lyric_mask"].shape)
        tokens[np.array(self.lyric_lengths) == 0] = 0
        return masks | {
            "text": text,
            "speaker": self.normal("speaker", rows, config["speaker_embedding_dim"]),
            "lyric_tokens": tokens,
            "latents": self.normal("latents", rows, 8, 16, max(self.frame_lengths)),
            "timestep": draws.uniform(1, 1000, rows),
        }


def mask(lengths: tuple[int, ...]) -> np.ndarray:
    """A mask with ones in each row up to its length, then zeros."""
    return (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)


def case(seed: int) -> Case:
    """The case of a seed, a key of `LAYERS`."""
    draws = np.random.default_rng([seed, 3])

    def one(*options: Any) -> Any:
        return options[draws.integers(len(options))]

    deep = LAYERS[seed] > 15
    heads, head_dim = (2, 4) if deep else (one(1, 2, 3), one(4, 6, 8, 10))
    lyric_heads, lyric_head_dim = one(1, 2, 4), one(4, 6)
    rows = one(2, 3)
    lyric_lengths = draws.integers(2, 8, rows)
    if seed % 2:
        lyric_lengths[draws.integers(rows)] = 0
    if seed == INSTRUMENTAL_SEED:
        lyric_lengths[:] = 0
    return Case(
        seed=seed,
        config={
            "num_layers": LAYERS[seed],
            "inner_dim": heads * head_dim,
            "attention_head_dim": head_dim,
            "num_attention_heads": heads,
            "mlp_ratio": one(1.5, 2.5, 3.3),
            "rope_theta": one(1e4, 1e6),
            "speaker_embedding_dim": one(3, 5),
            "text_embedding_dim": one(6, 9),
            "ssl_latent_dims": [one(3, 4), one(5, 7)],
            "lyric_encoder_vocab_size": one(11, 17),
            "lyric_hidden_size": lyric_heads * lyric_head_dim,
            "max_position": 64,
            "lyric_attention_heads": lyric_heads,
            "lyric_linear_units": one(10, 24),
            "lyric_num_blocks": 6,
        },
        text_lengths=tuple(draws.integers(1, 7, rows).tolist()),
        lyric_lengths=tuple(lyric_lengths.tolist()),
        frame_lengths=tuple(draws.integers(3, 8, rows).tolist()),
    )
