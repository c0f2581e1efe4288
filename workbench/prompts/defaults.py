"""What functions on prompts and their commands both say: defaults and choices. Imports nothing slow."""

from typing import Literal

PROMPT_SET = "organism"
FEATURE_SET = "music"
CAPTION_COLUMN = "caption"
Alignment = Literal["words", "tokens", "any"]
"""How alike in length the two texts of a pair must be: as many words, as many words and tokens, or any."""
