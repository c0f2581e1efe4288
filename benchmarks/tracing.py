"""Traced generation, all cross-attention sites kept, against the same generation untraced: seconds and their ratio."""

import statistics
import time
from collections.abc import Callable

from benchmarks._result import write_result
from workbench.models import load_model
from workbench.models.ace_step import AceStep15
from workbench.models.protocol import Capture, Clip, GenerationSettings
from workbench.sites import parse_sites

SETTINGS = GenerationSettings()
CLIPS = [
    Clip(f"a {tempo} {mood} violin song with drums", seed)
    for seed, (tempo, mood) in enumerate(
        (tempo, mood) for tempo in ("slow", "fast") for mood in ("happy", "sad")
    )
]
ROUNDS = 7


def untraced(model: AceStep15) -> None:
    """The pipeline as diffusers runs it."""
    model.pipeline(
        prompt=[clip.prompt for clip in CLIPS],
        lyrics=[clip.lyrics for clip in CLIPS],
        audio_duration=SETTINGS.duration,
        num_inference_steps=SETTINGS.num_steps,
        guidance_scale=SETTINGS.guidance_scale,
        shift=SETTINGS.shift,
        latents=model.noise(CLIPS, SETTINGS.duration),
        output_type="latent",
    )


def traced(model: AceStep15) -> None:
    """The same, with every cross-attention output of both passes kept."""
    sites = parse_sites(["*.cross_attn"], model.n_blocks)
    model.generate(
        CLIPS, SETTINGS, capture=Capture(sites, tuple(range(SETTINGS.num_steps)), ("cond", "null"))
    )


def interleaved_seconds(*runs: Callable[[], None]) -> list[float]:
    """Median seconds of each run; the runs take turns, so that a slow moment of the machine hits all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for round_number in range(ROUNDS + 1):
        for run, seconds in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            if round_number:  # the first round warms up
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]


def main() -> None:
    """Measure and write results/tracing.json."""
    model = load_model("organism-shared")
    plain, observed = interleaved_seconds(lambda: untraced(model), lambda: traced(model))
    figures = {
        "clips": len(CLIPS),
        "sites": model.n_blocks,
        "untraced_s": plain,
        "traced_s": observed,
        "ratio_traced_to_untraced": observed / plain,
    }
    print(write_result("tracing", figures).read_text())


if __name__ == "__main__":
    main()
