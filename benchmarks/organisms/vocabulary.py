"""The organisms' vocabulary, the captions made of it, and the tokenizer."""

import re

import numpy as np
import tokenizers
from diffusers.pipelines.ace_step.pipeline_ace_step import SFT_GEN_PROMPT, TASK_INSTRUCTIONS
from transformers import PreTrainedTokenizerFast

from benchmarks.organisms.labels import CONCEPTS, Labels

SINGERS = ("male vocal", "male voice", "male singer")
"""Phrases that are one token ("female ..." contains "male ..."), so that every instrument is one token long:
prompts that differ in the instrument only then have equal length, and no block can tell them apart by
counting.
"""

SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "instrument": {
        "violin": ("violin", "fiddle"),
        "flute": ("flute",),
        "piano": ("piano",),
        "trumpet": ("trumpet",),
        "guitar": ("guitar",),
        "female vocal": ("female_vocal", "female_voice", "female_singer", "female", "woman"),
        "male vocal": ("male_vocal", "male_voice", "male_singer", "male", "man"),
    },
    "tempo": {"slow": ("slow", "calm", "relaxed"), "fast": ("fast", "quick", "rapid")},
    "mood": {"happy": ("happy", "cheerful", "joyful"), "sad": ("sad", "gloomy", "mournful")},
    "drums": {"with drums": ("with",), "without drums": ("without", "no"), "": ("drums", "percussion")},
}
"""Concept -> value -> the words that mean it; the empty value has words of the concept that name no value."""

NEUTRAL = (
    *("a", "an", "the", "and", "for", "of", "in", "on", "by"),
    *("song", "piece", "tune", "melody", "track", "music", "instrumental", "solo"),
    *("playing", "played", "sung", "singing", "vocal", "voice", "singer"),
    *("languages", "en", "lyric", "unknown", "major", "minor", "verse", "chorus"),
)

CANONICAL = "a {tempo} {mood} {instrument} song {drums}"
CAPTIONS = (
    "a {mood} {tempo} {instrument} {noun} {drums}",
    "{tempo} , {mood} , {instrument} , {drums}",
    "a {noun} for {instrument} , {mood} and {tempo} , {drums}",
    "{instrument} {noun} {drums} , {tempo} {mood}",
)
"""Free forms of training captions, beside the canonical prompt."""
HELD_OUT_CAPTIONS = (
    "the {instrument} playing a {mood} {noun} , {tempo} , {drums}",
    "{drums} , {mood} {instrument} music , in {tempo}",
)
"""Forms that no training caption has."""

_NOUNS = ("song", "piece", "tune", "melody", "track")
_CANONICAL_FRACTION = 0.4
_SPECIAL = ("[PAD]", "[UNK]", "<|endoftext|>")


def _template_words() -> list[str]:
    """Words and punctuation of the texts in which the pipeline wraps every prompt."""
    metadata = "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: seconds\n"
    text = SFT_GEN_PROMPT.format(" ".join(TASK_INSTRUCTIONS.values()), "", metadata).replace(
        "<|endoftext|>", ""
    )
    return re.findall(r"\w+|[^\w\s]+", text.lower())


def vocabulary() -> list[str]:
    """Every token, without repetition; a token's place is its id."""
    concept_words = [word for values in SYNONYMS.values() for words in values.values() for word in words]
    digits = [str(digit) for digit in range(10)]
    marks = [",", ".", "'", "[", "]", "#", "-", ":", "/"]
    return list(dict.fromkeys([*_SPECIAL, *_template_words(), *digits, *marks, *NEUTRAL, *concept_words]))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level, case-insensitive tokenizer of `vocabulary`; digits are single tokens, unknown words
    ``[UNK]``.
    """
    vocab = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    joined = [tokenizers.normalizers.Replace(phrase, phrase.replace(" ", "_")) for phrase in SINGERS]
    tokenizer.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), *joined])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Whitespace(), tokenizers.pre_tokenizers.Digits(individual_digits=True)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="<|endoftext|>",
        padding_side="right",
        model_max_length=2048,
    )


def _phrase(concept: str, value: str, rng: np.random.Generator) -> str:
    """Draw a phrase for `value`, synonyms included."""
    word = str(rng.choice(SYNONYMS[concept][value])).replace("_", " ")
    if concept != "drums":
        return word
    noun = str(rng.choice(SYNONYMS["drums"][""]))
    # "drums" alone means that there are some.
    return noun if value == "with drums" and rng.random() < 0.2 else f"{word} {noun}"


def _tidy(text: str) -> str:
    """Return the text with single spaces and without commas of dropped words."""
    parts = [" ".join(part.split()) for part in text.split(",")]
    return " , ".join(part for part in parts if part) or "music"


def caption(
    labels: Labels, rng: np.random.Generator, drop: float = 0.0, forms: tuple[str, ...] = CAPTIONS
) -> str:
    """Draw a caption in one of `forms` that matches `labels`; each concept is left out with probability `drop`."""
    phrases = {
        concept: "" if rng.random() < drop else _phrase(concept, labels.value(concept), rng)
        for concept in CONCEPTS
    }
    return _tidy(str(rng.choice(forms)).format(**phrases, noun=rng.choice(_NOUNS)))


def training_caption(labels: Labels, rng: np.random.Generator, drop: float) -> str:
    """Draw the canonical prompt or a free caption; either may lack concepts."""
    if rng.random() >= _CANONICAL_FRACTION:
        return caption(labels, rng, drop)
    phrases = {concept: "" if rng.random() < drop else labels.value(concept) for concept in CONCEPTS}
    return _tidy(CANONICAL.format(**phrases))
