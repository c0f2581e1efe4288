"""Sequential stopping: pairs are added until a map's top cells are clear of all others."""

import itertools
from collections.abc import Callable, Sequence

from analyses.patching.arms import Arm
from analyses.patching.dataset import Arms, score_array
from analyses.patching.impact import impact
from analyses.patching.sweep import Sweep
from analyses.statistics import separated
from cache.wording import counted

Progress = Callable[[int, int], None]


def run_pairs(
    sweep: Sweep, arms: Arms, stop_top: int, min_pairs: int, progress: Progress
) -> tuple[dict[str, int], str]:
    """Run each concept's arms in all its pairs, or until the `stop_top` top cells are clear, if that is not 0.

    `progress(done, total)` counts pairs times seeds.

    Returns:
        The number of pairs that were run for each concept, and a sentence on where it stopped ("" without `stop_top`).
    """
    active, sentences = list(sweep.contexts), []
    n_run = {concept: len(pairs) for concept, pairs in sweep.contexts.items()}
    n_seeds, most = sweep.n_seeds, max(n_run.values())
    done, total = 0, sum(n_run.values()) * n_seeds
    progress(done, total)
    # Every check is another chance to stop by luck, so check rarely.
    looks = [look for k in range(32) if stop_top and (look := min_pairs * 2**k) < most]
    for first, last in itertools.pairwise([0, *looks, most]):
        for _ in sweep.run({concept: arms[concept] for concept in active}, range(first, last)):
            done += 1
            progress(done, total)
        if last == most:
            break
        finished = [
            concept
            for concept in active
            if last < n_run[concept] and _is_separated(sweep, concept, last, arms[concept], stop_top)
        ]
        sentences += [f"{concept} after {counted(last, 'pair')}" for concept in finished]
        active = [concept for concept in active if concept not in finished]
        total -= sum(n_run[concept] - last for concept in finished) * n_seeds
        n_run |= dict.fromkeys(finished, last)
        progress(done, total)
    if not stop_top:
        return n_run, ""
    when = ", ".join(sentences) or "none"
    top = "top cell's interval" if stop_top == 1 else f"top {stop_top} cells' intervals"
    apart = f"Stopped when the {top} lay above all others': {when}."
    ended = f" Ended with the budget of {counted(most, 'pair')}: {', '.join(active)}." if active else ""
    return n_run, apart + ended


def _is_separated(sweep: Sweep, concept: str, n_pairs: int, arms: Sequence[Arm], top: int) -> bool:
    """Whether the top cells are clear of all others by every scorer that hears the concept."""
    cells = [arm for arm in arms if arm.role == "cell"]
    scores = score_array(sweep, {concept: sweep.contexts[concept][:n_pairs]}, cells)
    found = impact(scores).sel(concept=concept)
    cells_only = found.sel(arm=found.role == "cell")
    hearing = [scorer for scorer in sweep.scorers if found.n.sel(scorer=scorer) > 0]
    return bool(hearing) and all(
        separated(
            cells_only.impact.sel(scorer=scorer).values,
            cells_only.impact_lo.sel(scorer=scorer).values,
            cells_only.impact_hi.sel(scorer=scorer).values,
            top,
        )
        for scorer in hearing
    )
