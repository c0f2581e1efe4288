"""What every artefact of a concept says of itself."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from workbench.artefacts.concepts import Concept
from workbench.artefacts.sources import Origin


class Artefact(ABC):
    """An artefact of others: the concept that it changes, and where it came from."""

    kind: ClassVar[str]
    concept: Concept
    origin: Origin

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of its file."""

    @property
    def sites(self) -> dict[str, int]:
        """Its sites, each with its width; none where it does not act on activations."""
        return {}

    @property
    def steps(self) -> int:
        """Its denoising steps; 0 where it acts alike on all."""
        return 0

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays as they are written, by name."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is written beside them."""
