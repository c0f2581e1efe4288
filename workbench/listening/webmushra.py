"""Configurations of webMUSHRA (https://github.com/audiolabs/webMUSHRA): its pages as items, and items as its pages.

Pages of the types mushra, paired_comparison and likert_single_stimulus are read, of one type in a configuration. Keys
that webMUSHRA ignores are written beside its own, so that nothing is lost: `item`, `questions`, which `text` completes,
`referenceCondition`, and the `reference` of a likert_single_stimulus page, which has the original as a player in its
content.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cache.errors import UserError
from workbench.files import slug
from workbench.listening.config import ListeningConfig, Trial
from workbench.listening.forms import NO_DIFFERENCE, SCALE
from workbench.listening.making import ANCHOR
from workbench.listening.material import Item, Material, Recording
from workbench.listening.request import LONGEST_TEXT, TEXT, Design, ListeningRequest
from workbench.text_files import read_document
from workbench.validation import name_problem, validated

PAGES: dict[str, Design] = {
    "mushra": "mushra",
    "paired_comparison": "pairs",
    "likert_single_stimulus": "ratings",
}
REFERENCE = "reference"
ANCHOR_35 = "anchor35"
"""The name of the low anchor in webMUSHRA's results."""
_TRUE = "true"
_TAG = re.compile(r"<[^>]{0,1000}>")


@dataclass(frozen=True)
class Page:
    """A page of a configuration: its id, item, stimuli by name, reference, questions, and the values of its scales."""

    id: str
    item: str
    text: str
    stimuli: Mapping[str, str]
    reference: str
    reference_condition: str
    questions: tuple[str, ...]
    scales: tuple[tuple[str, ...], ...]
    makes_anchor: bool
    allows_ties: bool


@dataclass(frozen=True)
class Imported:
    """A configuration: its design, title and pages."""

    design: Design
    title: str
    pages: tuple[Page, ...]


def read_webmushra(path: Path) -> Imported:
    """Read a configuration.

    Raises:
        UserError: if the file cannot be read, or has pages that cannot be served here.
    """
    whole = read_document(path, str(path), allow_empty=True)
    if not isinstance(whole, dict) or not isinstance(whole.get("pages"), list):
        raise UserError(f"{path} is not a configuration of webMUSHRA: it has no list of pages.")
    found = [page for page in _flat(whole["pages"]) if page.get("type") in PAGES]
    types = list(dict.fromkeys(str(page["type"]) for page in found))
    if len(types) != 1:
        raise UserError(
            f"{path} must have pages of one of the types {', '.join(PAGES)}, not "
            f"{' and '.join(types) or 'none of them'}."
        )
    pages = tuple(_page(path, page, PAGES[types[0]]) for page in found)
    return Imported(PAGES[types[0]], _text(whole.get("testname")) or path.stem, pages)


def imported_material(path: Path, audio: Path, imported: Imported) -> tuple[Material, ListeningRequest]:
    """Return the clips and the request of a configuration, whose audio files are relative to the folder `audio`."""
    items: dict[str, Item] = {}
    for page in imported.pages:
        files = dict(page.stimuli)
        if imported.design == "mushra":
            files.pop(ANCHOR_35, None)  # it is made here, too
        clips = {name: Recording(audio / file) for name, file in files.items()}
        reference = Recording(audio / page.reference) if page.reference else None
        pairs: tuple[tuple[str, str], ...] = ()
        if imported.design == "pairs" and reference is not None:
            pairs = tuple((page.reference_condition, name) for name in clips)
            clips, reference = {page.reference_condition: reference, **clips}, None
        before = items.get(page.item, Item(page.item, page.text, {}))
        items[page.item] = Item(
            page.item, page.text, {**before.clips, **clips}, reference, before.pairs + pairs
        )
    every = tuple(items.values())
    asked = {
        "design": imported.design,
        "questions": imported.pages[0].questions,
        "title": imported.title,
        "items": len(every),
        "checks": 0,
        "any_device": True,
        "forced": not all(page.allows_ties for page in imported.pages),
    }
    return Material(every, every[0], {"webmushra": path.name}), validated(ListeningRequest, asked, str(path))


