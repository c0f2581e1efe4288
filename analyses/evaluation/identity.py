"""What an evaluation was made with: the SAE's weights and the judges, by which a result is known to be done."""

from collections.abc import Mapping
from typing import TypeVar

from analyses.evaluation.spec import EffectsSpec, EvaluationSpec
from workbench.provenance import content_hash
from workbench.sae.base import SAE
from workbench.scorers import Scorer
from workbench.tensor_files import digests

AnySpec = TypeVar("AnySpec", EvaluationSpec, EffectsSpec)


def settled(spec: AnySpec, sae: SAE, scorers: Mapping[str, Scorer], schema_version: int) -> AnySpec:
    """Return the spec with the hash of the SAE's weights, whatever its gate says, and the scorers' identities."""
    weights = {name: value.cpu().numpy() for name, value in sae.state_dict().items()}
    return spec.model_copy(
        update={
            "weights": content_hash(digests(weights)),
            "judges": {name: scorer.identity for name, scorer in scorers.items()},
            "schema_version": schema_version,
        }
    )
