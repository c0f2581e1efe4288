"""The architectures of sparse autoencoders: each is a file of this folder and an entry here."""

from typing import NamedTuple

from workbench.sae.base import SAE, Objective, SAEConfig
from workbench.sae.topk import TopKConfig, TopKObjective, TopKSAE


class Architecture(NamedTuple):
    """The three classes of an architecture."""

    config: type[SAEConfig]
    sae: type[SAE]
    objective: type[Objective]


ARCHITECTURES = {"topk": Architecture(TopKConfig, TopKSAE, TopKObjective)}
"""By the name that a configuration has for it, which is SAELens'."""
