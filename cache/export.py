"""Export activations: safetensors with one row per vector, or NumPy files with one array per site."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from safetensors.torch import save

from cache.encoding import STORED, decode
from cache.errors import UserError
from cache.formats import ExportDtype, Format
from cache.opening import create_folder, remove_folder
from cache.plan import CachePlan
from cache.protocol import DIMS, canonical_json
from cache.reader import ActivationCache
from cache.rounding import to_tensor
from cache.storage import Location

# Held in memory at once, as float32; also the largest size of a safetensors file, which has at least one clip.
BLOCK_BYTES = 256 * 2**20
PASS_CODES = {"cond": 0, "null": 1, "text": 2}
# clip, step and token as int32, sigma as float64, pass as uint8
_LABEL_BYTES = 3 * 4 + 8 + 1


def export(
    location: Location,
    out: Path,
    form: Format = "safetensors",
    sites: Sequence[str] | None = None,
    dtype: ExportDtype = "stored",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Export sites of a complete cache into a new folder, which appears when it is complete.

    "safetensors": files `SITE/activations-00000-of-0000N.safetensors` of whole clips, each with the tensors
    `activations` (row, channel) and, for each row, `clip`, `step`, `token` (int32), `sigma` (float64) and `pass`
    (uint8: 0 cond, 1 null). The rows are in the order (clip, step, pass, token).

    "npy": a file `SITE.npy` (clip, step, pass, token, channel) for each site, which `numpy.load` can map into memory.
    NumPy has no bfloat16: it becomes float32.

    Both: `clips.csv`, `calls.csv` and `labels.json` with the labels of the axes.

    Args:
        location: folder or URL of the cache, or a `Storage`.
        out: folder to create.
        form: file format.
        sites: names of the sites; None means all.
        dtype: "stored" keeps the cache's number format; "float32" converts to it.
        progress: called with the bytes written and the total.

    Raises:
        UserError: if the folder exists, its disk is too small, or a site is unknown.
        CacheError: if the cache is incomplete or damaged.
    """
    cache = ActivationCache(location)
    chosen = cache.sites if sites is None else list(dict.fromkeys(sites))
    for site in chosen:
        cache.channels(site)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} already exists. Give a new folder to export to, or remove this one.")
    formats = {site: _format(cache.plan, site, form, dtype) for site in chosen}
    _check_room(cache.plan, out, form, formats)
    folder = out.absolute().parent
    partial = folder / f".{out.name}.partial"
    if folder.is_dir():
        remove_folder(folder, partial.name)  # left by an export that was killed
    create_folder(folder)
    partial.mkdir()
    try:
        _write_labels(cache, partial, formats)
        _write_values(cache, partial, form, formats, progress)
        os.rename(partial, out)
    finally:
        remove_folder(folder, partial.name)


def _format(plan: CachePlan, site: str, form: Format, dtype: ExportDtype) -> str:
    """Return the number format in which a site is exported."""
    stored = plan.dtypes[site]
    return "float32" if dtype == "float32" or (form == "npy" and stored == "bfloat16") else stored


def _check_room(plan: CachePlan, out: Path, form: Format, formats: dict[str, str]) -> None:
    needed = 0
    for site, exported in formats.items():
        shape = plan.shape(site)
        needed += math.prod(shape) * STORED[exported].itemsize
        needed += math.prod(shape[:-1]) * _LABEL_BYTES if form == "safetensors" else 0
    free = shutil.disk_usage(next(parent for parent in out.absolute().parents if parent.exists())).free
    if free < needed:
        raise UserError(
            f"{out} needs {needed} bytes, but its disk has only {free} bytes free. "
            "Free some space, choose another disk, or export fewer sites."
        )


