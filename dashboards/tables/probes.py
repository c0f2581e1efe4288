"""The table of probe maps."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from analyses.statistics import benjamini_hochberg
from workbench.engine.sites import Site

COLUMNS = {
    "accuracy_mean": "accuracy",
    "accuracy_lo": "accuracy_lo",
    "accuracy_hi": "accuracy_hi",
    "control_mean": "control",
    "selectivity": "selectivity",
    "p_value": "p_value",
    "q_value": "q_value",
    "sigma": "sigma",
    "chance": "chance",
    "n": "n",
    "groups": "groups",
    "held_together": "held_together",
}
RIDGE_COLUMNS = {
    "r2": "r2",
    "r2_lo": "r2_lo",
    "r2_hi": "r2_hi",
    "r2_control": "control",
    "r2_p": "p_value",
    "q_value": "q_value",
    "sigma": "sigma",
    "descriptor_n": "n",
    "descriptor_groups": "groups",
}
HELD_TOGETHER = {"context": "contexts (prompts that differ only in the concept)", "prompt": "single prompts"}
"""What was never split between training and test (`held_together` of the result), in words."""


def probes_frame(result: xr.Dataset) -> pd.DataFrame:
    """One row for each probe (concept, site, step), sites in order of computation.

    Columns: concept, site, block (its number, or its name if the model names its blocks), part, step, accuracy
    with its interval, control, selectivity, p_value, q_value (Benjamini–Hochberg over all probes of the result), sigma,
    chance, n, groups, held_together (a key of `HELD_TOGETHER`).
    """
    q_values = benjamini_hochberg(np.asarray(result["p_value"].values, dtype=np.float64))
    return _frame(result.assign(q_value=(result["p_value"].dims, q_values)), "concept", COLUMNS)


def _frame(result: xr.Dataset, what: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """The probes of concepts or descriptors as rows, with these columns, by the variables' names."""
    sites = sorted((Site.parse(str(site)) for site in result["site"].values), key=lambda site: site.order)
    probes = result.sel(site=[str(site) for site in sites])
    frame = probes[list(columns)].to_dataframe(dim_order=[what, "site", "step"]).reset_index()
    frame = frame.rename(columns={**columns, what: "concept"})
    names = json.loads(result.attrs.get("provenance", "{}")).get("block_names")
    blocks = {str(site): (names[site.block] if names else site.block, site.part) for site in sites}
    frame["block"] = [blocks[site][0] for site in frame["site"]]
    frame["part"] = [blocks[site][1] for site in frame["site"]]
    return frame[["concept", "site", "block", "part", "step", *columns.values()]]


def has_descriptors(result: xr.Dataset) -> bool:
    """Whether a `probes` result has ridge probes of descriptors."""
    return "descriptor" in result.dims


def descriptors_frame(result: xr.Dataset) -> pd.DataFrame:
    """One row for each ridge probe (descriptor, site, step), sites in order of computation.

    Columns: concept (the descriptor), site, block, part, step, r2 with its interval, control, p_value, q_value
    (Benjamini–Hochberg over all ridge probes of the result), sigma, n, groups.
    """
    q_values = benjamini_hochberg(np.asarray(result["r2_p"].values, dtype=np.float64))
    probes = result.assign(q_value=(result["r2_p"].dims, q_values))
    return _frame(probes, "descriptor", RIDGE_COLUMNS)


def block_labels(frame: pd.DataFrame) -> list[str]:
    """Display names of the blocks of `probes_frame`, in order."""
    blocks = dict.fromkeys(frame["block"])
    return [block if isinstance(block, str) else f"tf{block}" for block in blocks]
