"""The impacts that a paper published, as a result of a study.

A result of its own kind, "published", and no "patching" one: a published table has block impacts and nothing that they
rest on (no scores, pairs or seeds, no denominators, intervals, p-values or null band), and a patching result filled
with missing values would say of each concept that its impact is undefined.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import xarray as xr
from pydantic import BaseModel, ConfigDict

from cache.errors import UserError
from workbench.artefacts.checks import slug
from workbench.artefacts.published import load_published, published_impacts, published_models
from workbench.artefacts.sources import sha256_of
from workbench.studies.study import Study

KIND = "published"
SCHEMA_VERSION = 1
PREFIX = "published-"


class PublishedMapSpec(BaseModel):
    """Which table, by its name and content, and which of its models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    source: str
    sha256: str


def block_means(table: pd.DataFrame, model: str = "") -> pd.Series:
    """Mean impact of each block over the concepts, each with equal weight; in the table's order of blocks.

    `table` is as `load_published` gives it. Raises UserError as `published_impacts` does.
    """
    return published_impacts(table, model).groupby("block", sort=False)["impact"].mean()


def functional_set(means: pd.Series | Mapping[str, float], threshold: float) -> list[str]:
    """The blocks whose mean impact is at least `threshold` (TADA, arXiv 2602.11910: τ = 0.10), in their order."""
    return [str(block) for block, mean in means.items() if mean >= threshold]


def published_map(table: pd.DataFrame, model: str = "") -> xr.Dataset:
    """One model's table as a dataset: `impact` (concept, block), `mean` (block), and each concept's `metric`.

    Impacts are floored at 0 and not capped by their authors; NaN where the table has none.
    """
    impacts = published_impacts(table, model)
    chosen = model or published_models(table)[0]
    concepts, blocks = (list(dict.fromkeys(impacts[name])) for name in ("concept", "block"))
    wide = impacts.pivot(index="concept", columns="block", values="impact").reindex(concepts, columns=blocks)
    rows = table[table["model"] == chosen]
    metrics = [
        ", ".join(dict.fromkeys(rows.loc[rows["concept"] == concept, "metric"])) for concept in concepts
    ]
    return xr.Dataset(
        {
            "impact": (("concept", "block"), wide.to_numpy(float)),
            "mean": ("block", block_means(table, model).reindex(blocks).to_numpy(float)),
        },
        {"concept": concepts, "block": blocks, "metric": ("concept", metrics)},
        {"kind": KIND, "schema_version": SCHEMA_VERSION, "model": chosen},
    )


def import_published_map(study: Study, file: Path, model: str = "") -> xr.Dataset:
    """Save one model of a published table as the study's result `published-<model>`, and give it.

    Raises:
        UserError: for a table that cannot be read, and for an unknown model.
    """
    result = published_map(load_published(file), model)
    chosen = slug(str(result.attrs["model"]), f"the model of {file}")
    spec = PublishedMapSpec(model=chosen, source=file.name, sha256=sha256_of(file))
    with study.making(f"{PREFIX}{chosen}"):
        return study.save_result(f"{PREFIX}{chosen}", result, spec, 0.0)


def published_names(study: Study) -> list[str]:
    """Models of the published maps that a study has."""
    return [name.removeprefix(PREFIX) for name in study.result_names() if name.startswith(PREFIX)]


def load_published_map(study: Study, model: str) -> xr.Dataset:
    """A study's published map; raises UserError when it has none of that model, or one of another version."""
    known = published_names(study)
    if model not in known:
        raise UserError(
            f"{study.path} has no published map of '{model}' (it has {', '.join(known) or 'none'}): import one with "
            "`workbench import localisation`."
        )
    result = study.result(f"{PREFIX}{model}")
    if result.attrs["kind"] != KIND or int(result.attrs["schema_version"]) != SCHEMA_VERSION:
        raise UserError(
            f"The published map of '{model}' in {study.path} is of another version: import it again."
        )
    return result
