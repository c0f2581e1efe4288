"""What the numbers of an evaluation rest on, and what makes them hard to believe, in words."""

import xarray as xr
from dash import html
from dash.development.base_component import Component

from dashboards.components.notices import remarks
from dashboards.components.text import with_code
from dashboards.pages.evaluation_view import EVERY, is_published
from dashboards.pages.steering_words import words
from dashboards.tables.benchmark import DIRECTIONS
from dashboards.wording import benchmark_sample, deaf_sentences, distance_sentence, interval


def warnings(result: xr.Dataset, now: dict[str, str]) -> Component | None:
    """An alert on what makes the numbers look too good, and on those that are hidden; None without any."""
    concept = "" if now["concept"] == EVERY else now["concept"]
    told = [
        line
        for line in str(result.attrs.get("warnings", "")).splitlines()
        if not concept or line.startswith(f"{concept}: ")
    ]
    hidden = [] if is_published(result) else deaf_sentences(result, now["scorer"], concept)
    return remarks([*told, *hidden], "Numbers to be careful with", "yellow")


def facts(result: xr.Dataset, now: dict[str, str]) -> Component:
    """What the numbers rest on, in words: the sample, the controls of the judge, and what is at hand."""
    if is_published(result):
        sentence = (
            "The published protocol: means over all clips, without intervals, controls or nulls. Run "
            "`workbench steer evaluate` without `--protocol published` for those."
        )
        return html.Ul([html.Li(with_code(sentence))], className="notes")
    concept = "" if now["concept"] == EVERY else now["concept"]
    sentences = [
        benchmark_sample(result, now["scorer"], now["measure"]),
        distance_sentence(result, now["measure"], concept),
        *_controls_of(result, now),
    ]
    if now["concept"] == EVERY:
        sentences.append(
            f"The curves are those of {result['concept'].values[0]}: choose a concept to see its own."
        )
    notes = html.Ul([html.Li(sentence) for sentence in sentences], className="notes")
    return html.Div([notes, words(result["way"].values.tolist())])


def _controls_of(result: xr.Dataset, now: dict[str, str]) -> list[str]:
    """Sentences on how far the judge tells the real prompts of the chosen concepts apart, in the chosen direction."""
    (sign,) = (sign for sign, name in DIRECTIONS.items() if name == now["direction"])
    one = result.sel(sign=sign, scorer=now["scorer"])
    names = [now["concept"]] if now["concept"] != EVERY else one["concept"].values.tolist()
    ends = ("control", "control_lo", "control_hi")
    differences = {name: {end: float(one[end].sel(concept=name)) for end in ends} for name in names}
    return [
        f"Positive control, {name}: the real prompts' scores differ by {interval(difference, 'control')}."
        for name, difference in differences.items()
    ]
