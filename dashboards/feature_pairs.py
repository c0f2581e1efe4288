"""The features of two autoencoders in pairs, matched once for each version of their results."""

from functools import lru_cache
from pathlib import Path

from analyses.sae.pairs import By, Pairs, feature_pairs
from dashboards.results import Identity, result_identity
from workbench.studies.study import Study


def matched_pairs(study: Study, name: str, other: str, by: By | None) -> Pairs:
    """The pairs of `analyses.sae.pairs.feature_pairs`, most alike first.

    Raises:
        UserError: as there.
    """
    versions = (result_identity(study, f"sae-{name}"), result_identity(study, f"sae-{other}"))
    return _matched(study.path, name, other, versions, by)


@lru_cache(maxsize=8)
def _matched(
    study_path: Path, name: str, other: str, versions: tuple[Identity, Identity], by: By | None
) -> Pairs:
    del versions  # only part of the cache key: changed results are read again
    found = feature_pairs(Study.open(study_path), name, other, by)
    order = "cosine" if found.by == "decoder" else "correlation"
    return found._replace(
        frame=found.frame.sort_values(order, ascending=False, kind="stable", ignore_index=True)
    )
