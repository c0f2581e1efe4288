"""Cost of a dose–response: all strengths as rows of one batch, against one generation per strength.

Measured for contrastive activation addition, prompt switching (PCI) and a low-rank change of weights (the edits of a
concept slider). Also the cost of computing directions: all cross-attentions from one capture in batches, against the
reference's one generation per prompt (TADA: batch 1).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from analyses.steering import caa, pci
from benchmarks._result import write_result
from workbench.engine.edits import Edit, Run, low_rank
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import load_prompt_set

MODEL = "organism-shared"
SITES = ["tf3.cross_attn", "tf4.cross_attn"]
STEPS = 15
STRENGTHS = range(-STEPS, STEPS + 1)
PROMPTS, PAIRS, RANK = 8, 48, 4
SETTINGS = GenerationSettings(num_steps=STEPS)
At = Callable[[float], Sequence[Edit]]


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


def compared(model: AudioDiffusionModel, runs: Sequence[Run]) -> dict[str, Any]:
    """Generate the runs of one prompt as a batch, and one by one; return seconds, rows and the largest difference."""
    begun = time.perf_counter()
    together = model.generate_batch(runs, SETTINGS)
    halfway = time.perf_counter()
    alone = [model.generate_batch([run], SETTINGS) for run in runs]
    done = time.perf_counter()
    latents = torch.cat([one.latents for one in alone])
    difference = (together.latents - latents).abs().max() / latents.abs().max()
    return {
        "seconds": halfway - begun,
        "seconds_one_by_one": done - halfway,
        "rows": together.rows,
        "rows_one_by_one": sum(one.rows for one in alone),
        "difference": float(difference),
    }


def of_method(model: AudioDiffusionModel, at: At, pairs: Sequence[Any]) -> dict[str, float]:
    """Sum over the prompts; return ratios of seconds and rows to one generation per strength."""
    found = []
    for number, pair in enumerate(pairs):
        sources = {
            "positive": [Run(Clip(pair.clean.text, number))],
            "negative": [Run(Clip(pair.corrupt.text, number))],
        }
        base = Clip(pair.corrupt.text, number)
        runs = [Run(base, tuple(edit.bound(sources) for edit in at(strength))) for strength in STRENGTHS]
        found.append(compared(model, runs))
    total = {name: sum(each[name] for each in found) for name in found[0]}
    return {
        "wall_ratio": total["seconds"] / total["seconds_one_by_one"],
        "row_ratio": total["rows"] / total["rows_one_by_one"],
        "seconds": total["seconds"],
        "seconds_one_by_one": total["seconds_one_by_one"],
        "largest_difference": max(each["difference"] for each in found),
    }


def fitting(model: AudioDiffusionModel) -> dict[str, float]:
    """Compare one capture of all cross-attentions in batches with one captured generation per prompt."""
    begun = time.perf_counter()
    caa(model, "instrument", "*.cross_attn", positive="violin", pairs=PAIRS, settings=SETTINGS)
    halfway = time.perf_counter()
    capture = Capture(parse_sites("*.cross_attn", model.n_blocks), tuple(range(STEPS)), ("cond", "null"))
    for number in range(2 * PAIRS):
        clip = Clip("a slow happy violin song with drums", number)
        model.generate_batch([clip], SETTINGS, capture=capture, sink=lambda *_: None)
    done = time.perf_counter()
    return {
        "seconds": halfway - begun,
        "reference_seconds": done - halfway,
        "ratio": (halfway - begun) / (done - halfway),
    }


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
    print(metrics)
    write_result("steering_cost", {**metrics, "strengths": len(STRENGTHS), "prompts": PROMPTS})


if __name__ == "__main__":
    main()
