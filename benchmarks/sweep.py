"""Cost of exact and screened patching maps compared with the reference protocol: denoiser rows, seconds and scores.

The reference protocol (TADA, arXiv 2602.11910) runs one generation for each arm, with the clean one repeated beside it.
Here all arms of a pair are one batch. Both decode and score their clips. The screened map screens a few pairs, then
runs the top cells exactly on all pairs.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from analyses.patching.arms import Arm, Request, arms_of, patch_arm
from analyses.patching.contexts import PairContext, prompt_set_contexts
from analyses.patching.screening import velocity_screen
from analyses.patching.spec import PatchingSpec
from analyses.patching.sweep import run_arms
from benchmarks._result import write_result
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import load_prompt_set
from workbench.scorers import Scorer, load_scorer

MODEL = "organism-shared"
SETTINGS = GenerationSettings()
CONCEPTS = ("instrument", "tempo", "mood", "drums")
TIMED_PAIRS = 2
PAIRS, SCREENED_PAIRS, TOP = 12, 3, 3
WINDOWS = 4


class Lab:
    """A model and a scorer, with counts of their work."""

    def __init__(self) -> None:
        self.model: AudioDiffusionModel = load_model(MODEL)
        self.scorer: Scorer = load_scorer("embedded")
        self.rows = 0

    def scores(self, latents: object, text: str) -> Float[np.ndarray, " arm"]:
        """Score latents; equal ones are decoded once."""
        contents = [row.cpu().numpy().tobytes() for row in latents]
        places = {content: i for i, content in reversed(list(enumerate(contents)))}
        distinct = sorted(places.values())
        audio = self.model.decode(latents[distinct]).cpu().numpy()
        found = dict(
            zip(distinct, self.scorer.score(audio, self.model.sample_rate, [text])[:, 0], strict=True)
        )
        return np.array([found[places[content]] for content in contents])

    def ours(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> Float[np.ndarray, " arm"]:
        """Scores of clean, corrupt and the arms, generated as one batch."""
        run = run_arms(self.model, context, seed, arms, SETTINGS)
        self.rows += run.rows
        return self.scores(run.latents, context.pair.text)

    def reference(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> Float[np.ndarray, " arm"]:
        """The same scores from one generation per arm (including none and all) with the clean run beside it."""
        clean, corrupt = (Clip(prompt.text, seed) for prompt in (context.pair.clean, context.pair.corrupt))
        everything = patch_arm("all", "", [f"tf{block}.cross_attn" for block in range(self.model.n_blocks)])
        scores = []
        for arm in (everything, None, *arms):
            edits = () if arm is None else arm.edits
            changed = Run(corrupt, edits).bound({"clean": [Run(clean)]})
            run = self.model.generate_batch([clean, changed], SETTINGS)
            self.rows += 2 * SETTINGS.num_steps * len(self.model.passes(SETTINGS))
            scores.append(self.scores(run.latents[1:], context.pair.text)[0])
        return np.array(scores)


def timed(lab: Lab, protocol: str, contexts: Sequence[PairContext], arms: Sequence[Arm]) -> dict[str, object]:
    """Rows, seconds and scores of a protocol on the pairs."""
    lab.rows, started = 0, time.perf_counter()
    scores = [getattr(lab, protocol)(context, 1000 + p, arms) for p, context in enumerate(contexts)]
    return {"rows": lab.rows, "seconds": time.perf_counter() - started, "scores": np.array(scores)}


def compare(lab: Lab, arms: Sequence[Arm]) -> dict[str, object]:
    """Our rows and seconds as fractions of the reference's, and the largest difference in scores."""
    contexts = prompt_set_contexts(load_prompt_set("organism"), "mood", TIMED_PAIRS, seed=0)
    lab.ours(contexts[0], 0, arms)  # warm
    ours, reference = (timed(lab, protocol, contexts, arms) for protocol in ("ours", "reference"))
    return {
        "arms": len(arms) + 2,
        "rows": ours["rows"],
        "reference_rows": reference["rows"],
        "ratio_rows": ours["rows"] / reference["rows"],
        "seconds": ours["seconds"],
        "reference_seconds": reference["seconds"],
        "ratio_seconds": ours["seconds"] / reference["seconds"],
        "largest_score_difference": float(np.abs(ours["scores"] - reference["scores"]).max()),
    }


def screened(lab: Lab, arms: Sequence[Arm]) -> dict[str, object]:
    """Compare screening a few pairs and running the top cells exactly with the whole exact map of all pairs."""
    exact, screens, screen_rows, confirm_rows = [], [], 0, 0
    for concept in CONCEPTS:
        contexts = prompt_set_contexts(load_prompt_set("organism"), concept, PAIRS, seed=0)
        found = [
            velocity_screen(lab.model, context, 1000 + p, arms, SETTINGS)
            for p, context in enumerate(contexts[:SCREENED_PAIRS])
        ]
        screens.append(np.mean([scores for scores, _ in found], axis=0))
        screen_rows += sum(rows for _, rows in found)
        scores = np.array([lab.ours(context, 1000 + p, arms) for p, context in enumerate(contexts)]).mean(
            axis=0
        )
        exact.append((scores[2:] - scores[1]) / (scores[0] - scores[1]))
    # Floored at 0, as the paper's impacts are, before the mean over concepts.
    mean_exact, mean_screen = (np.maximum(values, 0).mean(axis=0) for values in (exact, screens))
    unfloored = float(stats.spearmanr(np.mean(exact, axis=0), np.mean(screens, axis=0)).statistic)
    tops = [set(np.argsort(-values, kind="stable")[:TOP].tolist()) for values in (mean_exact, mean_screen)]
    best = [arms[i] for i in sorted(tops[1])]
    for concept in CONCEPTS:
        contexts = prompt_set_contexts(load_prompt_set("organism"), concept, PAIRS, seed=0)
        confirm_rows += sum(
            run_arms(lab.model, c, 1000 + p, best, SETTINGS).rows for p, c in enumerate(contexts)
        )
    passes = SETTINGS.num_steps * len(lab.model.passes(SETTINGS))
    reference_rows = len(CONCEPTS) * PAIRS * (len(arms) + 2) * 2 * passes
    return {
        "cells": len(arms),
        "pairs": PAIRS,
        "screened_pairs": SCREENED_PAIRS,
        "rows": screen_rows + confirm_rows,
        "reference_rows": reference_rows,
        "ratio_rows": (screen_rows + confirm_rows) / reference_rows,
        "rank_agreement": float(stats.spearmanr(mean_exact, mean_screen).statistic),
        "rank_agreement_without_floor": unfloored,
        "top_equal": tops[0] == tops[1],
        "top": {
            arms[i].name: [float(mean_exact[i]), float(mean_screen[i])] for i in sorted(tops[0] | tops[1])
        },
    }


def map_arms(lab: Lab, question: str, **options: Any) -> list[Arm]:
    """A question's arms that patch from the clean run into the corrupt one."""
    spec = PatchingSpec(question=question, directions=("sufficiency",), **options)
    return arms_of(Request(lab.model, SETTINGS, spec))


def main() -> None:
    """Measure and write results/sweep.json."""
    lab = Lab()
    metrics = {
        "blocks": compare(lab, map_arms(lab, "blocks")),
        "blocks_by_steps": compare(lab, map_arms(lab, "steps", windows=SETTINGS.num_steps)),
        "screened_blocks_by_windows": screened(lab, map_arms(lab, "steps", windows=WINDOWS)),
    }
    print(write_result("sweep", metrics).read_text())


if __name__ == "__main__":
    main()
