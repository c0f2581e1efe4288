"""Steering methods against planted circuits: what each does to its concept and to others, where it can act and not.

Every method is tried at the blocks that decide the concept, and at all others, on prompts that no direction was
computed from. Random vectors of the same norms are the null. Writes the table of docs/steering-truth.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from analyses.evaluation.methods import mean_norm
from analyses.sae.names import load_sae
from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA
from analyses.steering.capture import fit
from analyses.steering.concept_slider import concept_slider
from analyses.steering.free_sliders import free_sliders
from analyses.steering.ladder import nulls
from analyses.steering.pairs import ends
from analyses.steering.pci import pci
from analyses.steering.run import Way, run_steering
from analyses.steering.sae_features import SAEFeatures
from analyses.steering.text_embedding import text_embedding
from analyses.steering.token_embedding import token_embedding
from analyses.steering.vector import Vector
from analyses.steering_spec import SteeringSpec
from benchmarks._result import write_result
from benchmarks._tables import write_table
from dashboards.notebook import OpenStudy, trace
from dashboards.numbers import fixed, span
from dashboards.tables.steering import doses_frame
from workbench.engine.edits import Edit
from workbench.engine.sites import Site
from workbench.studies.study import Study

ORGANISMS = ("organism-shared", "organism-split")
POSITIVE = {"instrument": "violin", "mood": "happy", "tempo": "fast", "drums": "with drums"}
FIT_PAIRS, PAIRS, RANDOMS = 20, 8, 20
STRENGTHS = (1.0, 2.0, 3.0)
KEPT = "CAA, same latents, norms kept"
OWN_STRENGTHS = {
    KEPT: (2.0, 4.0, 8.0),
    "Concept Slider": (1.0, 2.0, 4.0),
    "PCI": (2.0, 4.0, 8.0),
    "TextEmb": (0.5, 1.0, 2.0),
    "TokEmb": (0.5, 1.0, 2.0),
    "FreeSliders": (0.5, 1.0, 2.0),
}
"""Strengths of methods of other units (LoRAs, steps, whole prompts), or that need larger ones (kept norms)."""
FEATURES, TOP_K, SAE_STEPS, TRACED = 8, 8, 400, 56
"""Features of a site's direction; active features and training steps of the autoencoders, and their clips."""
ITERATIONS, LEARNING_RATE = 300, 3e-3
"""Of the sliders: the organisms are small, and need a larger learning rate than TADA's models."""


