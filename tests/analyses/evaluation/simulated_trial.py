"""A trial of ways of steering with simulated scores and distances, as `run_steering` returns it."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

CONCEPTS = ("mood", "tempo")
STRENGTHS = (-2.0, -1.0, 1.0, 2.0)
SLOPES = {"strong": 0.4, "weak": 0.1}
"""Change of the score per unit of strength; the real prompt changes it by 1."""


def simulated_trial(
    slopes: Mapping[str, float] = SLOPES,
    strengths: Sequence[float] = STRENGTHS,
    pairs: int = 10,
    seeds: int = 2,
    nulls: int = 3,
    noise: float = 0.05,
    judges: Mapping[str, float] | None = None,
    prompts: str = "prompt",
    steered: str = "negative",
    seed: int = 0,
) -> xr.Dataset:
    """Return a trial of `slopes`' ways, with random ways as nulls of the first, and a floor arm each.

    `judges` maps names to what they hear of the real prompts' difference, by default two that hear all of it. The
    distance is .5 per unit of strength and 2 for the real prompt. The other concept is only noise.
    """
    rng = np.random.default_rng(seed)
    judges = judges or {"one": 1.0, "other": 1.0}
    first = next(iter(slopes))
    random = {f"random {number}": 0.0 for number in range(nulls)}
    arms = [("clean", "", 0.0, "run", ""), ("corrupt", "", 0.0, "run", "")]
    arms += [(f"{way} × {a:g}", way, a, "cell", "") for way in slopes for a in strengths]
    arms += [(f"{way} × {a:g}", way, a, "null", f"{first} × {a:g}") for way in random for a in strengths]
    arms += [(f"{way} × 0.001", way, 0.001, "floor", "") for way in slopes]
    names, rows, strength, roles, null_of = (list(column) for column in zip(*arms, strict=True))
    real = 1.0 if steered == "negative" else -1.0
    effect = np.array(
        [{"clean": real}.get(name, ({**slopes, **random}).get(row, 0.0) * a) for name, row, a, *_ in arms]
    )
    of_pair = rng.normal(size=(pairs, 1, 1))
    heard = np.array(list(judges.values()))
    place = [list(dict.fromkeys(rows)).index(row) for row in rows]  # pairs respond differently to each way
    response = 1 + 3 * noise * rng.normal(size=(pairs, 1, 1 + max(place)))[:, :, place]
    score = (of_pair + effect * response)[..., None] * heard
    score = score + noise * rng.normal(size=(pairs, seeds, len(arms), len(judges)))
    other = noise * rng.normal(size=score.shape)
    distance = np.where(np.array(names) == "clean", 2.0, 0.5 * np.abs(strength)) * np.ones((pairs, seeds, 1))
    return xr.Dataset(
        {
            "score": (("concept", "pair", "seed", "arm", "scorer"), np.stack([score, other])),
            "distance": (("measure", "pair", "seed", "arm"), np.stack([distance, 3 * distance**2])),
            "seed_distance": (("measure", "pair", "seed"), np.ones((2, pairs, seeds))),
            "clean_prompt": ("pair", [f"{prompts} {number}, happy" for number in range(pairs)]),
            "corrupt_prompt": ("pair", [f"{prompts} {number}, sad" for number in range(pairs)]),
        },
        {
            "concept": list(CONCEPTS),
            "pair": range(pairs),
            "seed": range(seeds),
            "arm": names,
            "row": ("arm", rows),
            "strength": ("arm", strength),
            "role": ("arm", roles),
            "null_of": ("arm", null_of),
            "direction": ("arm", ["" if role == "run" else "sufficiency" for role in roles]),
            "scorer": list(judges),
            "measure": ["mel", "stft"],
        },
        {"concept": CONCEPTS[0], "resolution": 1e-4, "spec": json.dumps({"steered": steered})},
    )
