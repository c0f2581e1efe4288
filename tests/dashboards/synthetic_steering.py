"""A steering result and a vector made without a model: numbers by formula, so that tests know them."""

from typing import Any

import numpy as np
import xarray as xr

from analyses.steering.examples import Example
from analyses.steering.reliability import reliability
from analyses.steering.slider import Factors, Slider
from analyses.steering.vector import Vector
from tests.analyses.steering.checked import check_of
from workbench.engine.settings import GenerationSettings
from workbench.engine.tensors import HashedTensor
from workbench.models.sampling import Sampling
from workbench.studies.study import Study

STEERED, POSITIVE, NEGATIVE = "tempo", "fast", "slow"
CONCEPTS = ("tempo", "instrument", "mood", "drums")
SCORERS = ("embedded", "clap")
PAIRS = 6  # with fewer, nothing is significant
RANDOMS = 2
VECTOR, PATCH = "vector", "output patch"
STRENGTHS = (-1.0, 1.0, 2.0)
EFFECTS = {
    "clean": 0.6,
    "corrupt": 0.0,
    (PATCH, 1.0): 0.6,
    (VECTOR, -1.0): -0.1,
    (VECTOR, 1.0): 0.3,
    (VECTOR, 2.0): 0.45,
}
"""Changes in the score for the steered concept by arm, or by way of steering and strength."""
LEAK = -0.12  # of the vector at strength 2, into mood
BAND = (-0.05, 0.07)
WIDTH = 0.04  # from an effect to the ends of its interval
SITE = "tf3.cross_attn"
PACK = "tempo"


def steering_result(study: Study, audio: Any) -> xr.Dataset:
    """A ladder of two rungs by two scorers, of which the second cannot tell the real prompts apart.

    `audio(pair, arm, effect)` gives the path of a recording.
    """
    arms = _arms()
    effect = np.zeros((len(CONCEPTS), len(arms), len(SCORERS)))
    for a, arm in enumerate(arms):
        effect[0, a, 0] = _effect(arm)
        effect[0, a, 1] = -0.1 * _effect(arm)
        effect[CONCEPTS.index("mood"), a] = LEAK if arm["arm"] == f"{VECTOR} × 2" else 0.0
    shape = (len(CONCEPTS), PAIRS, 1, len(arms), len(SCORERS))
    score = np.broadcast_to(0.2 + effect[:, None, None], shape) + 0.01 * np.arange(PAIRS)[:, None, None, None]
    paths = [[[audio(p, arm["arm"], _effect(arm)) for arm in arms]] for p in range(PAIRS)]
    cells = ("concept", "arm", "scorer")
    is_run, is_cell = (np.array([arm["role"] == role for arm in arms]) for role in ("run", "cell"))
    small = np.where(np.abs(effect) > 0.1, 0.02, 0.6)
    has_band = np.array([arm["row"] == VECTOR for arm in arms])[:, None]
    band = [np.where(has_band, edge, np.full(effect.shape, np.nan)) for edge in BAND]
    defined = np.array([True, False])
    impact = np.where(defined & ~is_run[:, None], effect[0] / EFFECTS["clean"], np.nan)
    pairs = study.spec.prompts.pairs(STEERED, PAIRS, seed=0)
    return xr.Dataset(
        {
            "score": (("concept", "pair", "seed", "arm", "scorer"), score),
            "audio": (("pair", "seed", "arm"), np.array(paths, dtype=object)),
            "noise_seed": (("pair", "seed"), 200 + np.arange(PAIRS)[:, None]),
            "clean_prompt": ("pair", np.array([pair.clean.text for pair in pairs], dtype=object)),
            "corrupt_prompt": ("pair", np.array([pair.corrupt.text for pair in pairs], dtype=object)),
            "effect": (cells, effect),
            "effect_lo": (cells, effect - WIDTH),
            "effect_hi": (cells, effect + WIDTH),
            "p": (cells, np.where(is_run[:, None], np.nan, small)),
            "p_adjusted": (cells, np.where(is_cell[:, None], 1.5 * small, np.nan)),
            "null_lo": (cells, band[0]),
            "null_hi": (cells, band[1]),
            "impact": (("arm", "scorer"), impact),
            "impact_lo": (("arm", "scorer"), impact - 0.1),
            "impact_hi": (("arm", "scorer"), impact + 0.1),
            "denominator": ("scorer", [EFFECTS["clean"], -0.06]),
            "denominator_lo": ("scorer", [0.5, -0.2]),
            "denominator_hi": ("scorer", [0.7, 0.1]),
            "defined": ("scorer", defined),
            "n": ("scorer", [PAIRS] * 2),
            "n_pairs": ("scorer", [PAIRS] * 2),
            "upward": (("way", "scorer"), [[0.6, -0.06], [0.4, -0.04]]),
            "upward_lo": (("way", "scorer"), [[0.5, -0.2], [0.3, -0.06]]),
            "upward_hi": (("way", "scorer"), [[0.7, 0.1], [0.5, -0.02]]),
        },
        coords={
            "concept": list(CONCEPTS),
            "pair": range(PAIRS),
            "seed": [0],
            "scorer": list(SCORERS),
            "way": [PATCH, VECTOR],
            **{name: ("arm", [arm[name] for arm in arms]) for name in arms[0]},
        },
        attrs={
            "kind": "steering",
            "schema_version": 3,
            "concept": STEERED,
            "positive": POSITIVE,
            "negative": NEGATIVE,
            "confidence": 0.95,
            "denoiser_rows": 0,
        },
    )


