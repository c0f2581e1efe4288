"""Which tokens are stored: all, every n-th, or means of neighbours; against numpy, token by token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from cache import ActivationCache, CacheWriter
from cache.object_storage import memory_storage
from cache.pipeline import ShardPipeline
from cache.plan import TokenReduction
from cache.tokens import reduce_tokens
from tests.cache.helpers import make_clips, make_plan


def by_the_page(
    values: Float[np.ndarray, "*axes token channel"], kind: str, size: int
) -> Float[np.ndarray, "*axes stored channel"]:
    """The protocol's table, one stored token after the other, in float64."""
    tokens = values.shape[-2]
    stored = []
    for t in range(tokens):
        if t * size >= tokens:
            break
        if kind == "mean":
            group = range(t * size, min((t + 1) * size, tokens))
            stored.append(sum(values[..., i, :].astype(np.float64) for i in group) / len(group))
        else:
            stored.append(values[..., t * size, :].astype(np.float64))
    return np.stack(stored, axis=-2)


@given(tokens=st.integers(1, 12), size=st.integers(1, 14), kind=st.sampled_from(["stride", "mean"]))
def test_as_many_tokens_as_the_page_says_and_the_same(tokens: int, size: int, kind: str) -> None:
    values = np.random.default_rng(tokens).standard_normal((2, 3, tokens, 4), dtype=np.float32)
    reduction = TokenReduction(kind=kind, size=size)
    kept = reduce_tokens(torch.from_numpy(values), reduction).numpy()
    expected = by_the_page(values, kind, size)
    assert reduction.stored_tokens(tokens) == expected.shape[-2]
    assert kept.shape == expected.shape
    if kind == "stride":
        np.testing.assert_array_equal(kept, expected)
    else:
        np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)


def test_without_reduction_nothing_is_copied() -> None:
    values = torch.randn(2, 2, 5, 3)
    for reduction in (TokenReduction(), TokenReduction(kind="mean"), TokenReduction(kind="stride")):
        assert reduce_tokens(values, reduction) is values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_are_taken_in_float32(dtype: torch.dtype) -> None:
    # In 16 bits 2048 + 1 is 2048, and the sum of 40000s overflows float16.
    values = torch.tensor([2048.0, 1.0, 40000.0, 40000.0], dtype=dtype).reshape(1, 1, 4, 1)
    means = reduce_tokens(values, TokenReduction(kind="mean", size=2))
    assert means.dtype == torch.float32
    large = float(torch.tensor(40000.0, dtype=dtype))
    assert means.flatten().tolist() == [1024.5, large]


def test_means_of_float64_stay_float64() -> None:
    values = torch.tensor([1.0, 1.0 + 2**-40], dtype=torch.float64).reshape(2, 1)
    assert reduce_tokens(values, TokenReduction(kind="mean", size=2)).item() == 1.0 + 2**-41


@given(
    kind=st.sampled_from(["none", "stride", "mean"]),
    size=st.integers(1, 5),
    tokens=st.integers(1, 9),
    given_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=25, deadline=None)
def test_what_the_denoiser_gives_is_reduced_before_it_is_stored(
    kind: str, size: int, tokens: int, given_dtype: torch.dtype
) -> None:
    reduction = TokenReduction(kind=kind, size=1 if kind == "none" else size)
    plan = make_plan(
        dtypes="float32",
        tokens=reduction.stored_tokens(tokens),
        token_reduction=reduction.model_dump(),
        token_seconds=0.04 * reduction.size,
    )
    rng = np.random.default_rng(tokens)
    values = {
        site: torch.from_numpy(rng.standard_normal((5, 3, 2, tokens, channels), dtype=np.float32)).to(
            given_dtype
        )
        for site, channels in plan.sites.items()
    }
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer, ShardPipeline(writer) as pipeline:
        for shard, (first, last) in enumerate(plan.shards):
            pipeline.begin(shard)
            for site, whole in values.items():
                for position, step in enumerate(plan.steps):
                    pipeline.add(site, step, whole[first : last + 1, position])
            pipeline.end()
    cache = ActivationCache(storage)
    for site, whole in values.items():
        expected = by_the_page(whole.float().numpy(), kind, reduction.size)
        np.testing.assert_allclose(cache.read(site), expected, rtol=1e-5, atol=1e-6)
    seconds = cache.dataset("tf1.mlp").coords["seconds"].values
    np.testing.assert_allclose(seconds, np.arange(plan.tokens) * 0.04 * reduction.size)
