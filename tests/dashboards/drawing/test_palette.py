"""The colours of maps."""

import numpy as np

from dashboards.drawing import palette


def test_the_colour_scale_has_equal_steps_of_lightness() -> None:
    lightness = np.array([_lightness(colour) for colour in palette.SEQUENTIAL])
    assert np.abs(np.diff(lightness) - np.diff(lightness).mean()).max() < 0.5


def _lightness(colour: str) -> float:
    """CIE L* of a hexadecimal sRGB colour."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * luminance ** (1 / 3) - 16
