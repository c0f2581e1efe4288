"""What was imported into a study, a row an artefact."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.artefacts import Imported


def artefacts_frame(imported: Sequence[Imported]) -> pd.DataFrame:
    """One row an artefact: concept, positive and negative end, kind, sites, steps, norms (of steps), source, note."""
    rows = []
    for one in imported:
        told = one.metadata
        rows.append(
            {
                "concept": told["concept"],
                "positive": told["positive"],
                "negative": told["negative"],
                "kind": told["kind"],
                "sites": _sites(told),
                "steps": str(told.get("steps", "all alike")),
                "norms": _span(one) if "steps" in told else "–",
                "source": told["source"],
                "note": told.get("note", ""),
            }
        )
    names = ("concept", "positive", "negative", "kind", "sites", "steps", "norms", "source", "note")
    return pd.DataFrame(rows, columns=names)


def _sites(told: Mapping[str, Any]) -> str:
    """Where an artefact acts: its sites, or the blocks whose weights it changes, or the text."""
    names = list(told.get("sites", ())) or [f"tf{block} (weights)" for block in told.get("blocks", ())]
    names = names or [told.get("site", "text encoder")]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"


def _span(one: Imported) -> str:
    """The norms of all rows, from the smallest to the largest."""
    low, high = (
        pick(norms) for pick, norms in zip((min, max), zip(*one.norms.values(), strict=True), strict=True)
    )
    return f"{low:.3g}" if high - low < 5e-3 else f"{low:.3g} – {high:.3g}"
