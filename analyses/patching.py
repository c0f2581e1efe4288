"""Activation patching: impact maps for every question, from sweeps of arms over counterfactual pairs and seeds."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, model_validator

from analyses.arms import (
    QUESTIONS,
    Ablation,
    Arm,
    Direction,
    Null,
    Request,
    arm_from_json,
    null_arms,
    patch_arm,
    set_name,
)
from analyses.contexts import PairContext, listed_contexts, prompt_set_contexts
from analyses.impact import CONFIDENCE, impact
from analyses.screening import choose_arms, rank_agreement, screen_arms
from analyses.statistics import separated
from analyses.sweep import Sweep
from cache.errors import UserError
from workbench.interventions import PatchSpec
from workbench.models.protocol import AudioDiffusionModel
from workbench.pair_files import load_pairs
from workbench.scorers import load_scorer
from workbench.study import Study

SCHEMA_VERSION = 2
CORRECTION = "Benjamini–Hochberg"
Question = Literal[
    "blocks",
    "steps",
    "sigmas",
    "parts",
    "heads",
    "passes",
    "conditioning",
    "seconds",
    "sets",
    "paths",
    "custom",
]
WINDOWED = ("steps", "sigmas", "seconds")
# Fields that only some questions heed.
HEEDED: dict[str, tuple[str, ...]] = {
    "sets": ("blocks",),
    "ablations": ("blocks",),
    "windows": WINDOWED,
    "segments": ("conditioning",),
    "receivers": ("paths",),
    "greedy_share": ("sets",),
    "nulls": tuple(question for question in QUESTIONS if question != "paths"),
    "custom_arms": ("custom",),
}
Arms = dict[str, list[Arm]]
Progress = Callable[[int, int], None]


class Screening(BaseModel):
    """Screen, then confirm: which arms of a map are run, out of all that were screened cheaply.

    Of each concept the `top` arms and a `sample` drawn at random from the others are confirmed by exact patching.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["velocity", "attribution"] = "velocity"
    pairs: int = Field(4, ge=1)
    top: int = Field(8, ge=1)
    sample: int = Field(8, ge=2)


class PatchingSpec(BaseModel):
    """A map: a question, asked of `pairs` counterfactual pairs of each concept times `seeds` seeds.

    Empty `concepts`, `blocks` and `segments` mean all. `sets` are block sets patched together besides the single ones
    (question blocks); `windows` is the number of windows of steps, noise levels or seconds; `receivers` are the parts
    that paths lead to. `nulls` are null arms of every patch from the clean run. With `stop_top` pairs are added, from
    `min_pairs` on, until the intervals of that many top cells lie above all others' or `pairs` are done. With
    `greedy_share` (question sets) blocks are added one at a time until that share of the concept comes back.
    `custom_arms` (question custom) are arms as JSON, and `pairs_file` is a CSV file of pairs instead of the study's;
    `pairs_hash` tells its versions apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question = "blocks"
    name: str = Field("", pattern=r"^[\w.+-]*$")
    concepts: tuple[str, ...] = ()
    pairs: int = Field(12, ge=1)
    seeds: int = Field(1, ge=1)
    seed: int = 0
    directions: tuple[Direction, ...] = ("sufficiency", "necessity")
    ablations: tuple[Ablation, ...] = ()
    nulls: tuple[Null, ...] = ()
    mode: Literal["conditioning", "output"] = "conditioning"
    part: str = "cross_attn"
    blocks: tuple[int, ...] = ()
    sets: tuple[tuple[int, ...], ...] = ()
    windows: int = Field(8, ge=1)
    segments: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ("embedded",)
    stop_top: int = Field(0, ge=0)
    min_pairs: int = Field(10, ge=2)
    greedy_share: float = Field(0.0, ge=0.0, le=1.0)
    screening: Screening | None = None
    custom_arms: str = ""
    pairs_file: str = ""
    pairs_hash: str = ""

    @model_validator(mode="after")
    def _heeded(self) -> "PatchingSpec":
        for name, questions in HEEDED.items():
            changed = getattr(self, name) != type(self).model_fields[name].default
            if changed and self.question not in questions:
                raise ValueError(f"{name} is for {' or '.join(questions)}, and not heeded by {self.question}")
        return self

    @property
    def result_name(self) -> str:
        """Name of the result: `patching-` and the map's name, which is its question by default."""
        return f"patching-{self.name or self.question}"


