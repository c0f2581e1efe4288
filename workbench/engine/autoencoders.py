"""Sparse autoencoders of edits: a configuration, and weights that are identified by hashes of their content."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict

from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.sites import Site
from workbench.engine.tensors import HashedTensor
from workbench.sae.architectures import Architecture, kept_architectures
from workbench.sae.base import SAE, SAEConfig
from workbench.sae.transcoder import Transcoder
from workbench.validation import must_be, validated


@dataclass(frozen=True)
class HashedSAE:
    """An SAE of any architecture: its configuration as JSON data, and its weights by name.

    Of the configuration's metadata only `scaled_steps` is kept, on which the arithmetic depends. A transcoder also has
    the site that it reads, as `hook_name`.

    Raises:
        UserError: if the architecture is unknown, or configuration and weights do not fit together.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    config: dict[str, Any]
    weights: dict[str, HashedTensor]

    def __post_init__(self) -> None:
        wanted = self._architecture.sae.shapes(self.checked_config)
        given = {name: tuple(value.value.shape) for name, value in self.weights.items()}
        _ = self.read_site  # there must be one
        if given != wanted:
            raise UserError(
                f"The weights of the autoencoder do not fit its configuration, which needs {_listed(wanted)}; got "
                f"{_listed(given)}."
            )

    def __hash__(self) -> int:
        return hash(tuple(self.weights.values()))

    @classmethod
    def of(cls, sae: Any) -> "HashedSAE":
        """Copy an SAE; raise UserError for anything else, or a transcoder that does not say which site it reads."""
        must_be(SAE, sae, "An autoencoder must be an SAE, such as that of study.train_sae or read_sae")
        names = ("scaled_steps", *(["hook_name"] if isinstance(sae, Transcoder) else []))
        needed = {name: sae.config.metadata[name] for name in names if name in sae.config.metadata}
        config = sae.config.model_dump(mode="json", by_alias=True, exclude={"metadata"})
        weights = {name: HashedTensor.of(value) for name, value in sae.state_dict().items()}
        return cls({**config, "metadata": needed}, weights)

    @property
    def _architecture(self) -> Architecture:
        known = kept_architectures()
        name = self.config.get("architecture")
        if not isinstance(name, str) or name not in known:
            raise UserError(
                f"Unknown architecture of an autoencoder: {quoted(str(name))}. Use one of {', '.join(known)}."
            )
        return known[name]

    @property
    def checked_config(self) -> SAEConfig:
        """The configuration; raise UserError if it is not one."""
        return validated(self._architecture.config, self.config, "Invalid configuration of an autoencoder")

    @property
    def kind(self) -> type[SAE]:
        """Its class."""
        return self._architecture.sae

    @property
    def read_site(self) -> str:
        """The site that a transcoder reads; "" if it is the site that is reconstructed."""
        if not issubclass(self.kind, Transcoder):
            return ""
        site = self.checked_config.metadata.get("hook_name")
        if not isinstance(site, str):
            raise UserError("A transcoder must say which site it reads, as `hook_name` of its metadata.")
        return str(Site.parse(site))

    @property
    def tensors(self) -> Iterator[HashedTensor]:
        """Yield its weights."""
        yield from self.weights.values()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, with its weights by hash."""
        return {
            "config": self.config,
            "weights": {name: value.to_json() for name, value in self.weights.items()},
        }

    def for_values(self, values: torch.Tensor, step: int) -> SAE:
        """Return the SAE for values of a denoising step, on their device and in their dtype."""
        return _module(self, values.device, values.dtype).at(step)


@lru_cache(maxsize=8)
def _module(sae: HashedSAE, device: torch.device, dtype: torch.dtype) -> SAE:
    """Return an SAE on a device, where it stays for the next calls."""
    weights = {name: value.value.to(device, dtype) for name, value in sae.weights.items()}
    return sae.kind(sae.checked_config, weights).requires_grad_(False)


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
