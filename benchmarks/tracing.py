"""Cost of tracing a generation into a cache, compared with the same generation untraced.

Run as `python -m benchmarks.tracing`. Every cross-attention output of both passes at every step is stored, including
the commit of shards. It is measured on the embedded organism, whose calls take milliseconds, and on a transformer of
real width (2048, with the real heads and feed-forward) with eight blocks and random weights.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks._result import synchronize, write_result
from cache import CachePlan, CacheWriter
from cache.pipeline import ShardPipeline
from tests.tiny_ace_step import save_tiny_pipeline
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models import load_model
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings()
WIDE_SETTINGS = GenerationSettings(duration=10.0, num_steps=4)
WIDE = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
PROMPTS = ("slow happy", "slow sad", "fast happy", "fast sad")
BATCHES = 8
ROUNDS = 5
WIDE_ROUNDS = 3


def untraced(model: AceStep15, clips: list[Clip], settings: GenerationSettings, batches: int) -> None:
    """Run the pipeline as diffusers does."""
    for _ in range(batches):
        model.pipeline(
            prompt=[clip.prompt for clip in clips],
            lyrics=[clip.lyrics for clip in clips],
            audio_duration=settings.duration,
            num_inference_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            latents=model.noise(clips, settings.duration),
            output_type="latent",
        )
    synchronize(model.device)


def traced(model: AceStep15, clips: list[Clip], settings: GenerationSettings, batches: int) -> None:
    """Run it with every cross-attention output of both passes written to a new cache, one shard per batch."""
    sites = parse_sites(["*.cross_attn"], model.n_blocks)
    capture = Capture(sites, tuple(range(settings.num_steps)), ("cond", "null"))
    plan = CachePlan(
        sites={str(site): model.channels(site) for site in sites},
        dtypes="bfloat16",
        n_clips=len(clips) * batches,
        steps=capture.steps,
        sigmas=tuple(model.sigmas(settings)),
        passes=("cond", "null"),
        tokens=model.tokens(settings.duration),
        token_seconds=model.token_seconds,
        clips_per_shard=len(clips),
        identity={},
    )
    table = pd.DataFrame({"clip": range(plan.n_clips)})
    with (
        tempfile.TemporaryDirectory() as folder,
        CacheWriter(Path(folder) / "cache", plan, table) as writer,
        ShardPipeline(writer, model.device) as pipeline,
    ):
        for shard in writer.missing():
            pipeline.begin(shard)
            model.generate_batch(
                clips,
                settings,
                capture=capture,
                sink=lambda site, step, values: pipeline.add(str(site), step, values),
            )
            pipeline.end()


def interleaved_seconds(*runs: Callable[[], None], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each run; the runs take turns, so that slow moments of the machine affect all of them."""
    times: list[list[float]] = [[] for _ in runs]
    for round_number in range(rounds + 1):
        for run, seconds in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            if round_number:  # the first round warms up
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]


def compare(
    model: AceStep15, clips: list[Clip], settings: GenerationSettings, batches: int, rounds: int
) -> dict[str, float]:
    """Seconds of both, and their ratio."""
    plain, observed = interleaved_seconds(
        lambda: untraced(model, clips, settings, batches),
        lambda: traced(model, clips, settings, batches),
        rounds=rounds,
    )
    return {
        "batches": batches,
        "clips_per_batch": len(clips),
        "sites": model.n_blocks,
        "calls": settings.num_steps,
        "untraced_s": plain,
        "traced_s": observed,
        "ratio_traced_to_untraced": observed / plain,
    }


def wide_model(folder: Path) -> AceStep15:
    """A pipeline of real width with random weights."""
    return load_model(str(save_tiny_pipeline(folder / "wide", **WIDE)))


def main() -> None:
    """Measure and write results/tracing.json."""
    clips = [Clip(f"a {words} violin song with drums", seed) for seed, words in enumerate(PROMPTS)]
    organism = compare(load_model("organism-shared"), clips, SETTINGS, BATCHES, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        clip = Clip("a slow happy violin song", 0)
        wide = compare(wide_model(Path(folder)), [clip], WIDE_SETTINGS, 1, WIDE_ROUNDS)
    print(write_result("tracing", {"real_width": wide, "organism": organism}).read_text())


if __name__ == "__main__":
    main()