def question_arms(spec: PatchingSpec, study: Study, model: AudioDiffusionModel) -> list[Arm]:
    """The arms of a map, null arms last; raises UserError for blocks, sets, windows … that make no sense."""
    if spec.question == "custom":
        return [arm_from_json(entry) for entry in json.loads(spec.custom_arms or "[]")]
    fields = ("blocks", "directions", "ablations", "mode", "part", "sets", "windows", "segments", "receivers")
    request = Request(model, study.spec.settings, **{name: getattr(spec, name) for name in fields})
    arms = QUESTIONS[spec.question][0](request)
    return arms + null_arms(arms, spec.nulls)


def run_patching(
    study: Study, model: AudioDiffusionModel, spec: PatchingSpec, progress: Progress | None = None
) -> xr.Dataset:
    """Run what the map needs and is not in the study yet, and save its result (schema: the reference of results).

    `progress(done, total)` is told of pairs times seeds. Raises UserError for unknown concepts, blocks or scorers.
    """
    started = time.monotonic()
    scorers = {name: load_scorer(name, device=model.device) for name in spec.scorers}
    arms = question_arms(spec, study, model)
    contexts = _contexts(study, spec)
    sweep = Sweep(study, model, scorers)
    for context in (context for pairs in contexts.values() for context in pairs):
        sweep.check(context, arms)
    runner = _Runner(study, spec, sweep, contexts, progress or _no_progress)
    screen: xr.DataArray | None = None
    chosen: Arms = dict.fromkeys(contexts, arms)
    if spec.screening is not None:
        few = {concept: pairs[: spec.screening.pairs] for concept, pairs in contexts.items()}
        screen = screen_arms(study, model, spec.screening.method, few, runner.seeds[0], arms)
        chosen = choose_arms(screen, arms, spec.screening.top, spec.screening.sample, spec.seed)
    stopped = runner.run(chosen)
    steps: dict[str, list[dict[str, object]]] = {}
    if spec.greedy_share:
        arms, chosen, steps = runner.greedy(arms, model.n_blocks)
    result = runner.dataset(arms, chosen)
    result = result.merge(impact(result.score), compat="no_conflicts")
    if screen is not None:
        result = _with_screen(result, screen, spec)
    result.attrs |= {
        "kind": "patching",
        "schema_version": SCHEMA_VERSION,
        "question": spec.question,
        "row_label": "block",
        "column_label": QUESTIONS[spec.question][1] if spec.question in QUESTIONS else "arm",
        "mode": spec.mode,
        "confidence": CONFIDENCE,
        "correction": CORRECTION,
        "stopped": stopped,
        "greedy": json.dumps(steps),
        "screened": result.attrs.get("screened", ""),
        "arms": json.dumps([arm.to_json() for arm in arms]),
        "denoiser_rows": sweep.rows,
    }
    study.save_result(spec.result_name, result, spec, time.monotonic() - started)
    return study.result(spec.result_name)


def _no_progress(done: int, total: int) -> None:
    del done, total


def _contexts(study: Study, spec: PatchingSpec) -> dict[str, list[PairContext]]:
    """The pairs of each concept, with what surrounds them."""
    if spec.pairs_file:
        listed = load_pairs(Path(spec.pairs_file))
        unknown = set(spec.concepts) - set(listed)
        if unknown:
            raise UserError(
                f"{spec.pairs_file} has no pairs of {', '.join(sorted(unknown))}: it has {', '.join(listed)}."
            )
        return {concept: listed_contexts(listed[concept], spec.pairs) for concept in spec.concepts or listed}
    prompts = study.spec.prompts
    return {
        concept: prompt_set_contexts(prompts, concept, spec.pairs, spec.seed)
        for concept in spec.concepts or prompts.concepts
    }


