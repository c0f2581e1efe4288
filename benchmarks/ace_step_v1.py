"""ACE-Step v1 at its published width with random weights: seconds and peak memory of a clip and of a sweep.

Run as `python -m benchmarks.ace_step_v1 --device cuda` on a machine with a GPU (8 GiB of disk for the weights), or with
fewer `--blocks` and `--steps` on a CPU. The sweep is one batch: the clean run, the corrupt run, and a patch of each
block; its peer is the reference protocol of TADA (arXiv 2602.11910), a generation for each arm with the clean run
beside it, of which one is timed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch
from diffusers import AutoencoderDC
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from benchmarks._result import synchronize, write_result
from workbench.interventions import Intervention, PatchSpec
from workbench.models import load_model
from workbench.models.ace_step_v1.pipeline import AceStepV1Pipeline
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer
from workbench.models.ace_step_v1.vocoder import AceStepV1Vocoder
from workbench.models.protocol import AudioDiffusionModel, Clip, GenerationSettings

SECONDS = 10.0
CLEAN, CORRUPT = Clip("a slow violin song", 0), Clip("a fast trumpet song", 0)
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
WORDS = sorted({word for clip in (CLEAN, CORRUPT) for word in clip.prompt.split()})


def save_random_model(folder: Path, blocks: int, device: str) -> None:
    """Write the published layout with the published sizes, but for the number of blocks, and random weights in bf16."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        parts = {
            "transformer": AceStepV1Transformer(num_layers=blocks),
            "text_encoder": UMT5EncoderModel(UMT5Config(vocab_size=len(WORDS) + 3, **UMT5_BASE)),
            "dcae": AutoencoderDC(**PUBLISHED_DCAE),
            "vocoder": AceStepV1Vocoder(),
        }
    torch.set_default_dtype(torch.float32)
    AceStepV1Pipeline(**parts, tokenizer=word_tokenizer()).save_pretrained(folder)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the two prompts."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def measured(model: AudioDiffusionModel, work: Callable[[], object]) -> dict[str, float | None]:
    """Seconds, and on a GPU the most memory that tensors held (weights included), of something that has run once."""
    on_gpu = model.device.startswith("cuda")
    work()
    synchronize(model.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    synchronize(model.device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return {"seconds": time.perf_counter() - started, "peak_gib": peak}


def measure(model: AudioDiffusionModel, settings: GenerationSettings) -> dict[str, object]:
    """A clip with its audio, the sweep, and a generation of the reference protocol."""
    arms = [PatchSpec(sites=(f"tf{block}.cross_attn",)) for block in range(model.n_blocks)]
    edits = [Intervention(2 + i, spec, source=0) for i, spec in enumerate(arms)]
    figures: dict[str, object] = {
        "clip": measured(model, lambda: model.generate([CLEAN], settings)),
        "clip_with_audio": measured(model, lambda: model.decode(model.generate([CLEAN], settings).latents)),
    }
    one = measured(
        model, lambda: model.generate([CLEAN, CORRUPT], settings, [Intervention(1, arms[0], source=0)])
    )
    # Last, because it holds the most memory, and peaks are counted anew for each.
    sweep = measured(model, lambda: model.generate([CLEAN, CORRUPT, *[CORRUPT] * len(arms)], settings, edits))
    reference = one["seconds"] * (len(arms) + 2)  # the arms, none and all
    return {
        **figures,
        "sweep": sweep,
        "reference_generation": one,
        "ratio_of_the_reference": sweep["seconds"] / reference,
    }


def main() -> None:
    """Measure and write results/ace_step_v1_<device>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    settings = GenerationSettings(
        duration=SECONDS,
        num_steps=given.steps,
        guidance_scale=5.0,
        options={"guidance_interval": 1.0},
    )
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), given.blocks, given.device)
        model = load_model(folder, device=given.device, dtype="bfloat16")
        figures = {
            "blocks": given.blocks,
            "steps": given.steps,
            "seconds_of_audio": SECONDS,
            **measure(model, settings),
        }
    print(write_result(f"ace_step_v1_{given.device.partition(':')[0]}", figures).read_text())


if __name__ == "__main__":
    main()
