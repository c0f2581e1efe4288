"""Cost of a dose–response: all strengths as rows of one batch, against one generation per strength.

Measured for contrastive activation addition, prompt switching (PCI) and a low-rank change of weights (the edits of a
concept slider). Also the cost of computing directions: all cross-attentions from one capture in batches, against the
reference's one generation per prompt (TADA: batch 1).

Of the single generations, which all take the same time, every second one is timed, half of them before the batch and
half after it, and their time is scaled to all. Beside them, the bare pipeline generates the unedited clip: no code
that makes one generation per strength is faster. Seconds are those of the processor and of the clock: on a shared
machine only the former are comparable.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from analyses.steering.caa import caa
from analyses.steering.pci import pci
from benchmarks._result import write_result
from workbench.engine.edits import Edit, Run, low_rank
from workbench.engine.runs import Capture, Clip, Generation
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair, load_prompt_set

MODEL = "organism-shared"
SITES = ["tf3.cross_attn", "tf4.cross_attn"]
STEPS = 15
STRENGTHS = range(-STEPS, STEPS + 1)
PROMPTS, PAIRS, RANK = 8, 48, 4
TIMED_OF_FIT = 4
"""Of the reference's generations for a fit, every fourth is timed."""
SETTINGS = GenerationSettings(num_steps=STEPS)
At = Callable[[float], Sequence[Edit]]


class Stopwatch:
    """Seconds of the clock and of the processor."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> "Stopwatch":
        self._begun = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._begun[0]
        self.cpu += time.process_time() - self._begun[1]

    def ratio(self, other: "Stopwatch", share: float = 1.0) -> dict[str, float]:
        """Ratios to another one, which timed this share of the work."""
        return {"wall_ratio": self.wall / other.wall * share, "cpu_ratio": self.cpu / other.cpu * share}


def slider(model: AudioDiffusionModel) -> At:
    """Return a random LoRA of the cross-attentions' queries, keys, values and outputs, as edits at a strength."""
    draws = torch.Generator().manual_seed(0)
    factors = []
    for site in (f"{site}{part}" for site in SITES for part in (".q", ".k", ".v", "")):
        module = model.linear(parse_sites(site, model.n_blocks)[0])
        down = torch.randn(RANK, module.in_features, generator=draws) / module.in_features**0.5
        up = torch.randn(module.out_features, RANK, generator=draws) / RANK**0.5
        factors.append((down, up, site))
    return lambda strength: [low_rank(down, up, site, strength / 100) for down, up, site in factors]


def bare(model: AudioDiffusionModel, clip: Clip) -> None:
    """Generate a clip by the pipeline alone, without the workbench and nnsight."""
    with torch.no_grad():
        model.pipeline(**model.pipeline_arguments([clip], SETTINGS))


def runs_of(pair: Pair, at: At, seed: int) -> list[Run]:
    """Return the runs of a prompt at all strengths."""
    sources = {
        "positive": [Run(Clip(pair.clean.text, seed))],
        "negative": [Run(Clip(pair.corrupt.text, seed))],
    }
    base = Clip(pair.corrupt.text, seed)
    return [Run(base, tuple(edit.bound(sources) for edit in at(strength))) for strength in STRENGTHS]


def of_method(model: AudioDiffusionModel, at: At, pairs: Sequence[Pair]) -> dict[str, float]:
    """Return ratios of time and rows to one generation per strength, summed over the prompts."""
    batches, singles, plain = Stopwatch(), Stopwatch(), Stopwatch()
    rows, n_singles, differences = 0, 0, []

    def differ(place: int, alone: Generation, together: Generation) -> float:
        return float((together.latents[place] - alone.latents[0]).abs().max() / alone.latents.abs().max())

    for number, pair in enumerate(pairs):
        runs = runs_of(pair, at, number)
        timed = range(number % 2, len(runs), 2)
        alone: dict[int, Generation] = {}
        for half in (timed[::2], None, timed[1::2]):
            if half is None:
                with batches:
                    together = model.generate_batch(runs, SETTINGS)
                with plain:
                    bare(model, Clip(pair.corrupt.text, number))
                continue
            with singles:
                alone |= {place: model.generate_batch([runs[place]], SETTINGS) for place in half}
        rows += together.rows
        n_singles += len(alone)
        differences += [differ(place, single, together) for place, single in alone.items()]
    n_runs = len(pairs) * len(STRENGTHS)
    of_bare = batches.ratio(plain, len(pairs) / n_runs)
    return {
        **batches.ratio(singles, n_singles / n_runs),
        **{f"bare_{name}": value for name, value in of_bare.items()},
        "row_ratio": rows / (n_runs * STEPS * len(model.passes(SETTINGS))),
        "batch_cpu_seconds": batches.cpu / len(pairs),
        "single_cpu_seconds": singles.cpu / n_singles,
        "bare_cpu_seconds": plain.cpu / len(pairs),
        "largest_difference": max(differences),
    }


def fitting(model: AudioDiffusionModel) -> dict[str, float]:
    """Compare one capture of all cross-attentions in batches with one captured generation per prompt."""
    ours, reference = Stopwatch(), Stopwatch()
    with ours:
        caa(model, "instrument", "*.cross_attn", positive="violin", pairs=PAIRS, settings=SETTINGS)
    capture = Capture(parse_sites("*.cross_attn", model.n_blocks), tuple(range(STEPS)), ("cond", "null"))
    with reference:
        for number in range(0, 2 * PAIRS, TIMED_OF_FIT):
            clip = Clip("a slow happy violin song with drums", number)
            model.generate_batch([clip], SETTINGS, capture=capture, sink=lambda *_: None)
    return ours.ratio(reference, 1 / TIMED_OF_FIT) | {"cpu_seconds": ours.cpu}


def main() -> None:
    """Measure every method and the fit, and write results/steering_cost.json."""
    model = load_model(MODEL)
    pairs = load_prompt_set("organism").pairs("mood", 2 * PROMPTS, 0)
    pairs = [pair for pair in pairs if pair.clean_value == "happy"][:PROMPTS]
    vector = caa(model, "mood", SITES, pairs=4, settings=SETTINGS)
    methods: dict[str, At] = {
        "caa": lambda strength: vector.at(strength / 5),
        "pci": pci(model, "mood", settings=SETTINGS).at,
        "low_rank": slider(model),
    }
    metrics: dict[str, Any] = {name: of_method(model, at, pairs) for name, at in methods.items()}
    metrics["fit"] = fitting(model)
    print(
        write_result(
            "steering_cost", {**metrics, "strengths": len(STRENGTHS), "prompts": PROMPTS}
        ).read_text()
    )


if __name__ == "__main__":
    main()
