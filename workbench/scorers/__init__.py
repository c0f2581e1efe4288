"""Scorers: how well a clip of audio agrees with a text, or shows a concept value."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cache.errors import UserError

# Modules are named, not imported: a scorer's libraries take seconds to import and may not be installed.
_SCORERS = {
    "embedded": ("workbench.scorers.embedded", "EmbeddedScorer"),
    "clap": ("workbench.scorers.clap_transformers", "TransformersClapScorer"),
    "clap-laion": ("workbench.scorers.clap_laion", "LaionClapScorer"),
}


@runtime_checkable
class Scorer(Protocol):
    """Something that gives every clip a score for every text."""

    name: str

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Score clips of audio in [-1, 1] at `sample_rate` Hz against texts; NaN for clips that failed."""
        ...


def load_scorer(name: str, device: str = "cpu", **options: Any) -> Scorer:
    """Make the scorer `name`: "embedded", "clap" (through transformers) or "clap-laion" (through laion-clap).

    `device` is torch's, for scorers that have a network; `options` go to the scorer's constructor. Raises `UserError`
    for an unknown name, and whatever sentence the scorer has when its weights or its packages are missing.
    """
    if name not in _SCORERS:
        raise UserError(f"There is no scorer {name!r}; the scorers are {', '.join(map(repr, _SCORERS))}.")
    module, scorer = _SCORERS[name]
    return getattr(import_module(module), scorer)(device=device, **options)
