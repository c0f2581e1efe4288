"""Descriptors of the audio: do their directions raise and lower what they were computed from, on other prompts?

Directions of level, brightness and onset rate are computed from 40 prompts of `organism-shared`, constant in time or
by token, and steer others at several strengths. Random vectors of the same norms are the null. Writes the table of
descriptors in docs/steering-truth.md.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analyses.steering.descriptor import measured_clips
from analyses.steering.descriptor_effects import descriptor_effects
from analyses.steering.vector import Vector
from benchmarks._result import write_result
from benchmarks._tables import write_table
from dashboards.numbers import fixed, span
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import load_prompt_set

MODEL, PROMPTS = "organism-shared", "organism"
SETTINGS = GenerationSettings(duration=2.0)
FIT_PROMPTS, FIT_SEEDS, STEERED, RANDOMS = 40, 2, 8, 20
STRENGTHS = (-4.0, -2.0, 2.0, 4.0)
PLANTED = (3, 4)
DIGITS = {"level": 1, "brightness": 0, "onset_rate": 1}
UNITS = {"level": "dB", "brightness": "Hz", "onset_rate": "1/s"}


def places(n_blocks: int) -> dict[str, list[str]]:
    """Return sets of sites: the blocks that decide every concept, and all."""
    planted = "+".join(f"tf{block}" for block in PLANTED)
    return {
        f"{planted} cross_attn": [f"tf{block}.cross_attn" for block in PLANTED],
        "all cross_attn": [f"tf{block}.cross_attn" for block in range(n_blocks)],
        f"{planted} block": [f"tf{block}.block" for block in PLANTED],
    }


def clips() -> tuple[list[Clip], list[Clip]]:
    """Return the clips that directions are computed from, and others, to steer."""
    prompts = [prompt.text for prompt in load_prompt_set(PROMPTS).fill(FIT_PROMPTS + STEERED, seed=0)]
    fitted = [
        Clip(prompt, number * FIT_SEEDS + seed)
        for number, prompt in enumerate(prompts[:FIT_PROMPTS])
        for seed in range(FIT_SEEDS)
    ]
    return fitted, [Clip(prompt, 1000 + number) for number, prompt in enumerate(prompts[FIT_PROMPTS:])]


def changes(
    model: AudioDiffusionModel,
    vector: Vector,
    steered: Sequence[Clip],
    strengths: Sequence[float],
    digits: int,
) -> Iterator[tuple[str, str]]:
    """Yield the mean change of a descriptor at each strength, with its interval over clips."""
    found = descriptor_effects(model, vector, steered, strengths, randoms=0)
    for strength in strengths:
        dose = found.sel(strength=strength)
        interval = span(float(dose.effect_lo), float(dose.effect_hi), digits)
        yield f"{strength:+g}", f"{fixed(float(dose.effect), digits)} {interval}"


def main() -> None:
    """Steer every descriptor in every way; write results/descriptors.json and the table in the docs."""
    model = load_model(MODEL)
    fitted, steered = clips()
    rows: list[dict[str, Any]] = []
    for name in DIGITS:
        of_places = places(model.n_blocks)
        every = sorted({site for sites in of_places.values() for site in sites})
        measured = measured_clips(model, name, every, fitted, time="token", settings=SETTINGS)
        by_token = measured.vector()
        ways: dict[str, Sequence[Vector]] = {
            "covariance, constant": [by_token.over_time()] * 2,
            "covariance, by token": [by_token] * 2,
            "covariance, by token, each sign its own": [
                measured.vector(side="below"),
                measured.vector(side="above"),
            ],
            "ridge, by token": [measured.vector("ridge")] * 2,
        }
        spread, digits = float(measured.values.std()), DIGITS[name]
        for where, sites in of_places.items():
            random = descriptor_effects(
                model, by_token.only(sites), steered, STRENGTHS[-1:], randoms=RANDOMS
            ).isel(strength=0)
            for way, (down, up) in ways.items():
                rows.append(
                    {
                        "descriptor": f"{name} ({UNITS[name]})",
                        "s": fixed(spread, digits),
                        "sites": where,
                        "direction": way,
                        **dict(changes(model, down.only(sites), steered, STRENGTHS[:2], digits)),
                        **dict(changes(model, up.only(sites), steered, STRENGTHS[2:], digits)),
                        f"random × {STRENGTHS[-1]:g}": span(
                            float(random.null_lo), float(random.null_hi), digits
                        ),
                    }
                )
            print(pd.DataFrame(rows).tail(len(ways)).to_string(), flush=True)
    write_result("descriptors", {"rows": rows})
    write_table("steering-truth.md", "descriptors", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
