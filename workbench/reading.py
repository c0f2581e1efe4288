"""What a model reads of a prompt: prompts of the same tokens are one prompt to it."""

from collections.abc import Iterable

from workbench.models.protocol import AudioDiffusionModel, Clip, GenerationSettings
from workbench.provenance import content_hash

SAME = (
    "the model reads both as the same tokens: they differ only beyond the tokens that it reads, or in words that it "
    "does not know"
)

SHOWN = 8  # unknown words that are named


def prompt_key(model: AudioDiffusionModel, prompt: str, lyrics: str, settings: GenerationSettings) -> str:
    """Hash of the tokens that the model's encoders read of a prompt with these lyrics."""
    return content_hash(model.encoded_tokens(Clip(prompt, 0, lyrics), settings))


def unknown_words(model: AudioDiffusionModel, prompts: Iterable[str]) -> str:
    """One sentence on the words of some prompts that the model does not know; "" where it knows all."""
    words = list(dict.fromkeys(word for prompt in prompts for word in model.unknown_words(prompt)))
    if not words:
        return ""
    shown = ", ".join(f"'{word}'" for word in words[:SHOWN]) + (" …" if len(words) > SHOWN else "")
    subject = "this word means" if len(words) == 1 else "these words mean"
    return f"{model.name} does not know {shown}: {subject} nothing to it."
