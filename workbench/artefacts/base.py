"""The base class of artefacts of a concept."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from workbench.artefacts.concepts import Concept
from workbench.artefacts.sources import Origin


@dataclass(frozen=True, kw_only=True)
class Artefact(ABC):
    """A published artefact: arrays for one concept, and their origin."""

    kind: ClassVar[str]

    concept: Concept
    origin: Origin

    @property
    @abstractmethod
    def name(self) -> str:
        """File name, without its extension."""

    @property
    def sites(self) -> dict[str, int]:
        """Width of each site it acts on; empty if it does not act on activations."""
        return {}

    @property
    def steps(self) -> int:
        """Number of denoising steps with separate arrays; 0 if it acts on all steps alike."""
        return 0

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by the names under which they are stored."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return the metadata of this kind, stored with the arrays."""
