"""The metadata of a cache folder: zarr's JSON, the plan in it, and the tables beside it."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from pydantic import ValidationError

from cache.encoding import FILL, STORED
from cache.errors import CacheError, UserError
from cache.files import remove_folder, sync_path, sync_tree, temporary_folder
from cache.plan import CachePlan
from cache.protocol import CALLS, CLIPS, DIMS, GROUP, LOCK, MANIFEST, PROTOCOL, STAGING, VERSION


def read_plan(folder: Path) -> CachePlan:
    """The plan of the cache in a folder.

    Raises:
        CacheError: if the folder is missing, is no cache, was not created completely, is of another protocol
            version, or its plan is damaged.
    """
    path = folder / GROUP
    if not folder.is_dir():
        raise CacheError(
            f"{folder} does not exist: give the folder of a cache, such as STUDY/activations.zarr"
        )
    if not path.is_file():
        if is_interrupted_creation(folder):
            raise CacheError(
                f"{folder} is half-written, its creation was interrupted: capture again with the same plan"
            )
        if (folder / MANIFEST).exists():
            raise CacheError(
                f"{path} is missing: restore it from a copy, or delete {folder} and capture again"
            )
        raise CacheError(
            f"{folder} is not an activation cache (no {GROUP}): give the folder of one, or a new one to write"
        )
    try:
        attributes = json.loads(path.read_bytes())["attributes"]
        protocol, version = attributes["protocol"], attributes["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path} does not describe an activation cache: give the folder of one, or a new one to write"
        ) from error
    if (protocol, version) != (PROTOCOL, VERSION):
        raise CacheError(
            f"{folder} is of {protocol} version {version}, this program reads {PROTOCOL} version {VERSION}: "
            "use the program version that wrote it, or capture again"
        )
    try:
        plan = CachePlan.model_validate(attributes["plan"])
        intact = plan.hash == attributes["plan_hash"]
    except (KeyError, ValidationError, UserError):
        intact = False
    if not intact:
        raise CacheError(
            f"{path} is damaged (the plan does not fit its hash): restore it from a copy, or capture again"
        )
    return plan


def is_interrupted_creation(folder: Path) -> bool:
    """Whether a writer began to create a cache in a folder and was interrupted before anything was in it."""
    manifest = folder / MANIFEST
    has_shards = manifest.exists() and manifest.stat().st_size > 0
    return (folder / LOCK).exists() and not (folder / GROUP).exists() and not has_shards


def create(folder: Path, plan: CachePlan, clips: pd.DataFrame) -> None:
    """Write everything but shards into a folder that holds at most the remains of an interrupted creation.

    All of it is made and synced in the staging folder first. The group's metadata is moved last: with it the
    folder is a cache, and without it none.
    """
    with temporary_folder(folder / STAGING) as staging:
        _write_metadata(staging, plan, clips)
        for path in folder.iterdir():
            if path != staging and (path / GROUP).exists():
                remove_folder(path)  # an array of the interrupted creation, which may have had other sites
        for name in (*plan.sites, CLIPS, CALLS, MANIFEST):
            os.replace(staging / name, folder / name)
        sync_path(folder)
        os.replace(staging / GROUP, folder / GROUP)
        sync_path(folder)
    sync_path(folder.absolute().parent)


def read_table(path: Path) -> pd.DataFrame:
    """A parquet table of the cache.

    Raises:
        CacheError: if it is missing or damaged.
    """
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise CacheError(
            f"{path} cannot be read ({error}): restore it from a copy, or capture again"
        ) from error


def is_same_table(given: pd.DataFrame, stored: pd.DataFrame) -> bool:
    """Whether a table equals one that was read back, types included."""
    return pd.read_parquet(io.BytesIO(_to_parquet(given)), engine="pyarrow").equals(stored)


def check_clip_table(clips: pd.DataFrame, n_clips: int) -> None:
    """Refuse a clip table that does not number the clips 0 .. n_clips - 1 in its column `clip`, in order.

    Raises:
        UserError: saying what the table has instead.
    """
    numbers = clips["clip"] if "clip" in clips.columns else pd.Series([], dtype=int)
    if numbers.dtype.kind not in "iu" or not np.array_equal(numbers.to_numpy(), np.arange(n_clips)):
        raise UserError(
            f"the clip table must have one row for each of the plan's {n_clips} clips and an integer "
            f"column 'clip' that counts them from 0; got {len(clips)} rows with the columns {list(clips.columns)}"
        )


def _group_attributes(plan: CachePlan) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "version": VERSION,
        "plan": plan.model_dump(mode="json"),
        "plan_hash": plan.hash,
    }


def _write_metadata(staging: Path, plan: CachePlan, clips: pd.DataFrame) -> None:
    zarr.create_group(store=staging, attributes=_group_attributes(plan))
    for site in plan.sites:
        zarr.create_array(
            store=staging / site,
            shape=plan.shape(site),
            dtype=STORED[plan.dtype],
            shards=plan.shard_shape(site),
            chunks=plan.chunk_shape(site),
            filters=None,
            compressors=None,
            fill_value=FILL[plan.dtype],
            dimension_names=DIMS,
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"value_dtype": plan.dtype},
        )
    (staging / CLIPS).write_bytes(_to_parquet(clips))
    (staging / CALLS).write_bytes(_to_parquet(pd.DataFrame({"step": plan.steps, "sigma": plan.sigmas})))
    (staging / MANIFEST).touch()
    sync_tree(staging)


def _to_parquet(table: pd.DataFrame) -> bytes:
    """A table as a parquet file, without its index; the same table gives the same bytes.

    Raises:
        UserError: if a column holds what parquet cannot.
    """
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, engine="pyarrow", index=False)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the clip table cannot be stored as parquet, use one plain type a column: {error}"
        ) from error
    return buffer.getvalue()