def _write_labels(cache: ActivationCache, folder: Path, formats: dict[str, str]) -> None:
    """Write the tables and the labels of the axes."""
    plan = cache.plan
    cache.clips.to_csv(folder / "clips.csv", index=False)
    cache.calls.to_csv(folder / "calls.csv", index=False)
    labels = {
        "dims": DIMS,
        "step": plan.steps,
        "sigma": plan.sigmas,
        "pass": plan.passes,
        "pass_codes": PASS_CODES,
        "tokens": plan.tokens,
        "token_seconds": plan.token_seconds,
        "plan_hash": plan.hash,
        "sites": {
            site: {"shape": plan.shape(site), "stored_dtype": plan.dtypes[site], "dtype": exported}
            for site, exported in formats.items()
        },
    }
    (folder / "labels.json").write_text(json.dumps(labels, indent=2), encoding="utf-8")


def _write_values(
    cache: ActivationCache,
    folder: Path,
    form: Format,
    formats: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> None:
    write = _safetensors if form == "safetensors" else _npy
    total = sum(math.prod(cache.plan.shape(site)) * STORED[name].itemsize for site, name in formats.items())
    done = 0
    for site, exported in formats.items():
        for written in write(cache, folder, site, exported):
            done += written
            if progress is not None:
                progress(done, total)


def _blocks(plan: CachePlan, site: str) -> list[range]:
    """Split the clips into blocks whose values fit BLOCK_BYTES as float32."""
    count = max(1, BLOCK_BYTES // (math.prod(plan.shape(site)[1:]) * 4))
    return [range(first, min(first + count, plan.n_clips)) for first in range(0, plan.n_clips, count)]


def _read(
    cache: ActivationCache, site: str, clips: range, exported: str
) -> Shaped[np.ndarray, "clip step pass token channel"]:
    """Read some clips as stored (bfloat16 as uint16), or converted to float32."""
    stored = cache.read_stored(site, (clips, *map(range, cache.plan.shape(site)[1:])))
    stored_dtype = cache.plan.dtypes[site]
    return stored if exported == stored_dtype else decode(stored, stored_dtype)


def _safetensors(cache: ActivationCache, folder: Path, site: str, exported: str) -> Iterator[int]:
    """Write the files of a site; yield the bytes of the values in each."""
    plan = cache.plan
    description = {
        "site": site,
        "hook_name": site,
        "d_in": str(plan.sites[site]),
        "plan_hash": plan.hash,
        "pass_codes": canonical_json(PASS_CODES),
    }
    (folder / site).mkdir()
    blocks = _blocks(plan, site)
    for number, clips in enumerate(blocks):
        values = _read(cache, site, clips, exported)
        rows = to_tensor(values, plan.dtypes[site]).reshape(-1, plan.sites[site])
        file = folder / site / f"activations-{number:05d}-of-{len(blocks):05d}.safetensors"
        # save_file would make the file unreadable to others, and raise no OSError on a full disk.
        file.write_bytes(save({"activations": rows, **_row_labels(plan, clips)}, description))
        yield values.nbytes


def _row_labels(plan: CachePlan, clips: range) -> dict[str, Shaped[torch.Tensor, " row"]]:
    """Return the labels of the rows (clip, step, pass, token) of some clips."""
    shape = (len(clips), len(plan.steps), len(plan.passes), plan.tokens)

    def column(axis: int, labels: Sequence[Any], dtype: torch.dtype) -> Shaped[torch.Tensor, " row"]:
        along = [-1 if i == axis else 1 for i in range(len(shape))]
        return torch.tensor(labels, dtype=dtype).reshape(along).expand(shape).flatten().contiguous()

    return {
        "clip": column(0, clips, torch.int32),
        "step": column(1, plan.steps, torch.int32),
        "sigma": column(1, plan.sigmas, torch.float64),
        "pass": column(2, [PASS_CODES[name] for name in plan.passes], torch.uint8),
        "token": column(3, range(plan.tokens), torch.int32),
    }


def _npy(cache: ActivationCache, folder: Path, site: str, exported: str) -> Iterator[int]:
    """Write the file of a site; yield the bytes of the values as they are written.

    Not a memory map: on a full disk that would kill the process, while a write raises.
    """
    header = {"descr": STORED[exported].str, "fortran_order": False, "shape": cache.plan.shape(site)}
    with (folder / f"{site}.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for clips in _blocks(cache.plan, site):
            yield file.write(_read(cache, site, clips, exported).data)
