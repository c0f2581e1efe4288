"""Activation patching: which blocks hold a concept. One batch per pair: clean, corrupt, and every patched arm."""

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field

from analyses.statistics import bootstrap_interval
from cache.errors import UserError
from workbench.audio import write_flac
from workbench.interventions import Intervention, PatchSpec
from workbench.models.protocol import AudioDiffusionModel, Clip, GenerationSettings
from workbench.prompts import Pair
from workbench.provenance import content_hash
from workbench.scorers import load_scorer
from workbench.sites import check_blocks
from workbench.study import Study

SCHEMA_VERSION = 1
CONFIDENCE = 0.95

Means = np.ndarray | np.floating


class PatchingSpec(BaseModel):
    """A sweep: `pairs` counterfactual pairs of each concept times `seeds` seeds, every block patched alone.

    `sets` are block sets patched together besides (each a tuple of block numbers); all blocks together are always an
    arm. Empty `concepts` means all of the study's. `part` is what an output patch replaces.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concepts: tuple[str, ...] = ()
    pairs: int = Field(6, ge=1)
    seeds: int = Field(2, ge=1)
    sets: tuple[tuple[int, ...], ...] = ()
    mode: Literal["conditioning", "output"] = "conditioning"
    part: str = "cross_attn"
    scorer: str = "embedded"
    seed: int = 0


def patch_arms(spec: PatchingSpec, n_blocks: int) -> dict[str, PatchSpec]:
    """The patched arms by name: `tf0` …, the sets (`tf3+tf4`) and `all`; raises UserError for wrong sets."""
    check_blocks([block for blocks in spec.sets for block in blocks], n_blocks)
    if any(len(set(blocks)) < 2 for blocks in spec.sets):
        raise UserError(
            "A set of blocks needs at least two different ones, such as tf3+tf4: single blocks are arms anyway."
        )
    blocks_by_arm: dict[str, tuple[int, ...]] = {f"tf{block}": (block,) for block in range(n_blocks)}
    blocks_by_arm |= {"+".join(f"tf{block}" for block in blocks): blocks for blocks in spec.sets}
    blocks_by_arm["all"] = tuple(range(n_blocks))
    return {
        arm: PatchSpec(sites=tuple(f"tf{block}.{spec.part}" for block in blocks), mode=spec.mode)
        for arm, blocks in blocks_by_arm.items()
    }


def run_arms(
    model: AudioDiffusionModel,
    pair: Pair,
    seed: int,
    arms: dict[str, PatchSpec],
    settings: GenerationSettings,
    lyrics: str = "",
) -> Float[torch.Tensor, "arm frame latent_channel"]:
    """Latents of a pair's clean run, corrupt run, and the corrupt run under each arm, as one batch with shared noise.

    The patch source of every arm is row 0, the clean run, in the same denoiser call.
    """
    clean, corrupt = (Clip(prompt.text, seed, lyrics) for prompt in (pair.clean, pair.corrupt))
    interventions = [Intervention(2 + i, patch, source=0) for i, patch in enumerate(arms.values())]
    return model.generate([clean] + [corrupt] * (1 + len(arms)), settings, interventions).latents


def run_patching(
    study: Study,
    model: AudioDiffusionModel,
    spec: PatchingSpec,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Run the sweep, write every arm's audio, and save the result "patching" (its schema is in the reference).

    `progress(done, total)` is told of batches. Raises UserError for unknown concepts, blocks or scorers.
    """
    started = time.monotonic()
    scorer = load_scorer(spec.scorer)
    arms = patch_arms(spec, model.n_blocks)
    concepts = spec.concepts or tuple(study.spec.prompts.concepts)
    pairs = {concept: study.spec.prompts.pairs(concept, spec.pairs, spec.seed) for concept in concepts}
    first_seed = study.spec.seed + len(study.clips) + spec.seed  # after the clips' own seeds
    result = _empty_result(pairs, range(first_seed, first_seed + spec.seeds), ["clean", "corrupt", *arms])
    # A folder of its own for each spec: while a new sweep runs, an older result keeps its audio.
    folder = f"audio/patching/{content_hash(spec.model_dump(mode='json'), 8)}"
    cells = [
        (concept, p, int(seed)) for concept in concepts for p in range(spec.pairs) for seed in result.seed
    ]
    for done, (concept, p, seed) in enumerate(cells):
        if progress:
            progress(done, len(cells))
        pair = pairs[concept][p]
        latents = run_arms(model, pair, seed, arms, study.spec.settings, study.spec.lyrics)
        distinct, arm_of = _distinct_rows(latents)
        audio = model.decode(latents[distinct]).cpu().numpy()
        cell = {"concept": concept, "pair": p, "seed": seed}
        result.score.loc[cell] = scorer.score(audio, model.sample_rate, [pair.text])[arm_of, 0]
        names = [str(result.arm.values[row]) for row in distinct]
        files = [f"{folder}/{concept}/{p:03d}-{seed}/{name}.flac" for name in names]
        for file, samples in zip(files, audio, strict=True):
            write_flac(study.path / file, samples, model.sample_rate)
        result.audio.loc[cell] = np.array(files, dtype=object)[arm_of]
    if progress:
        progress(len(cells), len(cells))
    result = result.merge(impact(result.score))
    result.attrs = {
        "kind": "patching",
        "schema_version": SCHEMA_VERSION,
        "mode": spec.mode,
        "part": spec.part,
        "scorer": scorer.name,
        "confidence": CONFIDENCE,
    }
    study.save_result("patching", result, spec, time.monotonic() - started)
    return study.result("patching")


