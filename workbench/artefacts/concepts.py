"""The concepts of the published steering artefacts, and what + and − mean for each (TADA, arXiv 2602.11910)."""

from dataclasses import dataclass

from cache.errors import UserError


@dataclass(frozen=True)
class Concept:
    """A concept and its two poles: what positive and negative strengths steer towards.

    The direction is the difference between `positive_prompt` and `negative_prompt`; {p} stands for the prompt that both
    share.
    """

    name: str
    positive: str
    negative: str
    positive_prompt: str
    negative_prompt: str

    @property
    def polarity(self) -> str:
        """Meaning of + and −; the concept's name alone can mislead (+ of rock_genre is jazz)."""
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
    """Return the concept called `name` (hyphens or underscores); `where` says in errors what gave the name.

    Raises:
        UserError: if the concept is unknown, or `name` is not text.
    """
    concept = CONCEPTS.get(name.replace("-", "_")) if isinstance(name, str) else None
    if concept is None:
        problem = f"unknown concept {name[:40]!r}" if isinstance(name, str) and name else "no concept given"
        raise UserError(f"{where}: {problem}. Concepts: {', '.join(CONCEPTS)}.")
    return concept
