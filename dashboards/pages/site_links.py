"""Links between the pages about one site: the cell of a map, its features, its probe, its vectors, and the lab."""

import json
import re
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
import xarray as xr
from dash import dcc
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.feature_browser import scored_values
from dashboards.lab_link import lab_address
from dashboards.links import address, write_query
from dashboards.packs import load_pack, readable_packs
from dashboards.results import is_usable, load_result, patching_names, sae_names
from dashboards.tables.probes import probes_frame
from workbench.studies.study import Study

BLOCKS = re.compile(r"tf\d+(\+tf\d+)*")
STEPS = re.compile(r"steps? (\d+)(?:–(\d+))?")
MOST_EACH = 3  # links of a kind
RANKED_BY = {"value": "clean", "against": "corrupt"}
"""What ranks the table of features, by its name in the URL: the values of a pair's sides."""


def cell_links(study: Study, result: xr.Dataset, cell: pd.Series, pair: pd.Series) -> Component:
    """Links from a cell of a patching map (a row of `cells_frame`) to pages about its sites, and to the lab.

    The lab gets the cell's edit for the clip of `pair`, a row of `pairs_frame`.
    """
    sites = _sites(cell)
    found = [
        *_features(study, sites, cell, pair),
        *_probe(study, sites, str(cell["concept"])),
        *_vectors(study, sites),
        *_lab(result, cell, pair, sites),
    ]
    return _line(found)


def map_link(study: Study, concept: str, site: str) -> Component | None:
    """A link from a vector's site back to the cell of its concept and block; None if no map has it."""
    block = site.partition(".")[0]
    if "blocks" not in patching_names(study):
        return None
    result = load_result(study, "patching-blocks")
    if concept not in result["concept"].values or block not in result["arm"].values:
        return None
    return _line(
        [(f"{concept} at {block} on the patching map", _page("/patching", concept=concept, arm=block))]
    )


def feature_in_lab(study: Study, name: str, feature: int, clip: int) -> Component | None:
    """A link to the lab with a feature of an autoencoder made twice as active, in one of the study's clips.

    At the steps at which the autoencoder may be used. None if the clip's texts are longer than the lab takes.
    """
    result = load_result(study, f"sae-{name}")
    sites = [_written_site(result)]
    edit = {"kind": "feature", "sae": name, "feature": feature, "sites": sites, "strength": 1.0}
    of_clip = study.clips.set_index("clip").loc[clip]
    texts = str(of_clip["prompt"]), int(of_clip["seed"]), str(of_clip["lyrics"])
    try:
        href = lab_address(*texts, edits=[{**edit, "steps": _open_steps(result)}])
    except UserError:
        return None
    return dcc.Link(f"Turn it up or down in the lab, in clip {clip}", href=href, className="small-link")


def _written_site(result: xr.Dataset) -> str:
    """The site that an autoencoder reconstructs; for a transcoder another one than it reads."""
    with suppress(ValueError, AttributeError):
        if target := json.loads(result.attrs["spec"]).get("target_site"):
            return str(target)
    return str(result.attrs["site"])


def _open_steps(result: xr.Dataset) -> list[int] | None:
    """The first and last of most steps in a row at which an autoencoder may be used; None for all, and for none."""
    closed = result["gated"].values.astype(bool)
    if not closed.any() or closed.all():
        return None
    by_step = zip(result["step"].values.tolist(), closed, strict=True)
    rows = [
        [step for step, _ in row] for is_closed, row in groupby(by_step, key=itemgetter(1)) if not is_closed
    ]
    most = max(rows, key=len)
    return [most[0], most[-1]]


def _line(links: list[tuple[str, str]]) -> Component:
    anchors: list[Component] = [dcc.Link(text, href=href) for text, href in links]
    return dmc.Group(anchors, gap="md", className="site-links")


def _page(path: str, **selection: str | int | None) -> str:
    return address(path) + write_query(selection)


def _sites(cell: pd.Series) -> list[str]:
    """The sites of a row of blocks; none if it is something else."""
    row = str(cell["row"])
    return [f"{block}.cross_attn" for block in row.split("+")] if BLOCKS.fullmatch(row) else []


def _features(study: Study, sites: list[str], cell: pd.Series, pair: pd.Series) -> list[tuple[str, str]]:
    """The features of the cell's sites, or of its block, ranked by what they carry between the pair's values."""
    values = {key: f"{cell['concept']}={pair[f'{side}_value']}" for key, side in RANKED_BY.items()}
    found = []
    for name in sae_names(study):
        site = str(load_result(study, f"sae-{name}").attrs.get("site", name))
        if site not in sites and not site.startswith(f"tf{cell['block']}."):
            continue
        text = f"Features of {site}" + ("" if name == site else f" ({name})")
        if set(values.values()) <= set(scored_values(study, name)):
            found.append(
                (f"{text}, ranked for the values of the pair", _page("/features", sae=name, **values))
            )
        else:
            found.append((text, _page("/features", sae=name)))
    return found[:MOST_EACH]


def _probe(study: Study, sites: list[str], concept: str) -> list[tuple[str, str]]:
    if not sites or not is_usable(study, "probes"):
        return []
    frame = probes_frame(load_result(study, "probes"))
    frame = frame[(frame["concept"] == concept) & frame["site"].isin(sites)]
    if frame.empty:
        return []
    best = frame.loc[frame["accuracy"].fillna(-1.0).idxmax()]
    href = _page("/probes", concept=concept, site=str(best["site"]), step=int(best["step"]))
    return [(f"Probe of {concept} at {best['site']}", href)]


def _vectors(study: Study, sites: list[str]) -> list[tuple[str, str]]:
    found = []
    for name in readable_packs(study) if sites else []:
        site = next((one for one in load_pack(study, name).directions if one in sites), None)
        if site is not None:
            found.append((f"Vector {name} at {site}", _page("/steering", pack=name, site=site)))
    return found[:MOST_EACH]


def _lab(result: xr.Dataset, cell: pd.Series, pair: pd.Series, sites: list[str]) -> list[tuple[str, str]]:
    """The lab with the cell's patch; not for null arms, and questions whose edits the lab does not have."""
    steps = STEPS.fullmatch(str(cell["column"]))
    is_known = result.attrs["question"] == "blocks" or (result.attrs["question"] == "steps" and steps)
    if not sites or not is_known or cell["group"] != "cell":
        return []
    base, source = ("clean", "corrupt") if cell["direction"] == "necessity" else ("corrupt", "clean")
    edit: dict[str, Any] = {
        "kind": "patch",
        "sites": sites,
        "prompt": str(pair[f"{source}_prompt"]),
        "target": str(result.attrs["mode"]),
    }
    if steps:
        edit["steps"] = [int(steps[1]), int(steps[2] or steps[1])]
    try:
        href = lab_address(str(pair[f"{base}_prompt"]), int(pair["noise_seed"]), edits=[edit])
    except UserError:  # longer than the lab takes
        return []
    return [("Open in the lab", href)]
