"""The table of what judges hear in the clips of the lab."""

import dash_mantine_components as dmc
from dash.development.base_component import Component

from analyses.lab.scores import DISTANCE, Score, Scores
from dashboards.components.text import with_code
from dashboards.numbers import fixed
from dashboards.pages.lab_names import UNEDITED
from workbench.scorers.descriptors import four_digits

NO_EDITS = "No edit is on: these are the scores of the unedited clip."


def scores_table(scores: Scores, is_edited: bool) -> list[Component]:
    """What judges hear in both clips and their distance, or in the only one."""
    heads = ["judge", "concept", "value", *(("unedited", "edited", "change") if is_edited else (UNEDITED,))]
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(name) for name in heads]))
    rows = [dmc.TableTr([dmc.TableTd(text) for text in _row(score)[: len(heads)]]) for score in scores.scores]
    table = dmc.Table([head, dmc.TableTbody(rows)], fz="xs", verticalSpacing=2, className="number")
    apart = "undefined" if scores.distance is None else fixed(scores.distance, 2)
    said = f"Distance of the two clips ({DISTANCE}): {apart}" if is_edited else NO_EDITS
    return [
        dmc.Text(said, size="sm", mb="xs", id="lab-distance"),
        dmc.TableScrollContainer(table, minWidth=480 if is_edited else 320),
        *(dmc.Text(with_code(note), size="xs", c="dimmed") for note in scores.notes),
    ]


def _row(score: Score) -> list[str]:
    reading = score.reading
    show = _number if reading.judge == "descriptors" else _share
    numbers = ["–" if one is None else show(one) for one in (score.unedited, score.edited)]
    return [
        reading.judge,
        reading.concept.replace("_", " "),
        reading.value,
        *numbers,
        "–" if score.change is None else _signed_text(score.change, show(score.change)),
    ]


def _signed_text(change: float, text: str) -> str:
    """A formatted change with its sign, unless it is rounded to 0."""
    return f"+{text}" if change > 0 and any(digit in text for digit in "123456789") else text


def _number(value: float) -> str:
    return four_digits(value)


def _share(value: float) -> str:
    return fixed(value, 3)
