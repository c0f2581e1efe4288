"""The registry of SAE architectures: each is a file in this folder and an entry here."""

from typing import NamedTuple

from workbench.sae.base import SAE, Objective, SAEConfig
from workbench.sae.batch_topk import BatchTopKObjective
from workbench.sae.gated import GatedConfig, GatedObjective, GatedSAE
from workbench.sae.jumprelu import JumpReLUConfig, JumpReLUObjective, JumpReLUSAE
from workbench.sae.matryoshka import MatryoshkaObjective
from workbench.sae.standard import StandardConfig, StandardObjective, StandardSAE
from workbench.sae.topk import TopKConfig, TopKObjective, TopKSAE
from workbench.sae.transcoder import (
    BatchTopKTranscoderObjective,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    TopKTranscoder,
    TopKTranscoderConfig,
    TopKTranscoderObjective,
)


class Architecture(NamedTuple):
    """The three classes that make up an architecture: configuration and module of what is kept, and the objective."""

    config: type[SAEConfig]
    sae: type[SAE]
    objective: type[Objective]


ARCHITECTURES = {
    "topk": Architecture(TopKConfig, TopKSAE, TopKObjective),
    "batchtopk": Architecture(JumpReLUConfig, JumpReLUSAE, BatchTopKObjective),
    "matryoshka_batchtopk": Architecture(JumpReLUConfig, JumpReLUSAE, MatryoshkaObjective),
    "jumprelu": Architecture(JumpReLUConfig, JumpReLUSAE, JumpReLUObjective),
    "standard": Architecture(StandardConfig, StandardSAE, StandardObjective),
    "gated": Architecture(GatedConfig, GatedSAE, GatedObjective),
    "topk_transcoder": Architecture(TopKTranscoderConfig, TopKTranscoder, TopKTranscoderObjective),
    "batchtopk_transcoder": Architecture(
        JumpReLUTranscoderConfig, JumpReLUTranscoder, BatchTopKTranscoderObjective
    ),
}
"""By its objective's name, which is SAELens' where it has the architecture."""


def kept_architectures() -> dict[str, Architecture]:
    """Return the architectures by the name in a configuration on disk: BatchTopK, for one, is kept as JumpReLU."""
    named = {entry.config.model_fields["architecture"].default: entry for entry in ARCHITECTURES.values()}
    return named | {name: entry for name, entry in ARCHITECTURES.items() if name in named}
