"""The base class of both CLAP scorers: checkpoint, tokenizer and score.

CLAP (Wu et al. 2023, arXiv:2211.06687) embeds audio and text in one space; the score is their cosine.
"""

import logging
import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import check_clips, unscorable
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
# Errors of torch.load for a file that is damaged, not a checkpoint, or contains forbidden objects.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)

_log = logging.getLogger(__name__)


class ClapScorer(ABC):
    """Cosine similarity of clips and texts under a LAION-CLAP checkpoint without fusion.

    Audio is averaged to mono, resampled to 48 kHz, quantised to 16 bits and cut into consecutive windows of
    10 s. A clip's embedding is the mean of its windows' unit embeddings, scaled to unit length. Windows
    are weighted by the seconds of the clip in them: a remainder of milliseconds, padded to 10 s, must not count as
    much as 10 s of music. Every clip passes through the network alone, so that its score does not depend on the other
    clips of the call.
    """

    name: str
    min_seconds = 0.0  # short clips are repeated

    @classmethod
    def identify(
        cls,
        checkpoint: str | Path | None = None,
        *,
        template: str = TEMPLATE,
        tokenizer: str | Path = TOKENIZER,
    ) -> str:
        """Return the hash of what determines the scores: the checkpoint's bytes, the template and the tokenizer."""
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

        `template` is the sentence into which every text is inserted, at "{text}"; the default is the paper's.
        Scores are reproducible on the CPU; a GPU rounds differently (torch lets cuDNN use TF32).
        """
        if "{text}" not in template:
            raise UserError(f"The template must contain {{text}}; got {quoted(template)}.")
        path = find_checkpoint(checkpoint)
        self.identity = self.identify(path, template=template, tokenizer=tokenizer)
        self._template = template
        self._device = torch.device(device)
        self._tokenizer = load_tokenizer(tokenizer)
        with complete(path):
            self._build(load_state_dict(path, self._device))

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise UserError for an empty text."""
        if not all(text.strip() for text in texts):
            raise UserError("A CLAP scorer needs a text that is not empty. Describe what should be audible.")

    def score(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int, texts: Sequence[str]
    ) -> Float[np.ndarray, "clip text"]:
        """Return the cosine similarity of clips of audio, in [-1, 1] at `sample_rate` Hz, with texts.

        A clip that cannot be scored gets NaN and an error in the log. Raises UserError if audio does not have three
        dimensions.
        """
        check_clips(audio)
        clips, embedded_texts = self.embed_audio(audio, sample_rate), self.embed_texts(texts)
        # No matrix product: BLAS rounds differently for different numbers of clips.
        return (clips[:, None] * embedded_texts).sum(axis=-1)

    def embed_audio(
        self, audio: Float[np.ndarray, "clip channel sample"], sample_rate: int
    ) -> Float[np.ndarray, "clip dim"]:
        """Return unit embeddings of clips; NaN (and a logged error) for one that is empty, silent or not finite."""
        embedded = np.full((len(audio), _EMBEDDING_DIM), np.nan)
        for number, clip in enumerate(audio):
            fault = unscorable(clip.mean(axis=0, dtype=np.float64)[None])
            if not fault:
                embedded[number] = self._embed_clip(clip, sample_rate)
            if not np.isfinite(embedded[number]).all():
                _log.error(
                    "%s cannot score clip %d: %s.", self.name, number, fault or "its embedding is not finite"
                )
        return embedded

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        """Return unit embeddings of texts, each inserted into the template and truncated to 77 tokens."""
        return self._embed_sentences([self._template.replace("{text}", text) for text in texts])

    def compare_texts(
        self, captions: Sequence[str], texts: Sequence[str]
    ) -> Float[np.ndarray, "caption text"]:
        """Return the cosine similarity of captions, without the template, with texts, inserted into the template."""
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
    ) -> Float[np.ndarray, " dim"]:
        windows, seconds = cut_windows(quantise(mono_48k(clip, sample_rate)))
        embedded = _unit(self._embed_windows(torch.from_numpy(windows).to(self._device)))
        mean = np.average(embedded, axis=0, weights=seconds)
        return mean / np.linalg.norm(mean)

    @abstractmethod
    def _build(self, state: dict[str, torch.Tensor]) -> None:
        """Build the network from the checkpoint's tensors."""

    @abstractmethod
    def _embed_windows(
        self, windows: Float[torch.Tensor, "window sample"]
    ) -> Float[torch.Tensor, "window dim"]: ...

    @abstractmethod
    def _embed_tokens(
        self, ids: Int[torch.Tensor, "text token"], mask: Int[torch.Tensor, "text token"]
    ) -> Float[torch.Tensor, "text dim"]: ...


def _unit(rows: Float[torch.Tensor, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Scale rows to unit length in float64, so that cosines are as precise as the network."""
    return torch.nn.functional.normalize(rows.double(), dim=-1).cpu().numpy()


def find_checkpoint(checkpoint: str | Path | None = None) -> Path:
    """Find the checkpoint: `checkpoint`, else $WORKBENCH_CLAP_CHECKPOINT, else in the hub cache, without downloading.

    Raises:
        UserError: if the file does not exist, with the command that downloads it.
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
    """Load the tensors of a LAION checkpoint, under their names in the laion-clap package.

    The file is an untrusted pickle: only tensors, plain containers and the NumPy numbers of its training log are
    loaded, and no code is run.

    Raises:
        UserError: if it contains anything else, or is not such a checkpoint.
    """
    try:
        with torch.serialization.safe_globals(_log_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is damaged or contains more than plain tensors, and was not loaded."
            f" Download {CHECKPOINT_NAME} from {HUB_REPOSITORY} again."
        ) from error
    named = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise UserError(f"{path} is not a LAION-CLAP checkpoint: it has no 'state_dict'.")
    state = {key.removeprefix("module."): tensor.to(device) for key, tensor in named.items()}
    # Present or not, depending on the version of transformers used in training; current networks do not have it.
    state.pop("text_branch.embeddings.position_ids", None)
    return state


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Raise UserError if a network that is built inside the block misses a tensor of the checkpoint."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path} is not a LAION-CLAP checkpoint with HTSAT: {error} is missing.") from error


def _log_types() -> list[Any]:
    # Taken from a number because NumPy 2 moved the function; checkpoints have its old name.
    make_number = np.float64(0.0).__reduce__()[0]
    return [(make_number, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]


def load_tokenizer(source: str | Path) -> Any:
    """Load RoBERTa's tokenizer from a folder, the local cache or the hub.

    Without a network transformers silently returns an empty tokenizer, for which all texts are equal.

    Raises:
        UserError: if the tokenizer has fewer than 50,000 entries.
    """
    from transformers import RobertaTokenizer  # slow to import, and not needed if the checkpoint is missing

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
        f"The tokenizer {str(source)!r} must have at least {_FEWEST_ENTRIES} entries; it has {entries}, so"
        f" files are missing. Run `hf download {TOKENIZER} vocab.json merges.txt tokenizer.json"
        " tokenizer_config.json`, or give a folder with them."
    )