def write_webmushra(config: ListeningConfig, name: str) -> str:
    """Return the configuration of a listening study; its audio is in `configs/resources/NAME/` of webMUSHRA.

    Attention checks and headphone tests are left out: webMUSHRA has none.

    Raises:
        UserError: if a condition of MUSHRA has a name that webMUSHRA gives to its hidden reference or its anchor.
    """
    if config.design == "mushra" and (
        taken := [one for one in config.conditions if one in (REFERENCE, ANCHOR_35)]
    ):
        raise UserError(
            f"webMUSHRA gives the name '{taken[0]}' itself. Make the study with another name of the condition."
        )
    trials = [trial for trial in config.trials if trial.kind == "trial"]
    pages: list[Any] = [
        {
            "type": "consent",
            "id": "consent",
            "name": config.title,
            "mustConsent": True,
            "content": "".join(f"<p>{html.escape(line)}</p>" for line in config.consent.split("\n")),
        },
        ["random", *(_written_page(config, name, trial) for trial in trials)],
        {
            "type": "finish",
            "name": "Thank you",
            "content": "All your answers are stored.",
            "showResults": False,
            "writeResults": True,
        },
    ]
    settings = {
        "testname": config.title,
        "testId": name,
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": False,
        "remoteService": "service/write.php",
    }
    return _yaml(settings, pages)


def _yaml(settings: Mapping[str, Any], pages: Sequence[Any]) -> str:
    """Return a configuration with a line of JSON for each page.

    webMUSHRA's reader of YAML understands neither a list that begins in the line of the one around it, nor all of what
    PyYAML writes for long texts.
    """
    lines = [f"{name}: {_json(value)}" for name, value in settings.items()]
    lines.append("pages:")
    for page in pages:
        if isinstance(page, list):
            lines += ["  -", *(f"    - {_json(one)}" for one in page)]
        else:
            lines.append(f"  - {_json(page)}")
    return "\n".join([*lines, ""])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def page_id(config: ListeningConfig, trial: Trial) -> str:
    """Return the id of a trial's page, from which its results are known."""
    return f"{slug(trial.item)}-{config.items.index(trial.item)}-{trial.unit}"


def _written_page(config: ListeningConfig, name: str, trial: Trial) -> dict[str, Any]:
    known = config.by_token
    files = {token: f"configs/resources/{name}/{token}.wav" for token in known}
    questions = [question.replace(TEXT, trial.text) for question in config.questions]
    page: dict[str, Any] = {
        "id": page_id(config, trial),
        "name": config.title,
        "content": "<br>".join(html.escape(question) for question in questions),
        "item": trial.item,
        "questions": list(config.questions),
        "text": trial.text,
        "showWaveform": False,
        "enableLooping": False,
    }
    if config.design == "pairs":
        first, second = trial.stimuli
        ties = {"unforced": NO_DIFFERENCE} if config.ties else {}
        own: dict[str, Any] = {
            "type": "paired_comparison",
            "reference": files[first],
            "referenceCondition": known[first].condition,
            "stimuli": {known[second].condition: files[second]},
            **ties,
        }
    elif config.design == "ratings":
        scale = [{"value": point, "label": point} for point in SCALE]
        (token,) = trial.stimuli
        if trial.reference:
            page["content"] += _player(files[trial.reference])
            page["reference"] = files[trial.reference]
        own = {
            "type": "likert_single_stimulus",
            "mustRate": True,
            "mustPlayback": "ended",
            "stimuli": {known[token].condition: files[token]},
            "response": scale if len(questions) == 1 else [scale] * len(questions),
        }
    else:
        named = {ANCHOR: ANCHOR_35}
        own = {
            "type": "mushra",
            "reference": files[trial.reference],
            "createAnchor35": False,
            "createAnchor70": False,
            "stimuli": {
                named.get(known[token].condition, known[token].condition): files[token]
                for token in trial.stimuli
                if known[token].role != "hidden reference"  # webMUSHRA adds it
            },
        }
    return {"type": own.pop("type"), **page, **own}


