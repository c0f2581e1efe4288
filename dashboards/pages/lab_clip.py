"""The lab's fields of a clip: one of the study's clips or free text, lyrics, seed and settings."""

import re
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.lab.request import LabRequest, longest
from cache.errors import UserError
from dashboards.pages.lab_numbers import number_field, read_number, read_whole_number, written
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study

FIELDS = ("prompt", "lyrics", "seed", "duration", "steps", "guidance")
NUMBERS = {
    "seed": read_whole_number,
    "duration": read_number,
    "steps": read_whole_number,
    "guidance": read_number,
}
MOST_CLIPS = 500
"""Clips of the study that are offered; any other one is opened by its number in the address."""


def of_clip(study: Study, number: int) -> LabRequest:
    """The request for one of the study's clips, without edits."""
    clip = study.clips.iloc[number]
    return LabRequest(prompt=str(clip["prompt"]), lyrics=str(clip["lyrics"]), seed=int(clip["seed"]))


def clip_number(study: Study, text: str) -> int:
    """The number of one of the study's clips; raise UserError for anything else."""
    if not (text.isdecimal() and len(text) < 10 and int(text) < len(study.clips)):
        raise UserError(f"There is no clip '{text[:40]}'. The study has clips 0 to {len(study.clips) - 1}.")
    return int(text)


def layout(study: Study, request: LabRequest) -> list[Component]:
    """The fields, with what the request has."""
    settings = study.spec.settings
    offered = study.clips.head(MOST_CLIPS)
    clips = [
        {"value": str(number), "label": f"{number}: {prompt} (seed {seed})"}
        for number, prompt, seed in zip(offered["clip"], offered["prompt"], offered["seed"], strict=True)
    ]
    most = f"Seconds (≤ {longest(settings):g})"
    return [
        dmc.SimpleGrid(
            [
                _choose("clip", "Clip of the study", clips),
                _choose("concept", "Change a concept in the prompt", concept_choices(study.spec.prompts)),
            ],
            cols={"base": 1, "xs": 2},
            spacing="xs",
        ),
        _text("prompt", "Prompt", request.prompt, 2),
        _text("lyrics", "Lyrics", request.lyrics, 1),
        dmc.SimpleGrid(
            [
                number_field("lab-seed", "Seed", request.seed),
                number_field("lab-duration", most, request.duration, written(settings.duration)),
                number_field("lab-steps", "Steps", request.steps, written(settings.num_steps)),
                number_field("lab-guidance", "Guidance", request.guidance, written(settings.guidance_scale)),
            ],
            cols={"base": 2, "xs": 4},
            spacing="xs",
            mt="xs",
        ),
    ]


def _choose(name: str, label: str, data: list[Any]) -> Component:
    return dmc.Select(
        id=f"lab-{name}", label=label, data=data, placeholder="choose", searchable=True, size="xs"
    )


def _text(name: str, label: str, value: str, rows: int) -> Component:
    return dmc.Textarea(
        id=f"lab-{name}", label=label, value=value, autosize=True, minRows=rows, size="sm", mt="xs"
    )


def values(request: LabRequest) -> tuple[str, ...]:
    """The texts of `FIELDS` for a request; "" for settings of the study."""
    numbers = (request.seed, request.duration, request.steps, request.guidance)
    return request.prompt, request.lyrics, *map(written, numbers)


def given(of_fields: list[Any]) -> dict[str, Any]:
    """What the fields say, as values of a request; raise UserError for a number that is none."""
    found = {name: value for name, value in zip(FIELDS, of_fields, strict=True) if value not in (None, "")}
    numbers = {name: read(name, found[name]) for name, read in NUMBERS.items() if name in found}
    return {"prompt": "", **found, **numbers}


def concept_choices(prompts: PromptSet) -> list[dict[str, Any]]:
    """The values of a prompt set's concepts, as the choices of a select."""
    return [
        {"group": concept, "items": [{"value": f"{concept}={label}", "label": label} for label in known]}
        for concept, known in prompts.concepts.items()
    ]


def with_value(prompts: PromptSet, prompt: str, choice: str) -> str:
    """A prompt with the phrase of a concept's value in place of that of another one, or after it if it has none."""
    concept, _, label = str(choice).partition("=")
    known = prompts.concepts.get(concept, {})
    if label not in known:
        raise UserError(f"There is no value '{choice[:80]}' in the study's prompt set.")
    phrase = known[label].phrase
    for other in sorted((value.phrase for value in known.values()), key=len, reverse=True):
        found = re.search(rf"(?<!\w){re.escape(other)}(?!\w)", prompt) if other else None
        if found:
            return f"{prompt[: found.start()]}{phrase}{prompt[found.end() :]}"
    return f"{prompt} {phrase}".strip()


def register(app: dash.Dash, study: Study) -> None:
    """Fill the fields with a chosen clip, and change a concept in the prompt."""

    @app.callback(
        Output("lab-prompt", "value", allow_duplicate=True),
        Output("lab-lyrics", "value", allow_duplicate=True),
        Output("lab-seed", "value", allow_duplicate=True),
        Input("lab-clip", "value"),
        prevent_initial_call=True,
    )
    def choose_clip(number: str | None) -> tuple[str, str, str]:
        if number is None:
            raise PreventUpdate
        clip = of_clip(study, clip_number(study, str(number)))
        return clip.prompt, clip.lyrics, str(clip.seed)

    @app.callback(
        Output("lab-prompt", "value", allow_duplicate=True),
        Output("lab-concept", "value"),
        Input("lab-concept", "value"),
        State("lab-prompt", "value"),
        prevent_initial_call=True,
    )
    def change_concept(choice: str | None, prompt: str | None) -> tuple[str, None]:
        if choice is None:
            raise PreventUpdate
        return with_value(study.spec.prompts, str(prompt or ""), choice), None
