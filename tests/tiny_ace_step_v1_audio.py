"""ACE-Step v1's audio folders with random weights, small enough for tests."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC

from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder, ConvNeXtBlock, WeightNormed

TINY_DCAE: dict[str, Any] = {
    "in_channels": 2,
    "latent_channels": 8,
    "attention_head_dim": 4,
    "encoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [4, 8, 8, 8],
    "decoder_block_out_channels": [4, 8, 8, 8],
    "encoder_layers_per_block": [1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [5], [5]],
    "decoder_qkv_multiscales": [[], [], [5], [5]],
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
    "scaling_factor": 0.41407,  # as published; must not be used
}

TINY_VOCODER: dict[str, Any] = {
    "depths": [1, 1],
    "dims": [8, 8],
    "upsample_rates": [8, 8, 8],
    "upsample_kernel_sizes": [16, 16, 16],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    "num_mels": 8,
    "upsample_initial_channel": 16,
    "pre_conv_kernel_size": 3,
    "post_conv_kernel_size": 3,
}


def tiny_vocoder() -> AceStepV1Vocoder:
    """A vocoder with audible, unclipped audio: freshly initialised, it would reach only a thousandth of full scale."""
    vocoder = AceStepV1Vocoder(**TINY_VOCODER)
    with torch.no_grad():
        for module in vocoder.modules():
            if isinstance(module, WeightNormed):
                module.weight_g *= 2.2
                module.bias.zero_()
            if isinstance(module, ConvNeXtBlock):
                module.gamma.fill_(1.0)
    return vocoder.eval()


def save_tiny_audio(folder: Path) -> None:
    """Write `music_dcae_f8c8/` and `music_vocoder/` into a folder: 128 mel bands at 44.1 kHz, as in the real ones."""
    torch.manual_seed(0)
    AutoencoderDC(**TINY_DCAE).save_pretrained(folder / "music_dcae_f8c8")
    tiny_vocoder().save_pretrained(folder / "music_vocoder")
