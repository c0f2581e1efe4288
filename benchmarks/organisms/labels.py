"""The labels of a clip: the values of its four concepts."""

from dataclasses import asdict, dataclass

import numpy as np

from cache.errors import UserError

CONCEPTS: dict[str, tuple[str, ...]] = {
    "instrument": ("violin", "flute", "piano", "trumpet", "guitar", "female vocal", "male vocal"),
    "tempo": ("slow", "fast"),
    "mood": ("happy", "sad"),
    "drums": ("with drums", "without drums"),
}
"""Every concept and its allowed values, in the order used by scorers, tables and plans."""


@dataclass(frozen=True)
class Labels:
    """The concept values of one clip; each must be one of `CONCEPTS`."""

    instrument: str
    tempo: str
    mood: str
    drums: str

    def __post_init__(self) -> None:
        for concept, value in asdict(self).items():
            if value not in CONCEPTS[concept]:
                allowed = ", ".join(CONCEPTS[concept])
                raise UserError(f"{concept} {value!r} is not known; allowed: {allowed}")

    def value(self, concept: str) -> str:
        """Value of `concept`."""
        return str(getattr(self, concept))

    @property
    def prompt(self) -> str:
        """The canonical prompt, e.g. ``a fast happy violin song with drums``."""
        return f"a {self.tempo} {self.mood} {self.instrument} song {self.drums}"


def draw_labels(rng: np.random.Generator) -> Labels:
    """Each concept's value, uniform and independent of the others."""
    return Labels(**{concept: str(rng.choice(values)) for concept, values in CONCEPTS.items()})
