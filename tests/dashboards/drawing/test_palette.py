"""The colours of maps."""

import numpy as np
import pytest

from dashboards.drawing import palette
from dashboards.drawing.paper import CMAP, draw_cells, new_figure, write_numbers
from dashboards.drawing.screen import cell_numbers

READABLE = 4.5  # WCAG 2.2, level AA
LEVELS = np.linspace(-0.2, 1.2, 141)


def test_the_colour_scale_has_equal_steps_of_lightness() -> None:
    lightness = np.array([_lightness(colour) for colour in palette.SEQUENTIAL])
    assert np.abs(np.diff(lightness) - np.diff(lightness).mean()).max() < 0.5


def test_numbers_in_cells_are_readable_on_every_colour_on_screen() -> None:
    trace = cell_numbers(LEVELS[None], list(map(float, range(len(LEVELS)))), [0.0], 11)
    for colour, level in zip(trace.textfont.color, LEVELS, strict=True):
        assert _contrast(colour, CMAP(np.clip(level, 0, 1))[:3]) >= READABLE


def test_numbers_in_cells_are_readable_on_every_colour_on_paper() -> None:
    axes = new_figure("double", 1.0).subplots()
    places = list(map(float, range(len(LEVELS))))
    draw_cells(axes, LEVELS[None], places, [0.0], 20.0)
    write_numbers(axes, LEVELS[None], places, [0.0], 20.0, 20.0)
    assert len(axes.texts) == len(LEVELS)
    for text in axes.texts:
        assert _contrast(text.get_color(), text.get_bbox_patch().get_facecolor()[:3]) >= READABLE


def test_mid_blue_cells_have_black_numbers_and_darker_ones_white() -> None:
    assert palette.is_dark(np.array([0.0, 0.41, 0.46, 0.5, 0.65, 1.0, np.nan])).tolist() == [
        *[False] * 4, True, True, False,
    ]  # fmt: skip
    assert palette.luminance(np.array([0.5]))[0] == pytest.approx(_luminance(palette.SEQUENTIAL[4]))


def _contrast(one: str, other: tuple[float, ...]) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _of_channels(np.array(other))))
    return (high + 0.05) / (low + 0.05)


def _lightness(colour: str) -> float:
    """CIE L* of a hexadecimal sRGB colour."""
    return 116 * _luminance(colour) ** (1 / 3) - 16


def _luminance(colour: str) -> float:
    return _of_channels(np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255)


def _of_channels(channels: np.ndarray) -> float:
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
