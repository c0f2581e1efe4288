"""Scorers, which measure how well audio matches a text or shows a concept's value."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import AfterValidator

from cache.errors import UserError
from cache.wording import quoted
from workbench.provenance import content_hash
from workbench.validation import Names

# Modules are named, not imported: a scorer's libraries take seconds to import and may not be installed. Each class has
# a class method `identify`, which returns the `identity` of a scorer without loading its network.
SCORERS = {
    "embedded": ("workbench.scorers.embedded", "EmbeddedScorer"),
    "musicnn": ("workbench.scorers.musicnn", "MusicnnScorer"),
    "descriptors": ("workbench.scorers.descriptor_scorer", "DescriptorScorer"),
    "clap": ("workbench.scorers.clap_transformers", "TransformersClapScorer"),
    "clap-laion": ("workbench.scorers.clap_laion", "LaionClapScorer"),
    "muq-mulan": ("workbench.scorers.muq_mulan", "MuqMulanScorer"),
    "audiobox": ("workbench.scorers.audiobox", "AudioboxScorer"),
}


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of scorers in the order of `SCORERS`, unknown ones last."""
    known = list(SCORERS)
    return tuple(sorted(names, key=lambda name: known.index(name) if name in known else len(known)))


ScorerNames = Annotated[Names, AfterValidator(_in_order)]
"""Scorers of a spec. Their order is fixed, so that asking for the same ones in another order is the same spec."""


@runtime_checkable
class Scorer(Protocol):
    """A scorer, which gives every clip a score for every text.

    `identity` is a hash of everything that determines its scores except the audio and the text, such as its weights;
    scores are stored under it. A clip shorter than `min_seconds` has no score.
    """

    name: str
    identity: str
    min_seconds: float

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text that cannot be scored."""
        ...

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Score clips of audio in [-1, 1] at `sample_rate` Hz against texts; NaN for clips that failed."""
        ...


def heard(scorer: Scorer, texts: Iterable[str]) -> list[str]:
    """Return those of the texts that a scorer can score, each once."""
    return [text for text in dict.fromkeys(texts) if not _refusal(scorer, text)]


def check_heard(scorers: Iterable[Scorer], texts: Iterable[str]) -> list[str]:
    """Return a sentence for each scorer that cannot score some of the texts, which have no scores by it.

    Raises:
        UserError: if there is a text that none of the scorers can score.
    """
    every, scorers = list(dict.fromkeys(texts)), list(scorers)
    for text in every:
        refusals = [_refusal(scorer, text) for scorer in scorers]
        if all(refusals):
            raise UserError(" ".join(refusals))
    by_scorer = {
        scorer.name: [text for text in every if text not in heard(scorer, every)] for scorer in scorers
    }
    return [
        f"The scorer {name} cannot score {', '.join(map(quoted, silent))}: there are no scores by it."
        for name, silent in by_scorer.items()
        if silent
    ]


def _refusal(scorer: Scorer, text: str) -> str:
    """Return the sentence with which a scorer refuses a text, or ""."""
    try:
        scorer.check_texts([text])
    except UserError as error:
        return str(error)
    return ""


def score_key(name: str, identity: str, text: str) -> str:
    """Return the key of a stored score: the scorer's name, and a hash of everything else that determines it."""
    return f"{name}-{content_hash([identity, text])}"


def load_scorer(name: str, device: str = "cpu", **options: Any) -> Scorer:
    """Load the scorer `name`, one of `SCORERS`.

    `device` is a torch device, for scorers with a network; `options` are passed to the scorer's constructor.

    Raises:
        UserError: if the name is unknown, or the scorer's weights or packages are missing.
    """
    return _scorer_class(name)(device=device, **options)


def scorer_identity(name: str) -> str:
    """Return the `identity` of the scorer `name` with its defaults; raise as `load_scorer` does."""
    return str(_scorer_class(name).identify())


def _scorer_class(name: str) -> Any:
    if name not in SCORERS:
        raise UserError(f"Unknown scorer {name!r}. Scorers: {', '.join(map(repr, SCORERS))}.")
    module, scorer = SCORERS[name]
    return getattr(import_module(module), scorer)
