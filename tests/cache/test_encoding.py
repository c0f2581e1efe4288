"""Number formats against torch's and numpy's own rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.encoding import LARGEST, decode, encode

ANY_FLOAT32_BITS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20)


@given(bits=ANY_FLOAT32_BITS)
def test_bfloat16_rounds_as_torch_does_or_refuses(bits: list[int]) -> None:
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    expected = torch.from_numpy(values.copy()).bfloat16()
    if bool(torch.isfinite(expected).all()):
        np.testing.assert_array_equal(encode(values, "bfloat16"), expected.view(torch.uint16).numpy())
    else:
        with pytest.raises(ValueError, match=r"NaN|infinity|does not fit bfloat16"):
            encode(values, "bfloat16")


@pytest.mark.parametrize("low", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_bfloat16_ties_and_neighbours(low: int) -> None:
    upper = np.arange(2**16, dtype=np.uint32)
    upper = upper[(upper & 0x7F80) != 0x7F80]
    values = (upper << 16 | np.uint32(low)).view(np.float32)
    expected = torch.from_numpy(values.copy()).bfloat16()
    fits = torch.isfinite(expected).numpy()
    np.testing.assert_array_equal(encode(values[fits], "bfloat16"), expected.view(torch.uint16).numpy()[fits])


@given(bits=ANY_FLOAT32_BITS)
def test_float16_rounds_as_numpy_does_or_refuses(bits: list[int]) -> None:
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    if np.isfinite(expected).all():
        np.testing.assert_array_equal(
            decode(encode(values, "float16"), "float16"), expected.astype(np.float32)
        )
    else:
        with pytest.raises(ValueError, match=r"NaN|infinity|does not fit float16"):
            encode(values, "float16")


def test_every_finite_16_bit_value_survives() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    halves = bits.view(np.float16)
    halves = halves[np.isfinite(halves)]
    np.testing.assert_array_equal(
        encode(decode(halves, "float16"), "float16").view(np.uint16), halves.view(np.uint16)
    )
    brains = bits[(bits & 0x7F80) != 0x7F80]
    np.testing.assert_array_equal(encode(decode(brains, "bfloat16"), "bfloat16"), brains)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("given_dtype", [np.float16, np.float32, np.float64])
def test_not_finite_is_refused(dtype: str, bad: float, given_dtype: type) -> None:
    with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
        encode(np.array([1.0, bad], dtype=given_dtype), dtype)


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_not_finite_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        encode(np.array([0, bits], dtype=np.uint16), "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_largest_value_fits_and_twice_that_does_not(dtype: str) -> None:
    largest = torch.finfo(getattr(torch, dtype)).max
    assert LARGEST[dtype] == pytest.approx(largest, rel=1e-4)
    assert decode(encode(np.array([-largest]), dtype), dtype)[0] == -largest
    with pytest.raises(ValueError, match=f"does not fit {dtype}"):
        encode(np.array([2 * largest]), dtype)