class _Runner:
    """Goes through a map's pairs and seeds, and puts together what came out."""

    def __init__(
        self,
        study: Study,
        spec: PatchingSpec,
        sweep: Sweep,
        contexts: dict[str, list[PairContext]],
        progress: Progress,
    ) -> None:
        self.spec = spec
        self.sweep = sweep
        self.contexts = contexts
        self.progress = progress
        self.n_run = dict.fromkeys(contexts, 0)
        self.block_names = study.block_names
        first_seed = study.spec.seed + len(study.clips) + spec.seed  # after the clips' own seeds
        self.seeds = range(first_seed, first_seed + spec.seeds)

    def run(self, arms: Arms) -> str:
        """Run the arms of every pair; gives a sentence on where it stopped, "" when all pairs were asked for."""
        active, sentences = list(self.contexts), []
        total = len(self.contexts) * self.spec.pairs * self.spec.seeds
        done = 0
        # Each look is a chance to stop on luck: look seldom.
        looks = {self.spec.min_pairs * 2**k for k in range(32)} - {self.spec.pairs}
        self.progress(done, total)
        for pair in range(self.spec.pairs):
            for concept in active:
                for seed in self.seeds:
                    self.sweep.ensure(self.contexts[concept][pair], seed, arms[concept])
                    done += 1
                    self.progress(done, total)
                self.n_run[concept] = pair + 1
            if self.spec.stop_top and pair + 1 in looks:
                finished = [
                    concept for concept in active if self._is_separated(concept, pair + 1, arms[concept])
                ]
                sentences += [f"{concept} after {pair + 1} pairs" for concept in finished]
                active = [concept for concept in active if concept not in finished]
                total -= len(finished) * (self.spec.pairs - pair - 1) * self.spec.seeds
                self.progress(done, total)
        if not self.spec.stop_top:
            return ""
        when = ", ".join(sentences) or "none"
        apart = f"Stopped when the top {self.spec.stop_top} cells' intervals lay above all others': {when}."
        left = f" Ended with the budget of {self.spec.pairs} pairs: {', '.join(active)}." if active else ""
        return apart + left

    def _is_separated(self, concept: str, n_pairs: int, arms: Sequence[Arm]) -> bool:
        cells = [arm for arm in arms if arm.role == "cell"]
        found = impact(self.scores({concept: self.contexts[concept][:n_pairs]}, cells)).sel(concept=concept)
        cells_only = found.sel(arm=found.role == "cell")
        return all(
            separated(
                cells_only.impact.sel(scorer=scorer).values,
                cells_only.impact_lo.sel(scorer=scorer).values,
                cells_only.impact_hi.sel(scorer=scorer).values,
                self.spec.stop_top,
            )
            for scorer in self.spec.scorers
        )

    def greedy(
        self, arms: list[Arm], n_blocks: int
    ) -> tuple[list[Arm], Arms, dict[str, list[dict[str, object]]]]:
        """The smallest set of blocks, added one at a time, that brings back the share asked for; for each concept."""
        added: dict[str, Arm] = {}
        steps: dict[str, list[dict[str, object]]] = {}
        for concept, contexts in self.contexts.items():
            chosen: tuple[int, ...] = ()
            steps[concept] = []
            share = 0.0
            while share < self.spec.greedy_share and len(chosen) < n_blocks:
                groups = [tuple(sorted((*chosen, block))) for block in range(n_blocks) if block not in chosen]
                candidates = [self._set_arm(group) for group in groups]
                for context in contexts:
                    for seed in self.seeds:
                        self.sweep.ensure(context, seed, candidates)
                found = impact(self.scores({concept: contexts}, candidates)).isel(concept=0, scorer=0)
                values = found.impact.sel(arm=[arm.name for arm in candidates]).values
                if np.isnan(values).all():
                    break
                best = int(np.nanargmax(values))
                chosen, share = groups[best], float(values[best])
                added[candidates[best].name] = candidates[best]
                steps[concept].append({"blocks": list(chosen), "share": share})
        everything = arms + list(added.values())
        return everything, dict.fromkeys(self.contexts, everything), steps

    def _set_arm(self, group: Sequence[int]) -> Arm:
        sites = tuple(f"tf{block}.{self.spec.part}" for block in group)
        name = set_name(group, self.block_names)
        return patch_arm(name, "greedy", PatchSpec(sites=sites, mode=self.spec.mode))

    def scores(self, contexts: dict[str, list[PairContext]], arms: Sequence[Arm]) -> xr.DataArray:
        """Scores with dims (concept, pair, seed, arm, scorer), the arms labelled; NaN where the study holds none."""
        n_pairs = max(len(pairs) for pairs in contexts.values())
        shape = (len(contexts), n_pairs, len(self.seeds), 2 + len(arms), len(self.spec.scorers))
        values = np.full(shape, np.nan)
        for c, pairs in enumerate(contexts.values()):
            for p, context in enumerate(pairs):
                for s, seed in enumerate(self.seeds):
                    values[c, p, s] = self.sweep.scores(context, seed, arms)
        coords = {
            "concept": list(contexts),
            "pair": range(n_pairs),
            "seed": list(self.seeds),
            "scorer": list(self.spec.scorers),
            **_arm_coords(arms),
        }
        return xr.DataArray(values, coords=coords, dims=("concept", "pair", "seed", "arm", "scorer"))

    def dataset(self, arms: Sequence[Arm], chosen: Arms) -> xr.Dataset:
        """Scores, audio files and texts of the whole map; arms that were not `chosen` and pairs after a stop are empty.

        The study may hold them, run for another map.
        """
        score = self.scores(self.contexts, arms)
        audio = np.array(
            [
                [[self.sweep.audio(context, seed, arms) for seed in self.seeds] for context in pairs]
                for pairs in self.contexts.values()
            ],
            dtype=object,
        )
        for c, concept in enumerate(self.contexts):
            names = {"clean", "corrupt", *(arm.name for arm in chosen[concept])}
            left_out = np.array([arm not in names for arm in score.arm.values])
            for empty in ((slice(None), slice(None), left_out), (slice(self.n_run[concept], None),)):
                score.values[c][empty] = np.nan
                audio[c][empty] = ""
        pairs = [[context.pair for context in contexts] for contexts in self.contexts.values()]
        texts = {
            "clean_prompt": [[pair.clean.text for pair in row] for row in pairs],
            "corrupt_prompt": [[pair.corrupt.text for pair in row] for row in pairs],
            "clean_value": [[pair.clean_value for pair in row] for row in pairs],
            "corrupt_value": [[pair.corrupt_value for pair in row] for row in pairs],
            "text": [[pair.text for pair in row] for row in pairs],
        }
        return xr.Dataset(
            {
                "score": score,
                "audio": (("concept", "pair", "seed", "arm"), audio),
                **{
                    name: (("concept", "pair"), np.array(values, dtype=object))
                    for name, values in texts.items()
                },
            }
        )


def _arm_coords(arms: Sequence[Arm]) -> dict[str, tuple[str, list[str]]]:
    specs = [json.dumps(arm.to_json()["edits"]) for arm in arms]
    return {
        "arm": ("arm", ["clean", "corrupt", *(arm.name for arm in arms)]),
        "row": ("arm", ["", "", *(arm.row for arm in arms)]),
        "column": ("arm", ["", "", *(arm.column for arm in arms)]),
        "direction": ("arm", ["", "", *(arm.direction for arm in arms)]),
        "role": ("arm", ["run", "run", *(arm.role for arm in arms)]),
        "spec": ("arm", ["", "", *specs]),
    }


def _with_screen(result: xr.Dataset, screen: xr.DataArray, spec: PatchingSpec) -> xr.Dataset:
    """The result with every cell's screening score, and how its ranks agree with those of exact patching."""
    assert spec.screening is not None
    result["screen"] = screen.reindex(arm=result.arm)
    agreement = rank_agreement(result.screen, result.impact.isel(scorer=0))
    result["screen_agreement"] = agreement
    told = {**spec.screening.model_dump(), "rows": int(screen.attrs["rows"])}
    result.attrs["screened"] = json.dumps(told)
    return result
