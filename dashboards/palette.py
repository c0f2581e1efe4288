"""Colours shared by screen and paper.

The sequential scale runs from near-white to deep blue along equal steps of CIE L* (97 to 20), so that equal
differences look equal and print as equal greys.
"""

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
# Series colours: Okabe and Ito's, safe for colour-blind readers, in an order that also separates in grey.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def ink_on(level: float) -> str:
    """Text colour that reads on the sequential scale at `level` (0 lightest, 1 darkest)."""
    return "#ffffff" if level > 0.55 else INK
