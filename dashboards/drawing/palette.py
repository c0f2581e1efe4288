"""Colours shared by screen and paper.

The sequential scale runs from near-white to deep blue along equal steps of CIE L* (97 to 20), so that equal
differences look equal and print as equal greys.
"""

import numpy as np
from jaxtyping import Bool, Float

SEQUENTIAL = (
    "#f3f7f8",
    "#b0e2fa",
    "#79caf4",
    "#4bafe8",
    "#2894d5",
    "#1c79bb",
    "#225e9c",
    "#26457a",
    "#242e56",
)
DIVERGING = (
    *("#4a2010", "#763516", "#a14d22", "#c66a36", "#e18c58", "#efae83", "#f6ceb2", "#fae5d6"),
    *SEQUENTIAL,
)
"""From brown (below 0) over the near-white of the sequential scale (0) to its deep blue, as light at either side."""
INK = "#1f2933"
ON_LIGHT = "#000000"  # numbers in cells: `INK` would have too little contrast on the middle of the scale
ON_DARK = "#ffffff"
MUTED = "#6b7785"
RULE = "#d5dae0"
UNDEFINED = "#e4e4e4"
PLANTED = "#d9480f"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of lines that are apart for colour-blind readers, too (Okabe and Ito, Color Universal Design, 2002)."""


def is_dark(
    level: Float[np.ndarray, "*cells"], scale: tuple[str, ...] = SEQUENTIAL
) -> Bool[np.ndarray, "*cells"]:
    """Whether white has more contrast than black on a scale at `level` (0 to 1); not for NaN."""
    brightness = luminance(np.clip(level, 0, 1), scale)
    with_white, with_black = 1.05 / (brightness + 0.05), (brightness + 0.05) / 0.05
    return np.asarray(with_white > with_black)


def luminance(
    level: Float[np.ndarray, "*cells"], scale: tuple[str, ...] = SEQUENTIAL
) -> Float[np.ndarray, "*cells"]:
    """Relative luminance (WCAG 2.2) of a scale, which is interpolated between its sRGB colours."""
    places = np.linspace(0, 1, len(scale))
    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in scale]) / 255
    channels = np.stack([np.interp(level, places, channel) for channel in colours.T], axis=-1)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])
