"""What was imported into a study: a row an artefact, and a published map's block means beside the study's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.patching.published_map import functional_set
from dashboards.comparison import VALUES, Map
from workbench.artefacts import Imported

SIDES = ("published", "own")


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


def means_frame(published: Map, own: Map | None, threshold: float) -> pd.DataFrame:
    """Mean impact of each block over each map's concepts: side, block, mean, functional (mean at least `threshold`).

    The own map's sets of blocks have no place beside published blocks and are left out.
    """
    parts = []
    for side, one in zip(SIDES, (published, own), strict=True):
        if one is None:
            continue
        cells = one.cells[one.cells["row"].isin(published.rows) | (one.cells["block"] >= 0)]
        means = cells.groupby("row", sort=False)["impact"].mean()
        kept = functional_set(means, threshold)
        parts.append(
            pd.DataFrame(
                {
                    "side": side,
                    "block": means.index,
                    "mean": means.values,
                    "functional": means.index.isin(kept),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def maps_frame(published: Map, own: Map | None) -> pd.DataFrame:
    """The cells of both maps with all their concepts, as a map beside a map is drawn."""
    parts = [
        one.cells.assign(side=side, map=one.name)
        for side, one in zip(SIDES, (published, own), strict=True)
        if one is not None
    ]
    return pd.concat(parts, ignore_index=True)[["side", "map", "concept", "row", "block", *VALUES]]
