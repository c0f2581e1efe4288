"""Number formats: what is cast, stored and decoded, against numpy's and ml_dtypes' own rounding."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jaxtyping import Shaped

from cache import ActivationCache, CacheWriter, UserError
from cache.encoding import decode
from cache.object_storage import memory_storage
from tests.cache.helpers import make_clips, make_plan

PEERS: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
BITS: dict[str, Any] = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32}

ANY_FLOAT32_BITS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20)


def stored_bits(values: Any, dtype: str) -> Shaped[np.ndarray, " n"]:
    """The bits that a cache stores for some values: written, and read back as they are stored."""
    plan = make_plan(
        sites={"x": len(values)},
        dtypes=dtype,
        n_clips=1,
        steps=[0],
        sigmas=[1],
        passes=["cond"],
        tokens=1,
        clips_per_shard=1,
    )
    storage = memory_storage()
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        writer.write_shard(0, {"x": values.reshape(plan.shape("x"))})
    cache = ActivationCache(storage)
    stored = cache.read_stored("x", [range(length) for length in plan.shape("x")])
    np.testing.assert_array_equal(cache.read("x"), decode(stored, dtype))
    return stored.reshape(-1).view(BITS[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@given(bits=ANY_FLOAT32_BITS)
@example(bits=[0x477FEFFF, 0x477FF000])  # around the largest float16 and halfway beyond it
@example(bits=[0x7F7F7FFF, 0x7F7F8000])  # the same of bfloat16
@settings(max_examples=60, deadline=None)
def test_values_are_rounded_as_the_peer_does_or_refused(dtype: str, bits: list[int]) -> None:
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(PEERS[dtype])
    if np.isfinite(expected.astype(np.float32)).all():
        np.testing.assert_array_equal(stored_bits(values, dtype), expected.view(np.uint16))
    else:
        with pytest.raises(UserError, match=rf"NaN|infinity|exceeds the largest of {dtype}"):
            stored_bits(values, dtype)


@pytest.mark.parametrize("low", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_bfloat16_ties_and_neighbours(low: int) -> None:
    upper = np.arange(2**16, dtype=np.uint32)
    values = (upper << 16 | np.uint32(low)).view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    fits = np.isfinite(expected.astype(np.float32))
    assert fits.sum() >= 2**16 - 2 * 2**7 - 2
    np.testing.assert_array_equal(stored_bits(values[fits], "bfloat16"), expected[fits].view(np.uint16))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_finite_16_bit_value_survives_as_it_is_and_by_way_of_float32(dtype: str) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(PEERS[dtype])
    values = values[np.isfinite(values.astype(np.float32))]
    bits = values.view(np.uint16)
    assert len(bits) > 2**15
    as_tensor = torch.from_numpy(bits.copy()).view(getattr(torch, dtype))
    np.testing.assert_array_equal(stored_bits(as_tensor, dtype), bits)
    np.testing.assert_array_equal(stored_bits(values.astype(np.float32), dtype), bits)
    if dtype == "bfloat16":
        np.testing.assert_array_equal(stored_bits(bits, dtype), bits)


def test_float32_is_stored_bit_for_bit() -> None:
    bits = np.array([0, 1, 0x80000000, 0x00800000, 0x3F800001, 0x7F7FFFFF, 0xFF7FFFFF], dtype=np.uint32)
    np.testing.assert_array_equal(stored_bits(bits.view(np.float32), "float32"), bits)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("given_dtype", [np.float16, np.float32, np.float64])
def test_not_finite_is_refused(dtype: str, bad: float, given_dtype: type) -> None:
    with pytest.raises(UserError, match="NaN" if np.isnan(bad) else "infinity"):
        stored_bits(np.array([1.0, bad], dtype=given_dtype), dtype)


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_not_finite_bits_are_refused(bits: int) -> None:
    with pytest.raises(UserError, match=r"NaN|infinity"):
        stored_bits(np.array([0, bits], dtype=np.uint16), "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_largest_value_fits_and_twice_that_does_not(dtype: str) -> None:
    largest = float(torch.finfo(getattr(torch, dtype)).max)
    bits = stored_bits(np.array([-largest, largest]), dtype)
    np.testing.assert_array_equal(bits.view(PEERS[dtype]).astype(np.float64), [-largest, largest])
    for too_large in (2 * largest, -2 * largest):
        with pytest.raises(
            UserError,
            match=rf"magnitude {2 * largest:.4g} exceeds the largest of {dtype}".replace("+", r"\+"),
        ):
            stored_bits(np.array([1.0, too_large]), dtype)
