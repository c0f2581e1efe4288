"""The concepts of the published steering artefacts, and what their two signs mean (TADA, arXiv 2602.11910)."""

from dataclasses import dataclass

from cache.errors import UserError


@dataclass(frozen=True)
class Concept:
    """A concept and its two ends: what a positive strength leads to, what a negative one.

    `positive_prompt` and `negative_prompt` are the pair of prompts whose difference is the direction; {p} stands for
    the prompt that both share.
    """

    name: str
    positive: str
    negative: str
    positive_prompt: str
    negative_prompt: str

    @property
    def sentence(self) -> str:
        """Which end is which, in words: the names do not tell (the positive end of rock_genre is jazz)."""
        return f"{self.name}: + is {self.positive}, − is {self.negative}"


CONCEPTS = {
    concept.name: concept
    for concept in (
        Concept("piano", "piano", "no piano", "{p}, with piano", "{p}"),
        Concept("mood", "happy", "sad", "happy song, {p}", "sad song, {p}"),
        Concept("tempo", "fast", "slow", "fast song, {p}", "slow song, {p}"),
        Concept(
            "vocal_gender", "female vocal", "male vocal", "{p}, with female vocal", "{p}, with male vocal"
        ),
        Concept("vocal_style", "rap vocal", "sung vocal", "{p}, with rap vocal", "{p}, with sing vocal"),
        Concept("violin", "violin", "no violin", "{p}, with violin", "{p}"),
        Concept(
            "guitar_electronic",
            "acoustic guitar",
            "electric guitar",
            "{p}, with acoustic guitar",
            "{p}, with electric guitar",
        ),
        Concept("rock_genre", "jazz", "rock", "jazz song, {p}", "rock song, {p}"),
        Concept("electronic_music", "classical", "electronic", "classical song, {p}", "electronic song, {p}"),
    )
}


def find_concept(name: object, where: str) -> Concept:
    """The concept of that name, written with hyphens or underscores; `where` is told when there is none."""
    found = CONCEPTS.get(name.replace("-", "_")) if isinstance(name, str) else None
    if found is None:
        told = f"names the concept {name[:40]!r}" if isinstance(name, str) and name else "names no concept"
        raise UserError(
            f"{where} {told}, of which it is not known what + and − mean: known are {', '.join(CONCEPTS)}."
        )
    return found
