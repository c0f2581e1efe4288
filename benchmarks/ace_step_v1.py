"""ACE-Step v1 at its published size with random weights: time and peak memory.

Run as `python -m benchmarks.ace_step_v1 --device cuda` on a machine with a GPU (8 GiB of disk for the weights), or with
fewer `--blocks` and `--steps` on a CPU. `benchmarks.published_size` describes the measurements.
"""

from pathlib import Path

from diffusers import AutoencoderDC
from transformers import UMT5Config, UMT5EncoderModel

from benchmarks.published_size import VOCABULARY, random_weights, run, word_tokenizer
from workbench.models.ace_step_v1.pipeline import AceStepV1Pipeline
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder

PUBLISHED_DCAE = {
    "in_channels": 2,
    "latent_channels": 8,
    "encoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [128, 256, 512, 1024],
    "decoder_block_out_channels": [128, 256, 512, 1024],
    "encoder_layers_per_block": [2, 2, 3, 3],
    "decoder_layers_per_block": [3, 3, 3, 3],
    "encoder_qkv_multiscales": [[], [], [5], [5]],
    "decoder_qkv_multiscales": [[], [], [5], [5]],
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
}
UMT5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12}


def save_random_model(folder: Path, blocks: int, device: str) -> None:
    """Write a pipeline of the published size, except for the number of blocks, with random weights in bf16."""
    with random_weights(device):
        parts = {
            "transformer": AceStepV1Transformer(num_layers=blocks),
            "text_encoder": UMT5EncoderModel(UMT5Config(vocab_size=len(VOCABULARY), **UMT5_BASE)),
            "dcae": AutoencoderDC(**PUBLISHED_DCAE),
            "vocoder": AceStepV1Vocoder(),
        }
    AceStepV1Pipeline(**parts, tokenizer=word_tokenizer()).save_pretrained(folder)


def main() -> None:
    """Measure and write results/ace_step_v1_<device>.json."""
    run(
        "ace_step_v1",
        __doc__,
        save_random_model,
        guidance_scale=5.0,
        options={"guidance_interval": 1.0},
    )


if __name__ == "__main__":
    main()
