"""Shared code of the benchmarks at published size: random weights, and measurements of a clip and of a sweep.

The sweep is one batch: the clean run, the corrupt run, and a patch of each block. It is compared with the reference
protocol of TADA (arXiv 2602.11910), one generation per arm with the clean run beside it, of which one is timed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks._result import synchronize, write_result
from workbench.engine.edits import Run, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel

SECONDS = 10.0
CLEAN, CORRUPT = Clip("a slow violin song", 0), Clip("a fast trumpet song", 0)
WORDS = sorted({word for clip in (CLEAN, CORRUPT) for word in clip.prompt.split()})
VOCABULARY = ["<pad>", "</s>", "<unk>", *WORDS]


@contextmanager
def random_weights(device: str) -> Iterator[None]:
    """Give networks created in this context reproducible random weights, in bfloat16 on the device."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the two prompts."""
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def measured(model: AudioDiffusionModel, work: Callable[[], object]) -> dict[str, float | None]:
    """Seconds and, on a GPU, peak memory of tensors (including weights) of `work`, after a warm-up run."""
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
    """Measure a clip with its audio, the sweep, and one generation of the reference protocol."""
    arms = [Run(CORRUPT, (patch(f"tf{block}.cross_attn", CLEAN),)) for block in range(model.n_blocks)]
    metrics: dict[str, object] = {
        "clip": measured(model, lambda: model.generate_batch([CLEAN], settings)),
        "clip_with_audio": measured(
            model, lambda: model.decode(model.generate_batch([CLEAN], settings).latents)
        ),
    }
    one = measured(model, lambda: model.generate_batch([CLEAN, arms[0]], settings))
    # Last, because it needs the most memory; peaks are reset before each measurement.
    sweep = measured(model, lambda: model.generate_batch([CLEAN, CORRUPT, *arms], settings))
    reference = one["seconds"] * (len(arms) + 2)  # the arms, none and all
    return {
        **metrics,
        "sweep": sweep,
        "reference_generation": one,
        "ratio_of_the_reference": sweep["seconds"] / reference,
    }


def run(
    name: str, description: str | None, save_model: Callable[[Path, int, str], None], **settings: Any
) -> None:
    """Run a benchmark from the command line: measure the model that `save_model(folder, blocks, device)` saves.

    Writes results/<name>_<device>.json; `settings` are further settings of the generation.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), given.blocks, given.device)
        model = load_model(folder, device=given.device, dtype="bfloat16")
        metrics = {
            "blocks": given.blocks,
            "steps": given.steps,
            "seconds_of_audio": SECONDS,
            **measure(model, GenerationSettings(duration=SECONDS, num_steps=given.steps, **settings)),
        }
    print(write_result(f"{name}_{given.device.partition(':')[0]}", metrics, given.device).read_text())
