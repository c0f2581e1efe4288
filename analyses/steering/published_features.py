"""Vectors from published autoencoders and published scores of their features (TADA); nothing is generated."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from analyses.steering.closed_steps import used_saes
from analyses.steering.directions import labelled
from analyses.steering.reliability import reliability_of_refits
from analyses.steering.sae_features import UNIT, check_sae, chosen_features, saes_by_site
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.artefacts.concepts import Concept
from workbench.artefacts.scores import TABLES, ScoreTables
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import provenance
from workbench.sae.base import SAE
from workbench.validation import must_be


def vector_from_scores(
    model: AudioDiffusionModel,
    saes: Mapping[str, SAE],
    tables: Sequence[ScoreTables],
    *,
    k: int,
    score: Literal["tfidf", "diff", "mean_pos"] = "tfidf",
    contrastive: bool = False,
    settings: GenerationSettings | None = None,
) -> Vector:
    """Return the sum of the decoder rows of the `k` features with the largest published scores, at each site and step.

    The scores, and so the directions, are of the cond pass. Autoencoders and scores do not say which weights they
    belong to: they are taken for the model's.

    Args:
        model: the model to steer.
        saes: autoencoders by site, such as those of `read_sae`.
        tables: the scores of one concept, one table for each site, such as those of `read_scores`.
        k: features of each site and step; those with a score of 0 or less are left out.
        score: which of the published scores.
        contrastive: subtract the `k` features most specific to the negative prompts; only `diff` says which they are.
        settings: the settings of the scores, with as many steps.

    Raises:
        UserError: if the sites, concepts, steps or sizes of the autoencoders, the tables and the model do not fit
            together, or there is no such score.
    """
    must_be(AudioDiffusionModel, model, "A vector is made for a model, such as wb.load('ace-step-v1')")
    must_be(Mapping, saes, "Autoencoders must be given by site, such as {'tf6.cross_attn': sae}")
    must_be(Sequence, tables, "Scores must be a list of tables, such as those of read_scores")
    for table in tables:
        must_be(ScoreTables, table, "Scores must be tables such as those of read_scores")
    settings = settings_or_default(settings)
    given = saes_by_site(saes, model.block_names)
    concept = _concept(tables)
    if contrastive and score != "diff":
        raise UserError(
            f"The published score {score} says nothing about the negative prompts. Use score='diff'."
        )
    sigmas = model.sigmas(settings)
    directions = {}
    for table in tables:
        if table.site not in given:
            raise UserError(f"There is no autoencoder for {table.site}, only for {', '.join(given)}.")
        sae = given[table.site]
        check_sae(sae, Site.parse(table.site), model, k, len(sigmas))
        scores = _scores(table, score, len(sigmas), sae.config.d_sae)
        chosen = chosen_features(scores, -scores if contrastive else None, k)
        directions[table.site] = chosen.direction(sae)
    return Vector(
        method="sae_features",
        concept=concept.name,
        positive=concept.positive,
        negative=concept.negative,
        directions={site: labelled(values, site, ["cond"], sigmas) for site, values in directions.items()},
        unit=UNIT,
        model=model.describe(),
        settings=settings,
        sampling=model.sampling(settings),
        examples=(),
        reliability=reliability_of_refits(lambda _: directions, 1, ["cond"], 0),
        saes=used_saes({site: given[site] for site in directions}, sigmas),
        provenance=provenance(scores=[table.origin.source for table in tables]),
    )


def _concept(tables: Sequence[ScoreTables]) -> Concept:
    """Return the concept of all tables; raise UserError if they have several, or several tables are of one site."""
    concepts = {table.concept.name: table.concept for table in tables}
    if len(concepts) != 1:
        raise UserError(f"Scores must be of one concept; got {', '.join(concepts) or 'no table'}.")
    sites = [table.site for table in tables]
    if len(set(sites)) < len(sites):
        raise UserError(f"Scores must be one table for each site; got {', '.join(sites)}.")
    return concepts[next(iter(concepts))]


def _scores(
    table: ScoreTables, score: str, n_steps: int, n_features: int
) -> Float[np.ndarray, "1 step feature"]:
    """Return a table's scores in the cond pass; raise UserError if they are of other steps or features."""
    if score not in TABLES:
        raise UserError(f"Unknown published score '{score}'. Use one of {', '.join(TABLES)}.")
    values = table.tables[score]
    if values.shape != (n_steps, n_features):
        raise UserError(
            f"The scores of {table.site} are of {values.shape[0]} steps and {values.shape[1]} features, but the "
            f"settings have {n_steps} steps and the autoencoder {n_features} features."
        )
    return values[None]
