"""Shuffled rows: all of them, once each, in an order without a trace of the disk's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from cache import ActivationCache, CachePlan, CacheWriter, UserError, shuffle
from tests.cache.helpers import make_clips, make_plan, shard_values, write_cache


def numbered_cache(path: Path, plan: CachePlan) -> ActivationCache:
    """A cache whose site "x" holds (row number on disk, the same / 2) in its two channels."""
    numbers = np.arange(np.prod(plan.shape("x")[:4]), dtype=np.float32).reshape(*plan.shape("x")[:4])
    values = np.stack([numbers, numbers / 2], axis=-1)
    with CacheWriter(path, plan, make_clips(plan)) as writer:
        for shard, (first, last) in enumerate(plan.shards):
            writer.write_shard(shard, {"x": values[first : last + 1]})
    return ActivationCache(path)


def numbered_plan(n_clips: int, tokens: int, clips_per_shard: int = 1) -> CachePlan:
    return make_plan(
        sites={"x": 2}, dtype="float32", n_clips=n_clips, tokens=tokens, clips_per_shard=clips_per_shard
    )


def row_numbers(batches: list[Float[np.ndarray, "_ channel"]]) -> Int[np.ndarray, " row"]:
    rows = np.concatenate(batches)
    np.testing.assert_array_equal(rows[:, 1], rows[:, 0] / 2)
    return rows[:, 0].astype(int)


@given(
    n_clips=st.integers(1, 9),
    clips_per_shard=st.integers(1, 4),
    batch_size=st.integers(1, 300),
    shards_together=st.integers(0, 4),
)
@settings(max_examples=25, deadline=None)
def test_every_row_once_in_full_batches(
    tmp_path_factory: pytest.TempPathFactory,
    n_clips: int,
    clips_per_shard: int,
    batch_size: int,
    shards_together: int,
) -> None:
    plan = numbered_plan(n_clips, tokens=3, clips_per_shard=clips_per_shard)
    cache = numbered_cache(tmp_path_factory.mktemp("rows") / "a", plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "BUFFER_BYTES", shards_together * np.prod(plan.shard_shape("x")) * 4)
        batches = list(cache.shuffled_rows("x", batch_size, seed=1))
    total = n_clips * 3 * 2 * 3
    np.testing.assert_array_equal(np.sort(row_numbers(batches)), np.arange(total))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= batch_size


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    cache = numbered_cache(tmp_path / "a", numbered_plan(6, tokens=5))
    first, again, other = (row_numbers(list(cache.shuffled_rows("x", 8, seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_only_the_steps_and_passes_asked_for(tmp_path: Path) -> None:
    plan = numbered_plan(4, tokens=5, clips_per_shard=2)
    cache = numbered_cache(tmp_path / "a", plan)
    rows = row_numbers(list(cache.shuffled_rows("x", 7, 0, steps=[21, 0], passes=["null"])))
    wanted = cache.read("x", steps=[0, 21], passes=["null"])[..., 0]
    np.testing.assert_array_equal(np.sort(rows), np.sort(wanted.ravel().astype(int)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_equal_those_that_read_gives(tmp_path: Path, dtype: str) -> None:
    cache = ActivationCache(write_cache(tmp_path / "a", make_plan(dtype=dtype)))
    rows = np.concatenate(list(cache.shuffled_rows("tf1.mlp", 11, 0)))
    expected = cache.read("tf1.mlp").reshape(-1, 5)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.tolist()))


def test_uniform_where_all_shards_fit_at_once(tmp_path: Path) -> None:
    cache = numbered_cache(tmp_path / "a", numbered_plan(30, tokens=20))
    for seed in range(3):
        order = row_numbers(list(cache.shuffled_rows("x", 64, seed)))
        n = len(order)
        assert abs(spearmanr(order, np.arange(n)).statistic) < 4 / np.sqrt(n)
        # Neighbours on disk come one after the other as rarely as in any random order: n * 2 / n of them.
        assert (np.abs(np.diff(order)) == 1).sum() < 12


def test_no_correlation_with_the_disk_where_few_shards_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = numbered_plan(60, tokens=4)
    cache = numbered_cache(tmp_path / "a", plan)
    monkeypatch.setattr(shuffle, "BUFFER_BYTES", 6 * np.prod(plan.shard_shape("x")) * 4)
    correlations = []
    for seed in range(5):
        order = row_numbers(list(cache.shuffled_rows("x", 32, seed)))
        correlations.append(spearmanr(order, np.arange(len(order))).statistic)
        # The first batch is mixed from 6 shards of 24 rows.
        assert len(set(order[:32] // 24)) >= 4
    # The order of 60 shards is random: a correlation has the standard deviation 1 / sqrt(59).
    assert np.abs(correlations).max() < 4 / np.sqrt(59)
    assert abs(np.mean(correlations)) < 4 / np.sqrt(5 * 59)


def test_each_shard_is_read_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = numbered_cache(tmp_path / "a", numbered_plan(10, tokens=3, clips_per_shard=2))
    monkeypatch.setattr(shuffle, "BUFFER_BYTES", 1)
    reads: list[list[int]] = []
    read_stored = ActivationCache.read_stored

    def spy(self: ActivationCache, site: str, positions: list[list[int]]) -> Float[np.ndarray, "..."]:
        reads.append(list(positions[0]))
        return read_stored(self, site, positions)

    monkeypatch.setattr(ActivationCache, "read_stored", spy)
    batches = cache.shuffled_rows("x", 5, 0)
    next(batches)
    assert len(reads) == 2
    list(batches)
    assert sorted(reads) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert reads != sorted(reads)


def test_a_partial_cache_gives_what_is_there(tmp_path: Path) -> None:
    plan = make_plan()
    with CacheWriter(tmp_path / "a", plan, make_clips(plan)) as writer:
        writer.write_shard(1, shard_values(plan, 1))
    cache = ActivationCache(tmp_path / "a", allow_partial=True)
    rows = np.concatenate(list(cache.shuffled_rows("tf1.mlp", 10, 0)))
    np.testing.assert_array_equal(
        np.sort(rows, axis=None), np.sort(cache.read("tf1.mlp", clips=[2, 3]), axis=None)
    )


def test_nonsense_is_refused_at_once(tmp_path: Path) -> None:
    cache = ActivationCache(write_cache(tmp_path / "a", make_plan()))
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        cache.shuffled_rows("tf1.mlp", 0, 0)
    with pytest.raises(UserError, match="no site 'x'"):
        cache.shuffled_rows("x", 1, 0)
    with pytest.raises(UserError, match="no step 3"):
        cache.shuffled_rows("tf1.mlp", 1, 0, steps=[3])
