"""Plans: identity, price and layout."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cache import CachePlan, UserError, protocol
from tests.cache.helpers import make_plan, write_cache


def test_the_hash_is_of_the_content_not_of_the_order() -> None:
    plan = make_plan()
    swapped = make_plan(
        sites={"tf1.mlp": 5, "tf0.cross_attn": 3},
        identity={"seed": 3, "model": "made up"},
        sigmas=[1, 0.6, 0.1],
    )
    assert swapped.hash == plan.hash
    # Stored with every cache, so it may not change while the protocol's version stays.
    assert plan.hash == "3d7954bc7d5351ef000e3bfad9446182751041a9ca8f21862c0462308131d83f"


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
        "dtype": "bfloat16",
        "clips_per_shard": 3,
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


def test_the_price_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    plan = make_plan(dtype="float32")
    write_cache(tmp_path / "a", plan)
    on_disk = {
        site: sum(f.stat().st_size for f in (tmp_path / "a" / site).glob("c.*")) for site in plan.sites
    }
    assert plan.bytes_per_site() == on_disk
    assert plan.total_bytes() == sum(on_disk.values())
    # 3 files of one chunk (2 clips, 3 steps, 2 passes, 4 tokens, 3 channels; the last padded) and an index.
    assert on_disk["tf0.cross_attn"] == 3 * (2 * 3 * 2 * 4 * 3 * 4 + 16 + 4)


def test_chunks_are_pages_where_a_page_is_large() -> None:
    assert protocol.chunk_shape((8, 60, 2, 1024, 2048), 2) == (1, 1, 1, 1024, 2048)
    assert protocol.chunk_shape((8, 60, 2, 256, 2048), 2) == (1, 1, 1, 256, 2048)
    assert protocol.chunk_shape((8, 60, 2, 128, 2048), 2) == (1, 1, 2, 128, 2048)
    assert protocol.chunk_shape((8, 60, 2, 64, 256), 2) == (1, 20, 2, 64, 256)
    assert protocol.chunk_shape((8, 4, 2, 64, 256), 2) == (4, 4, 2, 64, 256)
    assert protocol.chunk_shape((3, 2, 2, 4, 4), 2) == (3, 2, 2, 4, 4)


@given(
    shard=st.tuples(*[st.integers(1, 40)] * 3, st.integers(1, 2000), st.integers(1, 3000)),
    itemsize=st.sampled_from([2, 4]),
)
def test_chunks_fill_the_shard_and_are_at_least_one_mebibyte(
    shard: tuple[int, int, int, int, int], itemsize: int
) -> None:
    chunk = protocol.chunk_shape(shard, itemsize)
    assert all(length % inner == 0 for length, inner in zip(shard, chunk, strict=True))
    assert chunk[3:] == shard[3:]
    size = itemsize
    for inner in chunk:
        size *= inner
    assert size >= 2**20 or chunk == shard


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sites": {}}, "sites must be given"),
        ({"sites": {"a/b": 1}}, "site name 'a/b' cannot be a folder"),
        ({"sites": {"../a": 1}}, "cannot be a folder"),
        ({"sites": {".staging": 1}}, "cannot be a folder"),
        ({"sites": {"zarr.json": 1}}, "cannot be a folder"),
        ({"steps": (1, 1, 2)}, "steps must be given, each once"),
        ({"passes": ()}, "passes must be given"),
        ({"sigmas": (1.0,)}, "one finite sigma for each of its 3 steps"),
        ({"sigmas": (1.0, 0.5, float("nan"))}, "one finite sigma"),
        ({"identity": {"a": float("nan")}}, "identity must be plain JSON"),
        ({"identity": {"a": object()}}, "identity must be plain JSON"),
    ],
)
def test_unusable_plans_are_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_plan(**changes)


@pytest.mark.parametrize(
    "changes", [{"n_clips": 0}, {"dtype": "float8"}, {"passes": ("both",)}, {"extra": 1}]
)
def test_wrong_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_plan(**changes)


def test_errors_import_without_the_heavy_libraries() -> None:
    code = "import sys, cache.errors; print(sorted({'zarr', 'pandas', 'xarray', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