def impact(score: xr.DataArray) -> xr.Dataset:
    """Impact of each arm on each concept, I = (s_arm - s_corrupt) / (s_clean - s_corrupt), with intervals.

    `score` has dims (concept, pair, seed, arm); s is the mean over pairs and seeds (TADA, arXiv 2602.11910, Eq. 2,
    not floored). Intervals are 95 % BCa bootstraps over the (pair, seed) rows, clean, corrupt and arm drawn together.
    Where the denominator's interval does not lie above zero, `defined` is False and the impact NaN. Rows in which any
    arm has no score are left out, and do not count in `n`.
    """
    rows = score.stack(row=("pair", "seed")).transpose("concept", "row", "arm")
    by_concept = [
        _concept_impact(rows.sel(concept=concept).values, list(score.arm.values)) for concept in score.concept
    ]
    dims = {"impact": "arm", "impact_lo": "arm", "impact_hi": "arm"}
    return xr.Dataset(
        {
            name: (
                ("concept", dims[name]) if name in dims else ("concept",),
                np.array([b[name] for b in by_concept]),
            )
            for name in by_concept[0]
        },
        coords={"concept": score.concept, "arm": score.arm},
    )


def _concept_impact(rows: Float[np.ndarray, "row arm"], arms: list[str]) -> dict[str, object]:
    rows = rows[~np.isnan(rows).any(axis=1)]
    clean, corrupt = rows[:, arms.index("clean")], rows[:, arms.index("corrupt")]
    low, high = bootstrap_interval(_mean_difference, (clean, corrupt), CONFIDENCE)
    defined = bool(low > 0)
    impacts = np.full((3, len(arms)), np.nan)
    for i in range(len(arms) if defined else 0):
        samples = (rows[:, i], corrupt, clean)
        impacts[:, i] = [_ratio(*samples), *bootstrap_interval(_ratio, samples, CONFIDENCE)]
    return {
        "impact": impacts[0],
        "impact_lo": impacts[1],
        "impact_hi": impacts[2],
        "denominator": _mean_difference(clean, corrupt) if len(rows) else np.nan,
        "denominator_lo": low,
        "denominator_hi": high,
        "n": len(rows),
        "defined": defined,
    }


def _mean_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Means:
    return a.mean(axis=axis) - b.mean(axis=axis)


def _ratio(arm: np.ndarray, corrupt: np.ndarray, clean: np.ndarray, axis: int = -1) -> Means:
    return _mean_difference(arm, corrupt, axis) / _mean_difference(clean, corrupt, axis)


def _distinct_rows(
    latents: Float[torch.Tensor, "arm frame latent_channel"],
) -> tuple[list[int], Int[np.ndarray, " arm"]]:
    """Rows that differ from all before them, and for each row its place among them: equal latents are heard once."""
    distinct: list[int] = []
    places = np.zeros(len(latents), dtype=np.int64)
    for row, value in enumerate(latents):
        equal = [place for place, other in enumerate(distinct) if torch.equal(value, latents[other])]
        places[row] = equal[0] if equal else len(distinct)
        if not equal:
            distinct.append(row)
    return distinct, places


def _empty_result(pairs: dict[str, list[Pair]], seeds: range, arms: list[str]) -> xr.Dataset:
    """The result's frame: coordinates, the pairs' texts, and scores and files still to be filled in."""
    n_pairs = len(next(iter(pairs.values())))
    coords = {"concept": list(pairs), "pair": range(n_pairs), "seed": list(seeds), "arm": arms}
    shape = tuple(len(values) for values in coords.values())
    texts = {
        "clean_prompt": [[pair.clean.text for pair in row] for row in pairs.values()],
        "corrupt_prompt": [[pair.corrupt.text for pair in row] for row in pairs.values()],
        "clean_value": [[pair.clean_value for pair in row] for row in pairs.values()],
        "corrupt_value": [[pair.corrupt_value for pair in row] for row in pairs.values()],
        "text": [[pair.text for pair in row] for row in pairs.values()],
    }
    variables = {
        name: (("concept", "pair"), np.array(values, dtype=object)) for name, values in texts.items()
    }
    return xr.Dataset(
        {
            "score": (tuple(coords), np.full(shape, np.nan)),
            "audio": (tuple(coords), np.full(shape, "", dtype=object)),
            **variables,
        },
        coords={name: list(values) for name, values in coords.items()},
    )
