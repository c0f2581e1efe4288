"""What both CLAP scorers share: the checkpoint, the tokenizer and the score.

CLAP (Wu et al. 2023, arXiv:2211.06687) embeds audio and text in one space; the score is their cosine.
"""

import logging
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from cache.errors import UserError
from workbench.audio import unhearable
from workbench.provenance import content_hash, file_hash
from workbench.scorers.windows import cut_windows, mono_48k, quantise

HUB_REPOSITORY = "lukewys/laion_clap"
CHECKPOINT_NAME = "music_audioset_epoch_15_esc_90.14.pt"
CHECKPOINT_VARIABLE = "WORKBENCH_CLAP_CHECKPOINT"
TEMPLATE = "This is a music of {text}"
TOKENIZER = "roberta-base"

_EMBEDDING_DIM = 512
_TEXT_TOKENS = 77
_FEWEST_ENTRIES = 50_000
# What torch.load raises for a file that is damaged, no checkpoint at all, or holds objects it must not make.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)

_log = logging.getLogger(__name__)


class ClapScorer(ABC):
    """Cosine similarity of clips and texts under a LAION-CLAP checkpoint without fusion.

    Audio is averaged to mono, resampled to 48 kHz, quantised to 16 bits and cut into consecutive windows of
    10 s. A clip's embedding is the mean of its windows' unit embeddings, scaled to unit length. Each window
    counts by the seconds of the clip in it: a rest of milliseconds, padded to 10 s, must not count as much as
    10 s of music. Every clip goes through the network by itself, so that its score does not depend on the
    other clips of the call.
    """

    name: str

    @classmethod
    def identify(
        cls,
        checkpoint: str | Path | None = None,
        *,
        template: str = TEMPLATE,
        tokenizer: str | Path = TOKENIZER,
    ) -> str:
        """Hash of what decides the scores: the checkpoint's bytes, the template, and what the tokenizer does."""
        weights, words = file_hash(find_checkpoint(checkpoint)), load_tokenizer(tokenizer)
        return content_hash([weights, template, words.backend_tokenizer.to_str()])

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        template: str = TEMPLATE,
        tokenizer: str | Path = TOKENIZER,
        device: str = "cpu",
    ) -> None:
        """Load the checkpoint (see `find_checkpoint`) and RoBERTa's tokenizer (a hub id or a folder).

        `template` is the sentence that every text is put into, at "{text}"; the default is the paper's.
        Scores are reproducible on the CPU; a GPU rounds differently (torch lets cuDNN use TF32).
        """
        if "{text}" not in template:
            raise UserError(f"The template {template!r} has no place for the text: write {{text}} there.")
        path = find_checkpoint(checkpoint)
        self.identity = self.identify(path, template=template, tokenizer=tokenizer)
        self._template = template
        self._device = torch.device(device)
        self._tokenizer = load_tokenizer(tokenizer)
        try:
            self._build(load_state_dict(path, self._device))
        except KeyError as error:
            raise UserError(f"{path} is no LAION-CLAP checkpoint with HTSAT: {error} is missing.") from error

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for a text without a word."""
        if not all(text.strip() for text in texts):
            raise UserError(
                "A CLAP scorer cannot compare audio with an empty text: name what is to be heard."
            )

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Cosine similarity of clips of audio in [-1, 1] at `sample_rate` Hz with texts.

        A clip that cannot be scored gets NaN and an error in the log.
        """
        clips, embedded_texts = self.embed_audio(audio, sample_rate), self.embed_texts(texts)
        # No matrix product: BLAS rounds differently for different numbers of clips.
        return (clips[:, None] * embedded_texts).sum(axis=-1)

    def embed_audio(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int
    ) -> Float[np.ndarray, "clip dim"]:
        """Unit embeddings of clips; NaN (and an error in the log) for one that is empty, silent or not finite."""
        embedded = np.full((len(audio), _EMBEDDING_DIM), np.nan)
        for number, clip in enumerate(audio):
            fault = unhearable(clip)
            if not fault:
                embedded[number] = self._embed_clip(clip, sample_rate)
            if not np.isfinite(embedded[number]).all():
                _log.error(
                    "%s cannot score clip %d: %s.", self.name, number, fault or "its embedding is not finite"
                )
        return embedded

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        """Unit embeddings of texts, each put into the template and cut at 77 tokens."""
        return self._embed_sentences([self._template.replace("{text}", text) for text in texts])

    def compare_texts(
        self, captions: Sequence[str], texts: Sequence[str]
    ) -> Float[np.ndarray, "caption text"]:
        """Cosine similarity of captions, embedded as they are, with texts, each put into the template."""
        # No matrix product, as in `score`.
        return (self._embed_sentences(captions)[:, None] * self.embed_texts(texts)).sum(axis=-1)

    @torch.inference_mode()
    def _embed_sentences(self, sentences: Sequence[str]) -> Float[np.ndarray, "sentence dim"]:
        tokens = self._tokenizer(
            list(sentences),
            padding="max_length",
            truncation=True,
            max_length=_TEXT_TOKENS,
            return_tensors="pt",
        ).to(self._device)
        return _unit(self._embed_tokens(tokens["input_ids"], tokens["attention_mask"]))

    @torch.inference_mode()
    def _embed_clip(
        self, clip: Float[np.ndarray, "channel sample"], sample_rate: int
    ) -> Float[np.ndarray, "dim"]:
        windows, seconds = cut_windows(quantise(mono_48k(clip, sample_rate)))
        embedded = _unit(self._embed_windows(torch.from_numpy(windows).to(self._device)))
        mean = np.average(embedded, axis=0, weights=seconds)
        return mean / np.linalg.norm(mean)

    @abstractmethod
    def _build(self, state: dict[str, torch.Tensor]) -> None:
        """Make the network of the checkpoint's tensors."""

    @abstractmethod
    def _embed_windows(
        self, windows: Float[torch.Tensor, "window sample"]
    ) -> Float[torch.Tensor, "window dim"]: ...

    @abstractmethod
    def _embed_tokens(
        self, ids: Int[torch.Tensor, "text token"], mask: Int[torch.Tensor, "text token"]
    ) -> Float[torch.Tensor, "text dim"]: ...


