"""What an evaluation was made with: the SAE's weights and the judges, by which a result is known to be done."""

from collections.abc import Mapping
from typing import TypeVar

from analyses.evaluation.spec import EffectsSpec, EvaluationSpec
from workbench.scorers import Scorer

AnySpec = TypeVar("AnySpec", EvaluationSpec, EffectsSpec)


def settled(
    spec: AnySpec, weights: str | Mapping[str, str], scorers: Mapping[str, Scorer], schema_version: int
) -> AnySpec:
    """Return the spec with the hash of the SAE's weights, or those of several by name, and the scorers' identities."""
    return spec.model_copy(
        update={
            "weights": weights,
            "judges": {name: scorer.identity for name, scorer in scorers.items()},
            "schema_version": schema_version,
        }
    )
