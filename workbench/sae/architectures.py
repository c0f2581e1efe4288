"""The registry of SAE architectures: each is a file in this folder and an entry here."""

from typing import NamedTuple

from workbench.sae.base import SAE, Objective, SAEConfig
from workbench.sae.topk import TopKConfig, TopKObjective, TopKSAE


class Architecture(NamedTuple):
    """The three classes that make up an architecture."""

    config: type[SAEConfig]
    sae: type[SAE]
    objective: type[Objective]


ARCHITECTURES = {"topk": Architecture(TopKConfig, TopKSAE, TopKObjective)}
"""By its name in a configuration, which is SAELens'."""
