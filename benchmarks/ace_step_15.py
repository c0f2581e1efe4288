"""ACE-Step 1.5 at its published size (24 blocks of width 2048) with random weights, measured as `ace_step_v1` is.

Run as `python -m benchmarks.ace_step_15 --device cuda` on a machine with a GPU (7 GiB of disk for the weights), or with
fewer `--blocks` and `--steps` on a CPU.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from transformers import Qwen3Config, Qwen3Model

from benchmarks._result import write_result
from benchmarks.ace_step_v1 import SECONDS, WORDS, measure, word_tokenizer
from workbench.models import load_model
from workbench.models.protocol import GenerationSettings

QWEN3_600M = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
PUBLISHED_VAE = {
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "decoder_channels": 128,
    "decoder_input_channels": 64,
    "audio_channels": 2,
    "sampling_rate": 48000,
}


def save_random_model(folder: Path, blocks: int, device: str) -> None:
    """Write a pipeline of the published sizes, but for the number of blocks, with random weights in bf16."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        parts = {
            "transformer": AceStepTransformer1DModel(num_hidden_layers=blocks),
            "condition_encoder": AceStepConditionEncoder(),
            "text_encoder": Qwen3Model(Qwen3Config(vocab_size=len(WORDS) + 3, **QWEN3_600M)),
            "vae": AutoencoderOobleck(**PUBLISHED_VAE),
        }
    torch.set_default_dtype(torch.float32)
    parts["condition_encoder"].silence_latent.normal_()
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    AceStepPipeline(**parts, tokenizer=word_tokenizer(), scheduler=scheduler).save_pretrained(folder)
    index = folder / "model_index.json"  # the class is written under a name that the loader does not know
    index.write_text(index.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def main() -> None:
    """Measure and write results/ace_step_15_<device>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    settings = GenerationSettings(duration=SECONDS, num_steps=given.steps)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), given.blocks, given.device)
        model = load_model(folder, device=given.device, dtype="bfloat16")
        figures = {
            "blocks": given.blocks,
            "steps": given.steps,
            "seconds_of_audio": SECONDS,
            **measure(model, settings),
        }
    name = f"ace_step_15_{given.device.partition(':')[0]}"
    print(write_result(name, figures, given.device).read_text())


if __name__ == "__main__":
    main()
