"""What is written at a coordinate is read there, for any shape, number format and shard size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from cache import ActivationCache, CachePlan, CacheWriter, protocol
from cache.maintenance import verify
from tests.cache.helpers import make_clips, make_plan, make_values, shard_values, write_cache


@st.composite
def plans(draw: st.DrawFn) -> CachePlan:
    steps = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
    names = draw(st.lists(st.sampled_from(["tf0.mlp", "tf0.q", "mid-block", "8"]), min_size=1, unique=True))
    return make_plan(
        sites={name: draw(st.integers(1, 6)) for name in names},
        n_clips=draw(st.integers(1, 9)),
        steps=steps,
        sigmas=[step / 100 for step in steps],
        passes=draw(st.sampled_from([("cond",), ("null", "cond"), ("cond", "null")])),
        tokens=draw(st.integers(1, 5)),
        dtypes={name: draw(st.sampled_from(["float16", "bfloat16", "float32"])) for name in names},
        clips_per_shard=draw(st.integers(1, 10)),
        zstd_level=draw(st.sampled_from([0, 3])),
    )


def rounded(values: Float[np.ndarray, "..."], dtype: str) -> Float[np.ndarray, "..."]:
    """torch's rounding to a number format."""
    return torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()


def some(data: st.DataObject, labels: list[Any]) -> list[Any] | None:
    return data.draw(st.none() | st.lists(st.sampled_from(labels), max_size=6))


@given(plan=plans(), min_chunk=st.sampled_from([1, 32, 200, 2**20]), data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_coordinate(
    tmp_path_factory: pytest.TempPathFactory, plan: CachePlan, min_chunk: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cache") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "MIN_CHUNK_BYTES", min_chunk)
        check_every_coordinate(write_cache(path, plan), plan, data)


def check_every_coordinate(path: Path, plan: CachePlan, data: st.DataObject) -> None:
    cache = ActivationCache(path)
    assert cache.plan == plan
    for site in plan.sites:
        written = rounded(make_values(plan, site), plan.dtypes[site])
        np.testing.assert_array_equal(cache.read(site), written)

        clips = some(data, list(range(plan.n_clips)))
        steps = some(data, list(plan.steps))
        passes = some(data, list(plan.passes))
        tokens = data.draw(st.none() | st.slices(plan.tokens))
        part = written if clips is None else written[clips]
        part = part if steps is None else part[:, [plan.steps.index(step) for step in steps]]
        part = part if passes is None else part[:, :, [plan.passes.index(name) for name in passes]]
        part = part if tokens is None else part[:, :, :, tokens]
        read = cache.read(site, clips=clips, steps=steps, passes=passes, tokens=tokens)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, part)
    assert verify(path) == []


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("given_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_torch_tensors(tmp_path: Path, stored: str, given_dtype: torch.dtype) -> None:
    plan = make_plan(dtypes=stored, n_clips=2)
    values = {site: torch.from_numpy(make_values(plan, site)).to(given_dtype) for site in plan.sites}
    # Not contiguous, and part of a graph: as activations come out of a model.
    values["tf1.mlp"] = (
        values["tf1.mlp"].flip(-1).transpose(3, 4).contiguous().transpose(3, 4).requires_grad_()
    )
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        writer.write_shard(0, values)
    for site, tensor in values.items():
        expected = tensor.detach().to(getattr(torch, stored)).float().numpy()
        np.testing.assert_array_equal(ActivationCache(tmp_path / "a").read(site), expected)


def test_numpy_arrays_in_any_layout(tmp_path: Path) -> None:
    plan = make_plan(n_clips=2, dtypes={"tf0.cross_attn": "float32", "tf1.mlp": "bfloat16"})
    values = {site: make_values(plan, site) for site in plan.sites}
    given_arrays: dict[str, Any] = {
        "tf0.cross_attn": np.asfortranarray(values["tf0.cross_attn"]),
        "tf1.mlp": np.repeat(values["tf1.mlp"], 2, axis=-1).astype(np.float64)[..., ::2],
    }
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        writer.write_shard(0, given_arrays)
    cache = ActivationCache(tmp_path / "a")
    for site in plan.sites:
        np.testing.assert_array_equal(cache.read(site), rounded(values[site], plan.dtypes[site]))


def test_all_zeros_are_written_like_other_values(tmp_path: Path) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        for shard in writer.missing():
            writer.write_shard(
                shard, {site: 0 * values for site, values in shard_values(plan, shard).items()}
            )
    assert not ActivationCache(tmp_path / "a").read("tf1.mlp").any()


def test_tables_and_labels(tmp_path: Path) -> None:
    plan = make_plan()
    cache = ActivationCache(write_cache(tmp_path / "a", plan))
    assert cache.sites == ["tf0.cross_attn", "tf1.mlp"]
    assert cache.clips.equals(make_clips(plan))
    assert cache.calls["step"].tolist() == [0, 7, 21]
    assert cache.calls["sigma"].tolist() == [1.0, 0.6, 0.1]


def test_chosen_by_concept_sigma_and_seconds(tmp_path: Path) -> None:
    plan = make_plan(dtypes="float32", token_seconds=0.5)
    clips = make_clips(plan).assign(
        label_mood=["sad", "happy", "sad", "sad", "happy"], label_fast=[0, 0, 0, 1, 1]
    )
    with CacheWriter(tmp_path / "a", plan, clips) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, shard_values(plan, shard))
    cache, whole = ActivationCache(tmp_path / "a"), make_values(plan, "tf1.mlp")
    np.testing.assert_array_equal(cache.read("tf1.mlp", concepts={"mood": "sad"}), whole[[0, 2, 3]])
    np.testing.assert_array_equal(cache.read("tf1.mlp", concepts={"mood": "sad", "fast": 1}), whole[[3]])
    np.testing.assert_array_equal(
        cache.read("tf1.mlp", clips=[4, 2, 0], concepts={"mood": "sad"}), whole[[2, 0]]
    )
    np.testing.assert_array_equal(cache.read("tf1.mlp", sigmas=(0.6, 1.0)), whole[:, :2])
    np.testing.assert_array_equal(cache.read("tf1.mlp", steps=[21, 7], sigmas=(0.1, 0.6)), whole[:, [2, 1]])
    # Tokens begin at 0, 0.5, 1 and 1.5 s.
    np.testing.assert_array_equal(cache.read("tf1.mlp", seconds=(0.5, 1.5)), whole[:, :, :, 1:3])
    np.testing.assert_array_equal(
        cache.read("tf1.mlp", tokens=slice(2, None), seconds=(0.0, 1.1)), whole[:, :, :, 2:3]
    )


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    write_cache(tmp_path / "a", make_plan())

    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (tmp_path / "a").rglob("*")}

    before = state()
    cache = ActivationCache(tmp_path / "a")
    cache.read("tf1.mlp")
    cache.dataset("tf1.mlp").load()
    assert verify(tmp_path / "a") == []
    assert len(cache.clips) + len(cache.calls) == 8
    assert len(list(cache.shuffled_rows("tf1.mlp", 7, 0))) == 18
    assert state() == before