def _player(file: str) -> str:
    """Return the HTML of what plays the original: pages of one stimulus have no reference of their own."""
    return f'<br>Original: <audio controls preload="auto" src="{html.escape(quote(file))}"></audio>'


def _flat(pages: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield pages, those in lists, too, which may begin with the word random."""
    for page in pages:
        if isinstance(page, list):
            yield from _flat(page)
        elif isinstance(page, dict):
            yield page


def _page(path: Path, page: Mapping[str, Any], design: Design) -> Page:
    name = _text(page.get("id"))
    stimuli = page.get("stimuli")
    if problem := name_problem(name) or ("" if name else "must not be empty"):
        raise UserError(f"{path}: the id of a page {problem}.")
    item, text = _text(page.get("item")) or name, _text(page.get("text"))
    if problem := name_problem(item):
        raise UserError(f"{path}: the item of the page '{name}' {problem}.")
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{path}: the text of the page '{name}' must have at most {LONGEST_TEXT} characters.")
    if (
        not isinstance(stimuli, dict)
        or not stimuli
        or not all(isinstance(file, str) for file in stimuli.values())
    ):
        raise UserError(f"{path}: the page '{name}' must have stimuli, as names with files.")
    for stimulus in stimuli:
        if problem := name_problem(stimulus):
            raise UserError(f"{path}: the name of a stimulus of the page '{name}' {problem}.")
    reference = _text(page.get("reference"))
    if design != "ratings" and not reference:
        raise UserError(f"{path}: the page '{name}' must have a reference.")
    if _text(page.get("createAnchor70")) == _TRUE:
        raise UserError(f"{path}: createAnchor70 is not supported. Name the file among the stimuli instead.")
    makes_anchor = _text(page.get("createAnchor35")) == _TRUE or ANCHOR_35 in stimuli
    if design == "mushra" and not makes_anchor:
        raise UserError(
            f"{path}: the page '{name}' must have the low anchor (createAnchor35: true), which is made here, too."
        )
    scales = _scales(path, name, page.get("response")) if design == "ratings" else ()
    given = page.get("questions")
    questions = tuple(map(str, given)) if isinstance(given, list) else (_plain(page.get("content")),)
    if len(scales) > len(questions):
        questions = tuple(f"{questions[0]} (scale {number + 1})" for number in range(len(scales)))
    return Page(
        id=name,
        item=item,
        text=text,
        stimuli=stimuli,
        reference=reference,
        reference_condition=_text(page.get("referenceCondition")) or REFERENCE,
        questions=questions,
        scales=scales,
        makes_anchor=makes_anchor,
        allows_ties=bool(_text(page.get("unforced"))),
    )


def _scales(path: Path, name: str, given: Any) -> tuple[tuple[str, ...], ...]:
    """Return the values of a page's scales, each with five points."""
    scales = given if isinstance(given, list) and given and isinstance(given[0], list) else [given]
    values = tuple(
        tuple(_text(point.get("value")) if isinstance(point, dict) else "" for point in scale)
        for scale in scales
        if isinstance(scale, list)
    )
    if not values or any(len(set(scale)) != len(SCALE) or len(scale) != len(SCALE) for scale in values):
        raise UserError(
            f"{path}: the page '{name}' must have a response with {len(SCALE)} points, from low to high."
        )
    return values


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _plain(content: Any) -> str:
    """Return a page's content as one line without HTML."""
    text = " ".join(html.unescape(_TAG.sub(" ", _text(content))).split())
    return text or "How do you rate it?"
