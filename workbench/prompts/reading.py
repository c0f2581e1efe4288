"""What a model reads of a prompt: prompts of the same tokens are one prompt to it."""

from collections.abc import Callable, Iterable
from functools import cache, partial

from cache.errors import UserError
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import content_hash

SAME = (
    "the model reads both as the same tokens: they differ only beyond the tokens that it reads, or in words that it "
    "does not know"
)

Encode = Callable[[str], str]
"""Gives what a model reads of a prompt: the same for prompts that are the same tokens to it."""

SHOWN = 8  # unknown words that are named


def prompt_key(model: AudioDiffusionModel, prompt: str, lyrics: str, settings: GenerationSettings) -> str:
    """Hash of the tokens that the model's encoders read of a prompt with these lyrics."""
    return content_hash(model.encoded_tokens(Clip(prompt, 0, lyrics), settings))


def encoder(model: AudioDiffusionModel, lyrics: str, settings: GenerationSettings) -> Encode:
    """What the model reads of prompts with these lyrics (see `prompt_key`), each worked out once."""
    return cache(partial(prompt_key, model, lyrics=lyrics, settings=settings))


def unknown_words(model: AudioDiffusionModel, prompts: Iterable[str]) -> str:
    """One sentence on the words of some prompts that the model does not know; "" where it knows all."""
    words = list(dict.fromkeys(word for prompt in prompts for word in model.unknown_words(prompt)))
    if not words:
        return ""
    shown = ", ".join(f"'{word}'" for word in words[:SHOWN]) + (" …" if len(words) > SHOWN else "")
    subject = "this word means" if len(words) == 1 else "these words mean"
    return f"{model.name} does not know {shown}: {subject} nothing to it."


def check_prompts(name: str, prompts: Iterable[str], encode: Encode) -> None:
    """Raise UserError for two prompts that differ only beyond what the model reads of them.

    Their labels would differ, and their clips would be of one prompt. (What it does not know of the words that it reads
    is another matter: see `unknown_words`.) `name` is the model's, and `encode` gives what it reads of a prompt.
    """
    first: dict[str, str] = {}
    for prompt in prompts:
        key = encode(prompt)
        other = first.setdefault(key, prompt)
        if other != prompt and encode(f"{prompt} and more") == key:
            raise UserError(
                f"'{other}' and '{prompt}' differ only beyond the tokens that {name} reads of a prompt: shorten "
                "them, or leave one out."
            )
