"""CLAP through the laion-clap package, imported only when a scorer is made.

The package has dependencies that scoring does not need. They are replaced by stubs while it is imported and its
network is built: torchvision (for fusion models and training data), three tokenizers downloaded at import, and
RoBERTa's weights downloaded for the network (which the checkpoint replaces).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor

from cache.errors import UserError
from workbench.scorers.clap import ClapScorer
from workbench.scorers.clap_transformers import audio_sizes, text_sizes
from workbench.scorers.librosa_import import import_librosa

_AUDIO_MODELS = {96: "HTSAT-tiny", 128: "HTSAT-base"}  # by the channels of the patch embedding
_IMAGE_TRANSFORMS = (
    "CenterCrop", "Compose", "InterpolationMode", "Normalize", "RandomResizedCrop", "Resize", "ToTensor",
)  # fmt: skip


class LaionClapScorer(ClapScorer):
    """CLAP scores computed by the laion-clap package, without its random cropping."""

    name = "clap-laion"

    def __init__(self, *args: Any, **options: Any) -> None:
        """Arguments as for `ClapScorer`. Raises `UserError` when the package cannot be imported."""
        self._package = import_laion_clap()
        super().__init__(*args, **options)

    def _build(self, state: dict[str, Tensor]) -> None:
        channels = audio_sizes(state)["patch_embeds_hidden_size"]
        if channels not in _AUDIO_MODELS:
            raise UserError(f"The checkpoint's HTSAT has {channels} channels; supported are {_AUDIO_MODELS}.")
        model = _AUDIO_MODELS[channels]
        roberta = transformers.RobertaConfig(**text_sizes(state))
        with (
            _no_tokenizers(),
            _from_pretrained(lambda _: transformers.RobertaModel(roberta), transformers.RobertaModel),
            torch.random.fork_rng(
                devices=[]
            ),  # random initialisation must not advance the caller's generator
        ):
            self._clap = self._package.CLAP_Module(amodel=model, device=str(self._device)).eval()
        try:
            self._clap.model.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"The CLAP checkpoint does not match {model} without fusion.") from error

    def _embed_windows(self, windows: Float[Tensor, "window sample"]) -> Float[Tensor, "window dim"]:
        # As tensors, because the package would quantise arrays a second time.
        return self._clap.get_audio_embedding_from_data(windows, use_tensor=True)

    def _embed_tokens(
        self, ids: Int[Tensor, "text token"], mask: Int[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        tokens = {"input_ids": ids, "attention_mask": mask}
        return self._clap.get_text_embedding([], tokenizer=lambda _: tokens, use_tensor=True)


def import_laion_clap() -> ModuleType:
    """The package, imported without network and without torchvision. Raises `UserError` when it cannot be."""
    import_librosa()  # which the package imports without a lock
    search_path = list(sys.path)
    try:
        with _torchvision_stubs(), _no_tokenizers():
            import laion_clap
    except ImportError as error:
        raise UserError(
            f"The scorer 'clap-laion' needs the package laion-clap, which cannot be imported ({error})."
            " Run `pip install 'audio-diffusion-workbench[clap]'`, or use the scorer 'clap'."
        ) from error
    finally:
        # The package adds its own folder, whose "training" would hide other people's module of that name.
        sys.path[:] = search_path
    return laion_clap


@contextmanager
def _torchvision_stubs() -> Iterator[None]:
    """Provide stub modules for what the package imports from torchvision, if that is not installed."""
    # transformers caches the answer: asked later, it would mistake the stubs for torchvision.
    transformers.utils.is_torchvision_available()
    if find_spec("torchvision") is not None:
        yield
        return
    stubs = {
        "torchvision": _module("torchvision"),
        "torchvision.datasets": _module("torchvision.datasets"),
        "torchvision.ops": _module("torchvision.ops"),
        "torchvision.ops.misc": _module("torchvision.ops.misc", "FrozenBatchNorm2d"),
        "torchvision.transforms": _module("torchvision.transforms", *_IMAGE_TRANSFORMS),
    }
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


def _module(name: str, *contents: str) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(dict.fromkeys(contents))
    return module


def _no_tokenizers() -> AbstractContextManager[None]:
    return _from_pretrained(
        lambda _: None, transformers.BertTokenizer, transformers.RobertaTokenizer, transformers.BartTokenizer
    )


@contextmanager
def _from_pretrained(replacement: Callable[[str], Any], *owners: Any) -> Iterator[None]:
    """Replace the owners' `from_pretrained` (mostly inherited) inside the block."""
    before = {owner: vars(owner).get("from_pretrained") for owner in owners}  # two names may be one class
    for owner in before:
        owner.from_pretrained = staticmethod(replacement)
    try:
        yield
    finally:
        for owner, own in before.items():
            del owner.from_pretrained
            if own is not None:
                owner.from_pretrained = own
