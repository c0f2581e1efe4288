"""What the words in the names of trials and of ways of steering mean, each with its explanation on hover and focus."""

from collections.abc import Iterable

from dash import html
from dash.development.base_component import Component

from dashboards.components.text import tip
from dashboards.result_commands import TRIAL

TRIALS = {
    "selection": "The trial that chooses the strengths: its prompts are others than those on which an evaluation "
    "reports, so that no method looks better than it is by luck.",
    "report": "The trial that an evaluation reports: each method at the strength that other prompts and other judges "
    "chose.",
}
PLACES = {
    "localised": "Steers at the localised blocks: those that were given, or those with an impact of at least .1 on the "
    "concept in the study's map of blocks.",
    "all": "Steers at all blocks.",
    "others": "Steers at all blocks but the localised ones: a control, which never limits the distance and has no "
    "rank.",
}


def words(ways: Iterable[str], trial: str = "") -> Component | None:
    """A line that explains the words in the name of a trial and in those of ways of steering; None without any."""
    names = list(ways)
    found = [word for word in TRIALS if trial.startswith(TRIAL) and trial.endswith(f"-{word}")]
    found += [word for word in PLACES if any(name.endswith(f"({word})") for name in names)]
    if not found:
        return None
    return html.Div(["In the names: ", *_listed([_explained(word) for word in found])], className="words")


def _explained(word: str) -> Component:
    meaning = (TRIALS | PLACES)[word]
    return html.Span(
        word,
        className="word",
        tabIndex=0,
        role="note",
        **{"aria-label": f"{word}: {meaning}"},
        **tip(meaning),
    )


def _listed(parts: list[Component]) -> list[Component | str]:
    """The parts with commas between them."""
    return [each for part in parts for each in (part, ", ")][:-1]