def _unit(rows: Float[torch.Tensor, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Rows scaled to unit length in float64, so that a cosine is as precise as the network."""
    return torch.nn.functional.normalize(rows.double(), dim=-1).cpu().numpy()


def find_checkpoint(checkpoint: str | Path | None = None) -> Path:
    """Where the checkpoint is: `checkpoint`, else $WORKBENCH_CLAP_CHECKPOINT, else in Hugging Face's cache.

    Nothing is downloaded. Raises `UserError` with the command to run when there is no such file.
    """
    named = checkpoint or os.environ.get(CHECKPOINT_VARIABLE)
    path = Path(named) if named else _cached_checkpoint()
    if path is not None and path.is_file():
        return path
    folder = path.parent if path is not None else Path("checkpoints")
    raise UserError(
        f"There is no CLAP checkpoint at {path or 'the Hugging Face cache'}: run"
        f" `hf download {HUB_REPOSITORY} {CHECKPOINT_NAME} --local-dir {folder}`"
        f" and set {CHECKPOINT_VARIABLE}={folder / CHECKPOINT_NAME}."
    )


def _cached_checkpoint() -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # only needed when no path is named

    cached = try_to_load_from_cache(HUB_REPOSITORY, CHECKPOINT_NAME)
    return Path(cached) if isinstance(cached, str) else None


def load_state_dict(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors of a LAION checkpoint, under the names that the laion-clap package gives them.

    The file is other people's pickle: only tensors, plain containers and the NumPy numbers of the training's
    log are made from it, and nothing in it is executed. Raises `UserError` for anything else.
    """
    try:
        with torch.serialization.safe_globals(_log_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is damaged or holds more than plain tensors, and is not read:"
            f" fetch {CHECKPOINT_NAME} from {HUB_REPOSITORY} again."
        ) from error
    named = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise UserError(f"{path} is no LAION-CLAP checkpoint: it has no 'state_dict'.")
    state = {key.removeprefix("module."): tensor.to(device) for key, tensor in named.items()}
    # There or not, depending on the transformers of the training; today's networks do not store it.
    state.pop("text_branch.embeddings.position_ids", None)
    return state


def _log_types() -> list[Any]:
    # The function is taken from a number, because NumPy 2 moved it; checkpoints name the old place.
    make_number = np.float64(0.0).__reduce__()[0]
    return [(make_number, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]


def load_tokenizer(source: str | Path) -> Any:
    """RoBERTa's tokenizer from a folder, the local cache or the hub.

    Without a network transformers gives an empty tokenizer and no error, and to that all texts are alike: one
    with fewer than 50,000 entries raises `UserError`.
    """
    from transformers import RobertaTokenizer  # takes seconds, which a missing checkpoint should not cost

    entries = 0
    # The cache first: with no network the hub is tried for minutes.
    for local_files_only in (True, False):
        try:
            tokenizer = RobertaTokenizer.from_pretrained(str(source), local_files_only=local_files_only)
        except OSError:
            continue
        entries = len(tokenizer)
        if entries >= _FEWEST_ENTRIES:
            return tokenizer
    raise UserError(
        f"The tokenizer {str(source)!r} has {entries} entries instead of {_FEWEST_ENTRIES} or more, so its"
        f" files are missing: run `hf download {TOKENIZER} vocab.json merges.txt tokenizer.json"
        " tokenizer_config.json`, or name a folder that holds them."
    )
