"""MuQ-MuLan, which embeds music and text in one space (Zhu et al. 2025, arXiv:2501.01108)."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from cache.errors import UserError
from cache.wording import quoted
from workbench.provenance import content_hash, file_hash
from workbench.scorers.clap import TEMPLATE
from workbench.scorers.clip_scorer import ClipScorer, Samples
from workbench.scorers.hub_models import find_model, missing_model, optional_package, without_network

MODEL = "OpenMuQ/MuQ-MuLan-large"
PARTS = "OpenMuQ/MuQ-large-msd-iter", "xlm-roberta-base"
"""Hub ids of the audio and text networks of `MODEL`, which its package loads before it replaces their weights."""


class MuqMulanScorer(ClipScorer):
    """Cosine similarity of clips and texts, by the package muq; the published weights are for non-commercial use.

    A clip is heard in windows of 10 s at 24 kHz, of which the last is filled up from the clip's beginning; the score is
    the mean of the windows' cosines. Every text is embedded alone: in a batch the package's text network hears the
    padding, too.
    """

    name = "muq-mulan"
    min_seconds = 1.0
    rate = 24_000

    def __init__(self, model: str | Path = MODEL, *, template: str = TEMPLATE, device: str = "cpu") -> None:
        """Load the model, a folder or a hub id in the cache; `template` is as in a CLAP scorer."""
        if "{text}" not in template:
            raise UserError(f"The template must contain {{text}}; got {quoted(template)}.")
        network = self._package()
        found = find_model(self.name, model, PARTS)
        self.identity = self.identify(model, template=template)
        self._template = template
        try:
            with without_network():
                self._model = network.from_pretrained(str(found.folder)).eval().to(device)
                keep_hidden_states(self._model.mulan_module.audio.model.model.conformer)
                text = self._model.mulan_module.text
                complete = len(text.tokenizer) >= text.model.config.vocab_size
        except OSError as error:
            raise missing_model(self.name, (str(model), *PARTS)) from error
        if not complete:  # for an empty one, all texts are equal
            raise missing_model(self.name, (str(model), *PARTS))

    @classmethod
    def identify(cls, model: str | Path = MODEL, *, template: str = TEMPLATE) -> str:
        """Return the hash of what determines the scores: weights, settings, template and the package's version."""
        cls._package()
        found = find_model(cls.name, model, PARTS)
        return content_hash([file_hash(found.weights), file_hash(found.config), template, version("muq")])

    @classmethod
    def _package(cls) -> Any:
        with optional_package("muq", cls.name, "muq"):
            from muq import MuQMuLan
        return MuQMuLan

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for an empty text."""
        if not all(text.strip() for text in texts):
            raise UserError(
                f"The scorer {self.name!r} needs a text that is not empty. Describe what should be audible."
            )

    @torch.inference_mode()
    def score_mono(self, samples: Samples, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """Return the similarity with each text."""
        waves = torch.from_numpy(samples)[None].to(self._model.device)
        music = self._model(wavs=waves)
        words = torch.cat([self._model(texts=[self._template.replace("{text}", text)]) for text in texts])
        return self._model.calc_similarity(music, words)[0].double().cpu().numpy()


def keep_hidden_states(conformer: Any) -> None:
    """Let the encoder return the inputs of its layers and its output, as transformers 4 did, for which muq 0.1 is made.

    transformers 5 returns them from whole models only, and looks for the kind of attention in the settings.
    """
    conformer.config._attn_implementation = "eager"
    encode = conformer.forward

    def forward(states: torch.Tensor, output_hidden_states: bool) -> dict[str, Any]:  # noqa: ARG001 - always
        inputs: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, taken: inputs.append(taken[0]))
            for layer in conformer.layers
        ]
        last = encode(states).last_hidden_state
        for hook in hooks:
            hook.remove()
        return {"hidden_states": (*inputs, last), "last_hidden_state": last}

    conformer.forward = forward
