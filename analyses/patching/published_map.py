"""The impacts that a paper published, as a result of a study.

Its kind is "published", not "patching", because a published table has only block impacts (no scores, pairs, seeds,
denominators, intervals, p-values or null band), and a patching result filled with missing values would mean that the
impact of each concept is undefined.
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
    """A published table, identified by name and content, and one of its models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    source: str
    sha256: str


def block_means(table: pd.DataFrame, model: str = "") -> pd.Series:
    """Return the mean impact of each block over the concepts, equally weighted, in the table's order of blocks.

    `table` is as `load_published` returns it. Raises UserError as `published_impacts` does.
    """
    return published_impacts(table, model).groupby("block", sort=False)["impact"].mean()


def functional_set(means: pd.Series | Mapping[str, float], threshold: float) -> list[str]:
    """Return the blocks whose mean impact is at least `threshold` (TADA, arXiv 2602.11910: τ = 0.10), in order."""
    return [str(block) for block, mean in means.items() if mean >= threshold]


def published_map(table: pd.DataFrame, model: str = "") -> xr.Dataset:
    """Convert one model's table to a dataset: `impact` (concept, block), `mean` (block), and each concept's `metric`.

    Its authors floored impacts at 0 and did not cap them; NaN where the table has none.
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
    """Save one model of a published table as the study's result `published-<model>`, and return it.

    Raises:
        UserError: if the table cannot be read, or the model is unknown.
    """
    result = published_map(load_published(file), model)
    chosen = slug(str(result.attrs["model"]), f"the model of {file}")
    spec = PublishedMapSpec(model=chosen, source=file.name, sha256=sha256_of(file))
    with study.making(f"{PREFIX}{chosen}"):
        return study.save_result(f"{PREFIX}{chosen}", result, spec, 0.0)


def published_names(study: Study) -> list[str]:
    """Return the models of a study's published maps."""
    return [name.removeprefix(PREFIX) for name in study.result_names() if name.startswith(PREFIX)]


def load_published_map(study: Study, model: str) -> xr.Dataset:
    """Load a study's published map; raise UserError if it has none of that model, or one of another version."""
    known = published_names(study)
    if model not in known:
        raise UserError(
            f"{study.path} has no published map of '{model}' (it has {', '.join(known) or 'none'}). Import one with "
            "`workbench import localisation`."
        )
    result = study.result(f"{PREFIX}{model}")
    if result.attrs["kind"] != KIND or int(result.attrs["schema_version"]) != SCHEMA_VERSION:
        raise UserError(
            f"The published map of '{model}' in {study.path} is of another version. Import it again."
        )
    return result
