"""A table of the artefacts imported into a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboards.numbers import significant
from workbench.artefacts.written import Imported


def artefacts_frame(imported: Sequence[Imported]) -> pd.DataFrame:
    """One row per artefact: concept, positive and negative end, kind, sites, steps, norms (of steps), source, note."""
    rows = []
    for one in imported:
        metadata = one.metadata
        rows.append(
            {
                "concept": metadata["concept"],
                "positive": metadata["positive"],
                "negative": metadata["negative"],
                "kind": metadata["kind"],
                "sites": _sites(metadata),
                "steps": str(metadata.get("steps", "all")),
                "norms": _span(one) if "steps" in metadata else "–",
                "source": metadata["source"],
                "note": metadata.get("note", ""),
            }
        )
    names = ("concept", "positive", "negative", "kind", "sites", "steps", "norms", "source", "note")
    return pd.DataFrame(rows, columns=names)


def _sites(metadata: Mapping[str, Any]) -> str:
    """Name the places where an artefact acts: its sites, the blocks whose weights it changes, or the text encoder."""
    names = list(metadata.get("sites", ())) or [
        f"tf{block} (weights)" for block in metadata.get("blocks", ())
    ]
    names = names or [metadata.get("site", "text encoder")]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"


def _span(one: Imported) -> str:
    """The range of the norms of all rows."""
    low, high = (
        pick(norms) for pick, norms in zip((min, max), zip(*one.norms.values(), strict=True), strict=True)
    )
    return significant(low) if high - low < 5e-3 else f"{significant(low)} – {significant(high)}"
