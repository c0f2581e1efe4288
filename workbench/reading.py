"""What a model reads of a prompt: prompts of the same tokens are one prompt to it."""

from workbench.models.protocol import AudioDiffusionModel, Clip, GenerationSettings
from workbench.provenance import content_hash

SAME = (
    "the model reads both as the same tokens: they differ only beyond the tokens that it reads, or in words that it "
    "does not know"
)


def prompt_key(model: AudioDiffusionModel, prompt: str, lyrics: str, settings: GenerationSettings) -> str:
    """Hash of the tokens that the model's encoders read of a prompt with these lyrics."""
    return content_hash(model.encoded_tokens(Clip(prompt, 0, lyrics), settings))
