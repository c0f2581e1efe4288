"""ACE-Step 1.5 at its published size (24 blocks of width 2048) with random weights: time and peak memory.

Run as `python -m benchmarks.ace_step_15 --device cuda` on a machine with a GPU (7 GiB of disk for the weights), or with
fewer `--blocks` and `--steps` on a CPU. `benchmarks.published_size` describes the measurements.
"""

from pathlib import Path

from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from transformers import Qwen3Config, Qwen3Model

from benchmarks.published_size import VOCABULARY, random_weights, run, word_tokenizer

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
    """Write a pipeline of the published size, except for the number of blocks, with random weights in bf16."""
    with random_weights(device):
        parts = {
            "transformer": AceStepTransformer1DModel(num_hidden_layers=blocks),
            "condition_encoder": AceStepConditionEncoder(),
            "text_encoder": Qwen3Model(Qwen3Config(vocab_size=len(VOCABULARY), **QWEN3_600M)),
            "vae": AutoencoderOobleck(**PUBLISHED_VAE),
        }
    parts["condition_encoder"].silence_latent.normal_()
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    AceStepPipeline(**parts, tokenizer=word_tokenizer(), scheduler=scheduler).save_pretrained(folder)
    index = folder / "model_index.json"  # the class is saved under a name that the loader does not know
    index.write_text(index.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def main() -> None:
    """Measure and write results/ace_step_15_<device>.json."""
    run("ace_step_15", __doc__, save_random_model)


if __name__ == "__main__":
    main()
