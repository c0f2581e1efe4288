"""Defaults and choices shared by functions on prompts and their commands. Imports nothing slow."""

from typing import Literal

PROMPT_SET = "organism"
ATTRIBUTE_SET = "music"
CAPTION_COLUMN = "caption"
Alignment = Literal["words", "tokens", "any"]
"""Required agreement of a pair's two texts: equal numbers of words, of words and tokens, or none."""
