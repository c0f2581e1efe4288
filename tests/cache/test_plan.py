"""Plans: identity, price and layout."""

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from cache import CachePlan, UserError, protocol
from tests.cache.helpers import make_plan


def test_the_hash_is_of_the_content_not_of_the_order() -> None:
    plan = make_plan()
    swapped = make_plan(
        sites={"tf1.mlp": 5, "tf0.cross_attn": 3},
        identity={"seed": 3, "model": "made up"},
        sigmas=[1, 0.6, 0.1],
    )
    assert swapped.hash == plan.hash
    # Stored with every cache, so it may not change while the protocol's version stays.
    canonical = (
        '{"clips_per_shard":2,"dtypes":{"tf0.cross_attn":"float16","tf1.mlp":"float16"},'
        '"identity":{"model":"made up","seed":3},"n_clips":5,"passes":["cond","null"],"sigmas":[1.0,0.6,0.1],'
        '"sites":{"tf0.cross_attn":3,"tf1.mlp":5},"steps":[0,7,21],"token_reduction":{"kind":"none","size":1},'
        '"token_seconds":0.04,"tokens":4,"zstd_level":0}'
    )
    assert plan.hash == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("field", sorted(CachePlan.model_fields))
def test_the_hash_depends_on_every_field(field: str) -> None:
    other: dict[str, Any] = {
        "sites": {"tf0.cross_attn": 3, "tf1.mlp": 6},
        "n_clips": 6,
        "steps": (0, 7, 22),
        "sigmas": (1.0, 0.6, 0.2),
        "passes": ("null", "cond"),
        "tokens": 5,
        "token_seconds": 0.08,
        "token_reduction": {"kind": "mean", "size": 2},
        "dtypes": "bfloat16",
        "clips_per_shard": 3,
        "zstd_level": 1,
        "identity": {"model": "made up", "seed": 4},
    }
    assert make_plan(**{field: other[field]}).hash != make_plan().hash


def test_a_plan_survives_json() -> None:
    plan = make_plan(identity={"nested": {"list": [1, 2.5, None, "é"], "tuple": (1, 2)}})
    assert CachePlan.model_validate(json.loads(plan.model_dump_json())) == plan
    assert plan.identity["nested"]["tuple"] == [1, 2]


def test_shards() -> None:
    assert make_plan().shards == [(0, 1), (2, 3), (4, 4)]
    assert make_plan(n_clips=4).shards == [(0, 1), (2, 3)]
    assert make_plan(clips_per_shard=9).shards == [(0, 4)]


def test_one_dtype_is_that_of_every_site() -> None:
    assert make_plan(dtypes="bfloat16").dtypes == {"tf0.cross_attn": "bfloat16", "tf1.mlp": "bfloat16"}
    mixed = {"tf0.cross_attn": "float16", "tf1.mlp": "float32"}
    assert make_plan(dtypes=mixed).dtypes == mixed
    assert make_plan(dtypes=dict.fromkeys(make_plan().sites, "float16")).hash == make_plan().hash


def test_a_price_by_hand() -> None:
    plan = make_plan(dtypes={"tf0.cross_attn": "float32", "tf1.mlp": "bfloat16"})
    # 3 files of one chunk (2 clips, 3 steps, 2 passes, 4 tokens, the channels; the last padded), and an index; a
    # checksum after each.
    sizes = {
        "tf0.cross_attn": 2 * 3 * 2 * 4 * 3 * 4 + 4 + 16 + 4,
        "tf1.mlp": 2 * 3 * 2 * 4 * 5 * 2 + 4 + 16 + 4,
    }
    assert plan.bytes_of([2]) == plan.bytes_of([0]) == sizes
    assert plan.bytes_of([]) == {"tf0.cross_attn": 0, "tf1.mlp": 0}
    assert plan.bytes_per_site() == {site: 3 * size for site, size in sizes.items()}
    assert plan.total_bytes() == 3 * sum(sizes.values())


def test_chunks_beyond_the_last_clip_cost_nothing() -> None:
    # Chunks of 1 MiB: shard 0 has two clips, shard 1 has one and a chunk less for each of its 6 steps and passes.
    plan = make_plan(sites={"x": 512}, tokens=1024, n_clips=3)
    index, chunk = 12 * 16 + 4, 2**20 + 4
    assert plan.bytes_of([0]) == {"x": 12 * chunk + index}
    assert plan.bytes_of([1]) == {"x": 6 * chunk + index}
    assert plan.bytes_per_site() == {"x": 18 * chunk + 2 * index}


def test_chunks_are_slices_where_a_slice_is_large() -> None:
    assert protocol.chunk_shape((8, 60, 2, 1024, 2048), 2) == (1, 1, 1, 1024, 2048)
    assert protocol.chunk_shape((8, 60, 2, 256, 2048), 2) == (1, 1, 1, 256, 2048)
    assert protocol.chunk_shape((8, 60, 2, 128, 2048), 2) == (1, 1, 2, 128, 2048)
    assert protocol.chunk_shape((8, 60, 2, 64, 256), 2) == (1, 20, 2, 64, 256)
    assert protocol.chunk_shape((8, 4, 2, 64, 256), 2) == (4, 4, 2, 64, 256)
    assert protocol.chunk_shape((3, 2, 2, 4, 4), 2) == (3, 2, 2, 4, 4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sites": {}}, "sites must be non-empty and unique"),
        ({"sites": {"a/b": 1}}, "Site name 'a/b' cannot be a folder"),
        ({"sites": {"../a": 1}}, "cannot be a folder"),
        ({"sites": {".staging": 1}}, "cannot be a folder"),
        *[
            ({"sites": {name: 1}}, "cannot be a folder")
            for name in (
                "",
                "tf1.mlp\n",
                "é",
                "zarr.json",
                "clips.parquet",
                "calls.parquet",
                "manifest.jsonl",
                "manifest",
            )
        ],
        ({"steps": (1, 1, 2)}, "steps must be non-empty and unique"),
        ({"passes": ()}, "passes must be non-empty and unique"),
        ({"dtypes": {"tf1.mlp": "float16"}}, r"one dtype for each site.*got \['tf1.mlp'\]"),
        ({"token_reduction": {"kind": "none", "size": 2}}, "size"),
        ({"sigmas": (1.0,)}, "one finite sigma for each of its 3 steps"),
        ({"sigmas": (1.0, 0.5, float("nan"))}, "one finite sigma"),
        ({"identity": {"a": float("nan")}}, "identity must have plain JSON"),
        ({"identity": {"a": object()}}, "identity must have plain JSON"),
    ],
)
def test_unusable_plans_are_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_plan(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_clips": 0},
        {"tokens": 0},
        {"clips_per_shard": 0},
        {"token_seconds": 0.0},
        {"token_seconds": float("inf")},
        {"zstd_level": 23},
        {"zstd_level": -1},
        {"dtypes": "float8"},
        {"passes": ("both",)},
        {"token_reduction": {"kind": "max", "size": 2}},
        {"token_reduction": {"kind": "mean", "size": 0}},
        {"dtype": "float16"},
    ],
)
def test_wrong_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_plan(**changes)


def test_errors_import_without_the_heavy_libraries() -> None:
    code = "import sys, cache.errors; print(sorted({'zarr', 'pandas', 'xarray', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