def _arms() -> list[dict[str, Any]]:
    randoms = [f"random {k} (like {VECTOR})" for k in range(1, RANDOMS + 1)]
    return [
        *(_arm(name, "", 0.0, "run") for name in ("clean", "corrupt")),
        _arm(f"{PATCH} × 1", PATCH, 1.0, "cell"),
        *(_arm(f"{VECTOR} × {strength:g}", VECTOR, strength, "cell") for strength in STRENGTHS),
        *(
            _arm(f"{name} × {strength:g}", name, strength, "null", f"{VECTOR} × {strength:g}")
            for name in randoms
            for strength in STRENGTHS
        ),
    ]


def _arm(name: str, row: str, strength: float, role: str, null_of: str = "") -> dict[str, Any]:
    direction = "" if role == "run" else "sufficiency"
    return {
        "arm": name, "row": row, "strength": strength, "direction": direction, "role": role, "null_of": null_of,
    }  # fmt: skip


def _effect(arm: dict[str, Any]) -> float:
    if arm["role"] == "null":
        return 0.02
    return EFFECTS[arm["arm"] if arm["role"] == "run" else (arm["row"], arm["strength"])]


def vector(known: bool = True) -> Vector:
    """A vector of four steps at one site, from five pairs; or, unless `known`, from unknown ones."""
    draw = np.random.default_rng(0)
    steps, channels = 4, 8
    sums = 1.0 + 0.5 * draw.standard_normal((5, 1, steps, channels))
    reliable = reliability({SITE: sums}, ["cond"], 5)
    if not known:
        reliable = reliable.isel(pairs=slice(0)).assign(
            {name: reliable[name] * np.nan for name in ("split_half", "split_half_lo", "split_half_hi")}
        )
    coords = {"pass": ["cond"], "step": range(steps), "sigma": ("step", np.linspace(1.0, 0.4, steps))}
    directions = xr.DataArray(sums.mean(axis=0), coords, ("pass", "step", "channel"), name=SITE)
    examples = tuple(
        Example(prompt=f"a {value} song {pair}", lyrics="", seed=pair, value=value, pair=pair)
        for pair in range(5)
        for value in (POSITIVE, NEGATIVE)
    )
    return Vector(
        method="caa",
        concept=STEERED,
        positive=POSITIVE,
        negative=NEGATIVE,
        directions={SITE: directions},
        unit="the mean difference",
        model={"model": "synthetic", "weights_hash": "0123456789abcdef", "dtype": "float32"},
        settings=GenerationSettings(duration=2.0, num_steps=steps),
        sampling=Sampling(
            architecture="synthetic", scheduler="Euler", guidance_scale=3.0, passes=(("cond",),) * steps, options={},
            adapters=(),
        ),
        examples=examples if known else (),
        reliability=reliable,
        checks=(check_of(),) if known else (),
    )  # fmt: skip


def slider() -> Slider:
    """A slider of rank 2 at one site, trained for 40 steps."""
    settings = GenerationSettings(duration=2.0, num_steps=2)
    down, up = (HashedTensor.of(np.ones(shape, dtype=np.float32)) for shape in ((2, 4), (4, 2)))
    return Slider(
        concept=STEERED,
        positive=POSITIVE,
        negative=NEGATIVE,
        factors={SITE: Factors("layers.3.cross_attn.to_out.0", down, up)},
        alpha=1.0,
        model={"model": "synthetic", "weights_hash": "0123456789abcdef"},
        settings=settings,
        sigmas=(1.0, 0.5),
        training={"iterations": 40, "prompts": [["a fast song", "a slow song"]]},
    )
