"""Steering methods against planted circuits: what each does to its concept and to others, where it can act and not.

Every method is tried at the blocks that decide the concept, and at all others, on prompts that no direction was
computed from. Random vectors of the same norms are the null. Writes the table of docs/steering-truth.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from analyses.steering import CAA, AUSteer, fit, free_sliders, pci, text_embedding, token_embedding
from analyses.steering.ladder import nulls
from analyses.steering.pairs import ends
from analyses.steering.run import Way, run_steering
from analyses.steering_spec import SteeringSpec
from benchmarks._result import write_result
from benchmarks._tables import write_table
from dashboards.numbers import fixed, span
from dashboards.tables.steering import doses_frame
from workbench.engine.sites import Site
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.reading import encoder
from workbench.studies.planning import plan_study
from workbench.studies.study import Study

ORGANISMS = ("organism-shared", "organism-split")
POSITIVE = {"instrument": "violin", "mood": "happy", "tempo": "fast", "drums": "with drums"}
FIT_PAIRS, PAIRS, RANDOMS = 20, 8, 20
STRENGTHS = (1.0, 2.0, 3.0)
OWN_STRENGTHS = {
    "AUSteer": (0.2, 0.4, 0.8),
    "PCI": (2.0, 4.0, 8.0),
    "TextEmb": (0.5, 1.0, 2.0),
    "TokEmb": (0.5, 1.0, 2.0),
    "FreeSliders": (0.5, 1.0, 2.0),
}
"""Strengths of methods whose unit is not the mean difference: parts of the channels' signs, steps, whole prompts."""


def ways(
    study: Study, model: AudioDiffusionModel, concept: str, sites: Sequence[str], fitted: list[str]
) -> Iterator[Way]:
    """Yield every method at some sites, and random vectors; add the prompts of the pairs they fit to `fitted`.

    All vectors are computed from one capture of the same pairs.
    """
    common: dict[str, Any] = {
        "positive": POSITIVE[concept],
        "prompts": study.spec.prompts,
        "settings": study.spec.settings,
    }
    channels = sum(model.channels(site) for site in map(Site.parse, sites))
    by_token, signs = fit(
        model, concept, sites, [CAA(time="token"), AUSteer(k=channels // 2)], pairs=FIT_PAIRS, **common
    )
    fitted += sorted({example.prompt for example in by_token.examples})
    constant = by_token.over_time()
    yield Way("CAA", constant.at)
    yield Way("CAA by token", by_token.at)
    yield Way("AUSteer", signs.at, OWN_STRENGTHS["AUSteer"])
    through_prompt: dict[str, Callable[..., Any]] = {
        "PCI": pci,
        "TextEmb": text_embedding,
        "TokEmb": token_embedding,
        "FreeSliders": free_sliders,
    }
    for name, method in through_prompt.items():
        yield Way(name, method(model, concept, sites, **common).at, OWN_STRENGTHS[name])
    for null in nulls("CAA", constant, RANDOMS, 0):
        yield replace(null, strengths=STRENGTHS[-1:])


def tried(
    study: Study, model: AudioDiffusionModel, concept: str, sites: Sequence[str], where: str
) -> pd.DataFrame:
    """Try every method at some sites; return a row for each dose and concept (see `doses_frame`)."""
    fitted: list[str] = []
    methods = list(ways(study, model, concept, sites, fitted))
    positive, negatives = ends(study.spec.prompts, concept, POSITIVE[concept])
    spec = SteeringSpec(
        name=f"{concept}-{where}",
        concept=concept,
        positive=positive,
        negatives=tuple(negatives),
        pairs=PAIRS,
        strengths=STRENGTHS,
        without=tuple(fitted),
    )
    return doses_frame(run_steering(study, model, spec, methods))


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
    random = own[own["role"] == "null"]
    if not random.empty:
        low, high = random["effect"].quantile([0.025, 0.975])
        yield {
            "method": f"{RANDOMS} random vectors",
            **scale,
            "at": f"{STRENGTHS[-1]:g}",
            "largest change [95 %]": span(low, high),
        }


def main() -> None:
    """Try every method on every concept of both organisms; write results/steering.json and the table in the docs."""
    rows: list[dict[str, str]] = []
    for name in ORGANISMS:
        model = load_model(name)
        spec = plan_study(model)
        with TemporaryDirectory() as folder:
            encode = encoder(model, spec.lyrics, spec.settings)
            study = Study.create(Path(folder) / name, spec, model.describe(), encode)
            for concept, planted in planted_blocks(study).items():
                others = [block for block in range(model.n_blocks) if block not in planted]
                for where, blocks in (("planted", planted), ("others", others)):
                    sites = [f"tf{block}.cross_attn" for block in blocks]
                    place = {"organism": name, "concept": concept, "blocks": _shown(where, blocks)}
                    found = [{**place, **line} for line in lines(tried(study, model, concept, sites, where))]
                    print(pd.DataFrame(found).to_string(), flush=True)
                    rows += found
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
    main()
