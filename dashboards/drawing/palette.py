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
INK = "#1f2933"
MUTED = "#6b7785"
RULE = "#d5dae0"
UNDEFINED = "#e4e4e4"
PLANTED = "#d9480f"


def is_dark(level: Float[np.ndarray, "*cells"]) -> Bool[np.ndarray, "*cells"]:
    """Whether the sequential scale at `level` (0 lightest, 1 darkest) needs white text; NaN does not."""
    return level > 0.55
