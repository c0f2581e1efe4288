"""Exports: every value and label equals the cache's, files appear whole, and nothing is overwritten."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import cache.export
from cache import ActivationCache, CacheError, CachePlan, CacheWriter, UserError
from cache.export import export
from tests.cache import helpers
from tests.cache.helpers import shard_values
from tests.full_disk import full_disk

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def make_plan(dtype: str = "float16") -> CachePlan:
    """Five clips in three shards, three steps that are not in order, the null pass before the cond pass."""
    return helpers.make_plan(dtypes=dtype, steps=(4, 0, 9), sigmas=(0.1, 1.0, 1 / 3), passes=("null", "cond"))


def make_clips(plan: CachePlan) -> pd.DataFrame:
    """A clip table with a text that needs quoting."""
    return pd.DataFrame(
        {"clip": range(plan.n_clips), "prompt": [f'a "{k}", slow' for k in range(plan.n_clips)]}
    )


def write(folder: Path, plan: CachePlan, shards: list[int] | None = None) -> Path:
    """Write a cache, or some shards of it."""
    with CacheWriter(folder, plan, make_clips(plan)) as writer:
        for shard in writer.missing() if shards is None else shards:
            writer.write_shard(shard, shard_values(plan, shard))
    return folder


def clips_per_file(monkeypatch: pytest.MonkeyPatch, plan: CachePlan, site: str, clips: int) -> None:
    """Let so many clips of a site fit a block."""
    clip_bytes = math.prod(plan.shape(site)[1:]) * 4
    monkeypatch.setattr(cache.export, "BLOCK_BYTES", clips * clip_bytes + 1)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dtype", ["stored", "float32"])
@pytest.mark.parametrize("clips", [1, 3, 100])
def test_rows_and_labels_equal_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, dtype: Any, clips: int
) -> None:
    plan = make_plan(stored)
    write(tmp_path / "a", plan)
    clips_per_file(monkeypatch, plan, "tf1.mlp", clips)
    reports: list[tuple[int, int]] = []
    export(
        tmp_path / "a",
        tmp_path / "out",
        sites=["tf1.mlp"],
        dtype=dtype,
        progress=lambda *report: reports.append(report),
    )
    files = sorted((tmp_path / "out" / "tf1.mlp").iterdir())
    n_files = math.ceil(plan.n_clips / clips)
    assert [file.name for file in files] == [
        f"activations-{k:05d}-of-{n_files:05d}.safetensors" for k in range(n_files)
    ]
    assert reports[-1][0] == reports[-1][1]
    assert len(reports) == n_files
    parts = []
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {
                "site": "tf1.mlp",
                "hook_name": "tf1.mlp",
                "d_in": "5",
                "plan_hash": plan.hash,
                "pass_codes": '{"cond":0,"null":1,"text":2}',
            }
            parts.append({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    assert rows["activations"].dtype == TORCH[stored if dtype == "stored" else "float32"]
    assert [rows[name].dtype for name in ("clip", "step", "token", "sigma", "pass")] == [
        torch.int32,
        torch.int32,
        torch.int32,
        torch.float64,
        torch.uint8,
    ]
    expected = ActivationCache(tmp_path / "a")
    found = rows["activations"].float().numpy()
    np.testing.assert_array_equal(found, expected.read("tf1.mlp").reshape(-1, 5))
    sigmas = dict(zip(plan.steps, plan.sigmas, strict=True))
    for row in range(0, len(found), 7):
        clip, step, token = (int(rows[name][row]) for name in ("clip", "step", "token"))
        name = ["cond", "null"][int(rows["pass"][row])]
        value = expected.read("tf1.mlp", clips=[clip], steps=[step], passes=[name])[0, 0, 0, token]
        np.testing.assert_array_equal(found[row], value)
        assert float(rows["sigma"][row]) == sigmas[step]


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dtype", ["stored", "float32"])
@pytest.mark.parametrize("clips", [1, 3, 100])
def test_arrays_equal_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, dtype: Any, clips: int
) -> None:
    plan = make_plan(stored)
    write(tmp_path / "a", plan)
    clips_per_file(monkeypatch, plan, "tf1.mlp", clips)
    export(tmp_path / "a", tmp_path / "out", "npy", dtype=dtype)
    exported = "float16" if stored == "float16" and dtype == "stored" else "float32"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "calls.csv",
        "clips.csv",
        "labels.json",
        "tf0.cross_attn.npy",
        "tf1.mlp.npy",
    ]
    for site in plan.sites:
        values = np.load(tmp_path / "out" / f"{site}.npy", mmap_mode="r")
        assert isinstance(values, np.memmap)
        assert values.dtype == exported
        np.testing.assert_array_equal(values, ActivationCache(tmp_path / "a").read(site))
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels["dims"] == ["clip", "step", "pass", "token", "channel"]
    assert (labels["step"], labels["sigma"], labels["pass"]) == (
        [4, 0, 9],
        [0.1, 1.0, 1 / 3],
        ["null", "cond"],
    )
    assert (labels["tokens"], labels["token_seconds"], labels["plan_hash"]) == (4, 0.04, plan.hash)
    assert labels["sites"]["tf1.mlp"] == {
        "shape": [5, 3, 2, 4, 5],
        "stored_dtype": stored,
        "dtype": exported,
    }


def test_the_tables_go_along(tmp_path: Path) -> None:
    plan = make_plan()
    write(tmp_path / "a", plan)
    for form in ("npy", "safetensors"):
        export(tmp_path / "a", tmp_path / form, form)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / form / "clips.csv"), make_clips(plan))
        calls = pd.read_csv(tmp_path / form / "calls.csv", float_precision="round_trip")
        assert calls.to_dict("list") == {"step": [4, 0, 9], "sigma": [0.1, 1.0, 1 / 3]}


def test_nothing_is_overwritten_and_nothing_half_written_appears(tmp_path: Path) -> None:
    plan = make_plan()
    write(tmp_path / "a", plan)
    file = tmp_path / "a" / "tf1.mlp" / "c.2.0.0.0.0"
    content = file.read_bytes()
    file.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    for form in ("npy", "safetensors"):
        with pytest.raises(CacheError, match="is damaged"):
            export(tmp_path / "a", tmp_path / "out", form)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    file.write_bytes(content)
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "of a killed export").touch()
    export(tmp_path / "a", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not any("partial" in str(path) or "killed" in str(path) for path in before)
    with pytest.raises(UserError, match="out already exists"):
        export(tmp_path / "a", tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_tensor_files_are_like_other_files(tmp_path: Path) -> None:
    """In their mode, and on a full disk."""
    write(tmp_path / "a", make_plan())
    export(tmp_path / "a", tmp_path / "out")
    labels = [file for file in (tmp_path / "out").iterdir() if file.is_file()]
    tensors = list((tmp_path / "out").glob("*/*.safetensors"))
    assert {file.stat().st_mode for file in tensors} == {file.stat().st_mode for file in labels}
    longest = max(file.stat().st_size for file in labels)
    assert longest < max(file.stat().st_size for file in tensors)
    with full_disk(longest), pytest.raises(OSError, match="too large"):
        export(tmp_path / "a", tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    write(tmp_path / "a", plan, [0])
    with pytest.raises(CacheError, match="half-written"):
        export(tmp_path / "a", tmp_path / "out")
    write(tmp_path / "a", plan)
    with pytest.raises(UserError, match=r"has no site 'tf9.mlp'"):
        export(tmp_path / "a", tmp_path / "out", sites=["tf9.mlp"])
    values = 5 * 3 * 2 * 4 * (3 + 5) * 2
    labels = 2 * (5 * 3 * 2 * 4) * 21
    for form, needed in (("npy", values), ("safetensors", values + labels)):
        disk = SimpleNamespace(free=needed - 1)
        monkeypatch.setattr(cache.export.shutil, "disk_usage", lambda _, disk=disk: disk)
        with pytest.raises(
            UserError, match=f"needs {needed} bytes, but its disk has only {needed - 1} bytes free"
        ):
            export(tmp_path / "a", tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_folder_may_be_given_relative_and_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", make_plan())
    monkeypatch.chdir(tmp_path)
    export(Path("a"), Path("exports/first"))
    assert (tmp_path / "exports" / "first" / "labels.json").is_file()
