"""Find the tokens that a model reads from a prompt; prompts with the same tokens are the same prompt to it."""

from collections.abc import Iterable
from functools import cache, partial

from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Encode
from workbench.provenance import content_hash

SAME = (
    "the model reads both as the same tokens: they differ only beyond the tokens that it reads, or in words that it "
    "does not know"
)


SHOWN = 8  # unknown words that are listed


def prompt_key(model: AudioDiffusionModel, prompt: str, lyrics: str, settings: GenerationSettings) -> str:
    """Return the hash of the tokens that the model's encoders read from a prompt with these lyrics."""
    return content_hash(model.encoded_tokens(Clip(prompt, 0, lyrics), settings))


def encoder(model: AudioDiffusionModel, lyrics: str, settings: GenerationSettings) -> Encode:
    """Return a cached `prompt_key` of prompts with these lyrics."""
    return cache(partial(prompt_key, model, lyrics=lyrics, settings=settings))


def unknown_words(model: AudioDiffusionModel, prompts: Iterable[str]) -> str:
    """Return a sentence on the words of some prompts that are not in the model's vocabulary, or ""."""
    words = list(dict.fromkeys(word for prompt in prompts for word in model.unknown_words(prompt)))
    if not words:
        return ""
    shown = ", ".join(f"{quoted(word)}" for word in words[:SHOWN]) + (" …" if len(words) > SHOWN else "")
    return f"Words that are not in the vocabulary of {model.name}: {shown}."


def check_prompts(name: str, prompts: Iterable[str], encode: Encode) -> None:
    """Raise UserError for two prompts that differ only beyond the tokens that the model reads.

    Their clips would be of the same prompt but have different labels. (For unknown words see `unknown_words`.) `name`
    is the model's name, and `encode` returns the key of a prompt.
    """
    first: dict[str, str] = {}
    for prompt in prompts:
        key = encode(prompt)
        other = first.setdefault(key, prompt)
        if other != prompt and encode(f"{prompt} and more") == key:
            raise UserError(
                f"{quoted(other)} and {quoted(prompt)} differ only beyond the tokens that {name} reads from a prompt. "
                "Shorten them, or remove one."
            )