def ways(
    study: OpenStudy,
    concept: str,
    sites: Sequence[str],
    strengths_of_random: Sequence[float],
    fitted: list[str],
) -> Iterator[Way]:
    """Yield every method at some sites, and random vectors; add the prompts of the pairs they fit to `fitted`.

    Vectors of the same latents are computed from one capture of the same pairs.
    """
    model, spec = study.model, study.folder.spec
    common: dict[str, Any] = {
        "positive": POSITIVE[concept],
        "prompts": spec.prompts,
        "settings": spec.settings,
    }
    channels = sum(model.channels(site) for site in map(Site.parse, sites))
    saes = {site: load_sae(study.folder, site) for site in sites}
    own = [CAA(time="token"), AUSteer(k=channels // 2), SAEFeatures(saes=saes, k=FEATURES)]
    by_token, signs, features = fit(model, concept, sites, own, pairs=FIT_PAIRS, **common)
    (same,) = fit(model, concept, sites, own[:1], pairs=FIT_PAIRS, latents="positive", **common)
    fitted += sorted({example.prompt for example in by_token.examples})
    constant = by_token.over_time()
    yield Way("CAA", constant.at)
    yield Way("CAA by token", by_token.at)
    yield Way("CAA, same latents", same.over_time().at)
    yield Way("CAA by token, same latents", same.at)
    yield Way(KEPT, partial(same.over_time().at, keep_norm=True), OWN_STRENGTHS[KEPT])
    yield Way("AUSteer", scaled(signs, constant))
    yield Way("SAE features", scaled(features, constant))
    slider = concept_slider(
        model, concept, sites, iterations=ITERATIONS, learning_rate=LEARNING_RATE, pairs=FIT_PAIRS, **common
    )
    yield Way("Concept Slider", slider.at, OWN_STRENGTHS["Concept Slider"])
    through_prompt: dict[str, Callable[..., Any]] = {
        "PCI": pci,
        "TextEmb": text_embedding,
        "TokEmb": token_embedding,
        "FreeSliders": free_sliders,
    }
    for name, method in through_prompt.items():
        yield Way(name, method(model, concept, sites, **common).at, OWN_STRENGTHS[name])
    for null in nulls("CAA", constant, RANDOMS, 0):
        yield replace(null, strengths=tuple(strengths_of_random))


def scaled(vector: Vector, like: Vector) -> Callable[[float], Sequence[Edit]]:
    """Return a vector's edits at a strength in norms of another: their mean norms at a strength are the same."""
    own, other = mean_norm(vector), mean_norm(like)
    return lambda strength: vector.at(strength * other / own) if own else ()


def tried(study: OpenStudy, concept: str, sites: Sequence[str], where: str) -> pd.DataFrame:
    """Try every method at some sites; return a row for each dose and concept (see `doses_frame`)."""
    fitted: list[str] = []
    of_random = STRENGTHS if where == "planted" else STRENGTHS[-1:]
    methods = list(ways(study, concept, sites, of_random, fitted))
    positive, negatives = ends(study.folder.spec.prompts, concept, POSITIVE[concept])
    spec = SteeringSpec(
        name=f"{concept}-{where}",
        concept=concept,
        positive=positive,
        negatives=tuple(negatives),
        pairs=PAIRS,
        strengths=STRENGTHS,
        without=tuple(fitted),
    )
    return doses_frame(run_steering(study.folder, study.model, spec, methods))


def lines(doses: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Yield a line of the table for each method: the concept's score at each strength, and the others' changes."""
    own, others = doses[doses["own"]], doses[~doses["own"]].dropna(subset="effect")
    unsteered, real = (own[own["arm"] == run].iloc[0] for run in ("corrupt", "clean"))
    scale = {"unsteered": fixed(unsteered["score"]), "real prompt": fixed(real["score"])}
    for way, part in own[own["role"] == "cell"].groupby("way", sort=False):
        best = part.loc[part["effect"].idxmax()]
        moved = others[others["arm"] == best["arm"]]
        leaks = ", ".join(f"{row.concept} {fixed(row.effect)}" for row in moved.itertuples())
        yield {
            "method": str(way),
            **scale,
            "scores": " / ".join(fixed(score) for score in part["score"]),
            "largest change [95 %]": f"{fixed(best['effect'])} {span(best['effect_lo'], best['effect_hi'])}",
            "at": f"{best['strength']:g}",
            "others at this strength": leaks,
        }
    for strength, random in own[own["role"] == "null"].groupby("strength"):
        low, high = random["effect"].quantile([0.025, 0.975])
        yield {
            "method": f"{RANDOMS} random vectors",
            **scale,
            "at": f"{strength:g}",
            "largest change [95 %]": span(low, high),
        }


def of_organism(name: str) -> Iterator[dict[str, str]]:
    """Try every method on every concept of an organism; yield the lines of the table."""
    with TemporaryDirectory() as folder:
        study = trace(name, out=Path(folder) / name, sites="*.cross_attn", n_prompts=TRACED, seeds=1)
        blocks = range(study.model.n_blocks)
        for block in blocks:
            study.train_sae(f"tf{block}.cross_attn", k=TOP_K, train_steps=SAE_STEPS)
        for concept, planted in planted_blocks(study.folder).items():
            others = [block for block in blocks if block not in planted]
            for where, chosen in (("planted", planted), ("others", others)):
                sites = [f"tf{block}.cross_attn" for block in chosen]
                place = {"organism": name, "concept": concept, "blocks": _shown(where, chosen)}
                yield from ({**place, **line} for line in lines(tried(study, concept, sites, where)))


def write(rows: Sequence[dict[str, str]]) -> None:
    """Write results/steering.json and the table in the docs."""
    write_result("steering", {"rows": rows, "fit_pairs": FIT_PAIRS, "pairs": PAIRS, "randoms": RANDOMS})
    write_table("steering-truth.md", "table", pd.DataFrame(rows).fillna(""))


def planted_blocks(study: Study) -> dict[str, list[int]]:
    """Return the blocks of each concept on the organism's truth card."""
    card = study.truth_card()
    assert card is not None
    return {concept: [int(block) for block in blocks] for concept, blocks in card["concepts"].items()}


def _shown(where: str, blocks: Sequence[int]) -> str:
    return "all others" if where == "others" else "+".join(f"tf{block}" for block in blocks)


if __name__ == "__main__":
    write([row for name in ORGANISMS for row in of_organism(name)])
