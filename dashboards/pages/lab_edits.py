"""The lab's edits: a card for each, with its fields, a switch, and a button that removes it."""

import re
import secrets
from collections.abc import Iterable
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, MATCH, ClientsideFunction, Input, Output, State, ctx, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.lab.request import (
    MOST_EDITS,
    AblateEdit,
    FeatureEdit,
    LabEdit,
    LabRequest,
    PatchEdit,
    PromptEdit,
    SliderEdit,
    SteerEdit,
)
from analyses.steering_spec import OPERATIONS, PASS_MODES
from cache.errors import UserError
from dashboards.components.text import with_code
from dashboards.packs import pack_names
from dashboards.pages.lab_clip import concept_choices, with_value
from dashboards.pages.lab_numbers import number_field, read_whole_number
from dashboards.results import sae_names
from dashboards.sliders import slider_names
from dashboards.wording import STRENGTH_1
from workbench.engine.sites import PARTS
from workbench.studies.study import Study

TITLES = {
    "patch": "Patch",
    "ablate": "Ablate",
    "steer": "Steer",
    "slider": "Slider",
    "prompt": "Prompt",
    "feature": "Feature",
}
LACKS = {
    "steer": "no steering vectors (`workbench steer fit`)",
    "slider": "no concept sliders (`workbench steer train-slider`)",
    "feature": "no sparse autoencoders (`workbench sae train`)",
}
NO_TOKENS = (
    "Token embeddings, which have no file and are computed from pairs for every trial, are no edits of the lab: use "
    "`workbench steer apply --method token-embedding`."
)
METHODS = {
    "text-embedding": "text embedding: move the conditioning",
    "free-sliders": "FreeSliders: move the velocity",
    "pci": "PCI: switch the prompt for the last s steps",
}
WIDEST_STRENGTH = 5.0
"""The slider of strengths goes from minus to plus this, or as far as a given strength needs."""
FEATURE_STRENGTH = (
    "Strength is the s of the mode: 1 doubles the feature's activations or pre-activations, "
    "or sets activations to 1."
)
GATE = "Also at steps that the gate closes, as the autoencoder explains too little there"
SEGMENTS = ("text", "lyrics", "swapped", "before", "after")
_RANGE = re.compile(r"(\d{1,9})(?:\s*[-–]\s*(\d{1,9}))?")


def layout(study: Study, request: LabRequest) -> list[Component]:
    """The cards of a request's edits, and buttons that add others."""
    has = {"steer": pack_names(study), "slider": slider_names(study), "feature": sae_names(study)}
    buttons = [
        dmc.Button(
            f"+ {title}",
            id={"type": "lab-add", "kind": kind},
            size="compact-sm",
            variant="light",
            disabled=not has.get(kind, True),
        )
        for kind, title in TITLES.items()
    ]
    lacks = [sentence for kind, sentence in LACKS.items() if not has[kind]]
    notes = (
        [f"The study has {', '.join(lacks[:-1])}{' and ' if lacks[1:] else ''}{lacks[-1]}."] if lacks else []
    )
    return [
        dmc.Stack(cards(study, request), id="lab-edits", gap="xs"),
        dmc.Group(buttons, gap="xs", mt="xs"),
        *(dmc.Text(with_code(note), size="xs", c="dimmed", mt=4) for note in (*notes, NO_TOKENS)),
    ]


def cards(study: Study, request: LabRequest) -> list[Component]:
    """A card for each edit."""
    return [card(study, edit) for edit in request.edits]


def new_edit(study: Study, kind: str, prompt: str) -> LabEdit:
    """An edit to begin with, at a site of the study."""
    sites = suggested_sites(study)[:1] or ("tf3.cross_attn",)
    if kind == "patch":
        attention = [site for site in suggested_sites(study) if site.endswith(".cross_attn")][:1]
        return PatchEdit(sites=tuple(attention or ["tf3.cross_attn"]), prompt=_other(study, prompt))
    if kind == "ablate":
        return AblateEdit(sites=sites)
    if kind == "steer":
        return SteerEdit(pack=_first(kind, pack_names(study)))
    if kind == "slider":
        return SliderEdit(slider=_first(kind, slider_names(study)))
    if kind == "prompt":
        positive, negative = _ends(study, prompt)
        return PromptEdit(positive=positive, negative=negative)
    name = _first(kind, sae_names(study))
    return FeatureEdit(sae=name, feature=0, sites=(_site_of(study, name),), mode="inject")


def _first(kind: str, names: list[str]) -> str:
    """The first name; raise UserError if the files were removed while the page was open."""
    if not names:
        raise UserError(f"The study has {LACKS[kind]}.")
    return names[0]


def _other(study: Study, prompt: str) -> str:
    """A prompt that differs from this one in the first concept that it names."""
    return next((each for each in _variants(study, prompt) if each != prompt), prompt) or "-"


def _ends(study: Study, prompt: str) -> tuple[str, str]:
    """Two prompts with the first two values of the first concept that a prompt names, or of the first one."""
    first, second, *_ = (*_variants(study, prompt), prompt, prompt)
    return first or "-", second or "-"


def _variants(study: Study, prompt: str) -> list[str]:
    """A prompt with each value of the first concept that it names, or of the first one; none without concepts."""
    prompts = study.spec.prompts
    every = [
        [with_value(prompts, prompt, f"{concept}={label}") for label in known]
        for concept, known in prompts.concepts.items()
    ]
    return next((found for found in every if prompt in found), every[0] if every else [])


def _site_of(study: Study, name: str) -> str:
    try:
        return str(study.result_attributes(f"sae-{name}").get("site", name))
    except UserError:
        return name


def suggested_sites(study: Study) -> tuple[str, ...]:
    """Sites of the study's own, and the parts of their blocks."""
    sites = [site for site in study.spec.sites if not site.startswith("*.")]
    blocks = sorted({site.partition(".")[0] for site in sites}, key=lambda block: (len(block), block))
    of_blocks = (f"{block}.{part}" for block in blocks for part in PARTS)
    return tuple(dict.fromkeys([*sites, *of_blocks, *(f"*.{part}" for part in PARTS)]))


def card(study: Study, edit: LabEdit) -> Component:
    """The fields of an edit. Their ids have the edit's own random key, so that removing another one changes nothing."""
    key = secrets.token_hex(4)
    head = dmc.Group(
        [
            _switch(key, "on", TITLES[edit.kind], edit.on, "sm"),
            dmc.ActionIcon(
                "✕",
                id={"type": "lab-remove", "edit": key},
                variant="subtle",
                color="gray",
                size="sm",
                **{"aria-label": f"remove this edit ({TITLES[edit.kind]})"},
            ),
        ],
        justify="space-between",
    )
    kind = html.Div(dmc.TextInput(id=_id(key, "kind"), value=edit.kind), hidden=True)
    body = _BODIES[type(edit)](study, key, edit)
    return dmc.Paper(
        [head, kind, *body],
        id={"type": "lab-card", "edit": key},
        withBorder=True,
        radius="md",
        p="xs",
        className="lab-card",
    )


def _id(key: str, field: str) -> dict[str, str]:
    return {"type": "lab-field", "edit": key, "field": field}


def _patch(study: Study, key: str, edit: PatchEdit) -> list[Component]:
    targets = {"conditioning": "conditioning", "output": "output"}
    target = _select(key, "target", "What is patched", targets, edit.target)
    segments = _tags(key, "segments", "Segments", edit.segments or (), SEGMENTS)
    return [
        _source(key, "prompt", "From the prompt", edit.prompt),
        _row(_source_concept(study, key, "prompt"), target),
        _sites(study, key, edit),
        _row(segments, _steps(key, edit), _tokens(key, edit)),
    ]


def _source(key: str, field: str, label: str, value: str) -> Component:
    return dmc.Textarea(id=_id(key, field), label=label, value=value, autosize=True, size="xs")


def _source_concept(study: Study, key: str, field: str) -> Component:
    """A choice that fills a field with the clip's prompt with another value of a concept."""
    return dmc.Select(
        id={"type": "lab-source-concept", "edit": key, "field": field},
        label="… or the clip's with",
        data=concept_choices(study.spec.prompts),
        placeholder="choose",
        searchable=True,
        size="xs",
    )


def _ablate(study: Study, key: str, edit: AblateEdit) -> list[Component]:
    methods = {"zero": "zero", "mean": "mean of a prompt", "resample": "another prompt's output"}
    method = _select(key, "method", "To", methods, edit.method)
    prompt = dmc.TextInput(
        id=_id(key, "prompt"), label="Prompt of mean or output", value=edit.prompt, size="xs"
    )
    return [_sites(study, key, edit), _row(method, prompt), _row(_steps(key, edit), _tokens(key, edit))]


def _steer(study: Study, key: str, edit: SteerEdit) -> list[Component]:
    pack = _select(key, "pack", "Vector", _with(pack_names(study), edit.pack), edit.pack, searchable=True)
    unit = _select(key, "unit", "Unit", {"difference": "mean difference", "norm": "length 1"}, edit.unit)
    sites = _tags(key, "sites", "Sites (all of the vector's if empty)", edit.sites, suggested_sites(study))
    passes = _select(key, "passes", "Passes", _spaced(PASS_MODES), edit.passes)
    operation = _select(key, "operation", "Operation", _spaced(OPERATIONS), edit.operation)
    switches = [
        _switch(key, "keep_norm", "Keep the norm of every token", edit.keep_norm),
        _switch(key, "resample", "Fit to other steps, by the nearest sigma", edit.resample),
        _switch(key, "ignore_gate", GATE, edit.ignore_gate),
    ]
    return [
        pack,
        _strength(key, edit.strength, help=STRENGTH_1),
        sites,
        _row(unit, _steps(key, edit), _tokens(key, edit)),
        html.Details(
            [
                html.Summary("More"),
                _row(passes, operation),
                dmc.Stack(switches, gap=6, className="lab-gate"),
            ],
            open=edit != SteerEdit(**{name: getattr(edit, name) for name in ("on", *_USUAL)}),
            className="lab-more",
        ),
    ]


_USUAL = ("steps", "sites", "pack", "strength", "unit", "tokens")
"""Fields of a steering edit that are always shown."""


def _slider(study: Study, key: str, edit: SliderEdit) -> list[Component]:
    names = _with(slider_names(study), edit.slider)
    slider = _select(key, "slider", "Concept slider", names, edit.slider, searchable=True)
    return [_row(slider, _steps(key, edit)), _strength(key, edit.strength)]


def _prompt(study: Study, key: str, edit: PromptEdit) -> list[Component]:
    ends = [
        html.Div([_source(key, field, label, value), _source_concept(study, key, field)])
        for field, label, value in (
            ("positive", "Towards the prompt", edit.positive),
            ("negative", "Away from the prompt", edit.negative),
        )
    ]
    return [
        _select(key, "method", "Method", METHODS, edit.method),
        _strength(key, edit.strength, max(WIDEST_STRENGTH, float(study.spec.settings.num_steps))),
        _row(*ends),
        _row(_sites(study, key, edit), _steps(key, edit)),
    ]


def _feature(study: Study, key: str, edit: FeatureEdit) -> list[Component]:
    names = _with(sae_names(study), edit.sae)
    sae = _select(key, "sae", "Autoencoder", names, edit.sae, searchable=True)
    feature = number_field(_id(key, "feature"), "Feature", edit.feature)
    modes = {
        "post_activation": "multiply activations by 1 + s",
        "pre_activation": "multiply pre-activations by 1 + s",
        "inject": "set activations to s",
    }
    mode = _select(key, "mode", "Mode", modes, edit.mode)
    return [
        _row(sae, feature),
        mode,
        _strength(key, edit.strength, help=FEATURE_STRENGTH),
        _sites(study, key, edit),
        _row(_steps(key, edit), _tokens(key, edit)),
        html.Div(_switch(key, "ignore_gate", GATE, edit.ignore_gate), className="lab-gate"),
    ]


_BODIES: dict[type[LabEdit], Any] = {
    PatchEdit: _patch,
    AblateEdit: _ablate,
    SteerEdit: _steer,
    SliderEdit: _slider,
    PromptEdit: _prompt,
    FeatureEdit: _feature,
}


def _row(*parts: Component) -> Component:
    return dmc.SimpleGrid(list(parts), cols={"base": 1, "xs": len(parts)}, spacing="xs", mt=4)


def _with(names: list[str], name: str) -> dict[str, str]:
    """Choices of names, among them that of the edit, which the study may not have."""
    return {each: each for each in (*names, name)}


def _spaced(names: Iterable[str]) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in names}


def _select(
    key: str, field: str, label: str, data: dict[str, str], value: str, searchable: bool = False
) -> Component:
    choices = [{"value": name, "label": text} for name, text in data.items()]
    return dmc.Select(
        id=_id(key, field),
        label=label,
        data=choices,
        value=value,
        allowDeselect=False,
        searchable=searchable,
        size="xs",
    )


def _tags(key: str, field: str, label: str, value: Iterable[str], data: Iterable[str]) -> Component:
    return dmc.TagsInput(
        id=_id(key, field),
        label=label,
        value=list(value),
        data=list(data),
        size="xs",
        maxDropdownHeight=240,
    )


def _sites(study: Study, key: str, edit: PatchEdit | AblateEdit | FeatureEdit | PromptEdit) -> Component:
    return _tags(key, "sites", "Sites", edit.sites, suggested_sites(study))


def _range(key: str, field: str, label: str, value: tuple[int, int] | None) -> Component:
    text = "" if value is None else f"{value[0]}–{value[1]}"
    return dmc.TextInput(id=_id(key, field), label=label, value=text, placeholder="all", size="xs")


def _steps(key: str, edit: LabEdit) -> Component:
    return _range(key, "steps", "Steps", edit.steps)


def _tokens(key: str, edit: PatchEdit | AblateEdit | SteerEdit | FeatureEdit) -> Component:
    return _range(key, "tokens", "Tokens", edit.tokens)


def _strength(key: str, strength: float, usual: float = WIDEST_STRENGTH, help: str = "") -> Component:
    widest = max(usual, abs(strength))
    slider = dmc.Slider(
        id=_id(key, "strength"),
        value=strength,
        min=-widest,
        max=widest,
        step=0.1,
        precision=2,
        labelAlwaysOn=True,
        updatemode="mouseup",
        marks=[{"value": 0, "label": "0"}],
        size="sm",
        mb="lg",
        mt=36,  # for the number above the thumb
        thumbLabel="strength",
    )
    said = [dmc.Text(help, size="xs", c="dimmed")] if help else []
    return html.Div([dmc.Text("Strength", size="xs", fw=500), *said, slider], className="lab-strength")


def _switch(key: str, field: str, label: str, checked: bool, size: str = "xs") -> Component:
    return dmc.Switch(
        id={"type": "lab-switch", "edit": key, "field": field}, label=label, checked=checked, size=size
    )


def given(of_fields: Iterable[tuple[dict[str, str], Any]]) -> list[dict[str, Any]]:
    """The edits of the cards' fields, as plain data in the order of the cards.

    Raises:
        UserError: for a range or a number that cannot be read.
    """
    edits: dict[str, dict[str, Any]] = {}
    for id, value in of_fields:
        edit, field = edits.setdefault(str(id.get("edit")), {}), str(id.get("field"))
        if field in ("steps", "tokens"):
            value = _read_range(field, value)
        if field == "feature" and value not in (None, ""):
            value = read_whole_number("feature", value)
        if value not in (None, "", []) or field in ("sites", "prompt", "positive", "negative"):
            edit[field] = value
    return list(edits.values())


def _read_range(field: str, text: Any) -> tuple[int, int] | None:
    """A range written as "2-7" or "3"; None for all."""
    if not str(text or "").strip():
        return None
    found = _RANGE.fullmatch(str(text).strip())
    if found is None:
        raise UserError(
            f"The {field} must be a number or a range such as 2-7, or empty for all; got '{str(text)[:40]}'."
        )
    return int(found[1]), int(found[2] or found[1])


def register(app: dash.Dash, study: Study) -> None:
    """Add and remove cards without touching the others, and make prompts of edits from the clip's."""

    @app.callback(
        Output("lab-edits", "children", allow_duplicate=True),
        Input({"type": "lab-add", "kind": ALL}, "n_clicks"),
        State("lab-prompt", "value"),
        State({"type": "lab-card", "edit": ALL}, "id"),
        prevent_initial_call=True,
    )
    def add(clicks: list[int | None], prompt: str | None, ids: list[dict[str, str]]) -> Any:
        chosen = ctx.triggered_id
        if not any(clicks) or not isinstance(chosen, dict) or chosen.get("kind") not in TITLES:
            raise PreventUpdate
        if len(ids) >= MOST_EDITS:
            raise UserError(f"A clip can have at most {MOST_EDITS} edits. Remove one first.")
        changed = dash.Patch()
        changed.append(card(study, new_edit(study, chosen["kind"], prompt or "")))
        return changed

    @app.callback(
        Output("lab-edits", "children", allow_duplicate=True),
        Input({"type": "lab-remove", "edit": ALL}, "n_clicks"),
        State({"type": "lab-card", "edit": ALL}, "id"),
        prevent_initial_call=True,
    )
    def remove(clicks: list[int | None], ids: list[dict[str, str]]) -> Any:
        chosen = ctx.triggered_id
        places = [
            place
            for place, id in enumerate(ids)
            if isinstance(chosen, dict) and id.get("edit") == chosen.get("edit")
        ]
        if not any(clicks) or not places:
            raise PreventUpdate
        changed = dash.Patch()
        del changed[places[0]]
        return changed

    # PCI takes whole numbers. Cards with a method and without a strength are left out by Dash.
    app.clientside_callback(
        ClientsideFunction("lab", "stepOf"),
        Output({"type": "lab-field", "edit": MATCH, "field": "strength"}, "step"),
        Input({"type": "lab-field", "edit": MATCH, "field": "method"}, "value"),
    )

    @app.callback(
        Output({"type": "lab-field", "edit": MATCH, "field": MATCH}, "value"),
        Output({"type": "lab-source-concept", "edit": MATCH, "field": MATCH}, "value"),
        Input({"type": "lab-source-concept", "edit": MATCH, "field": MATCH}, "value"),
        State("lab-prompt", "value"),
        prevent_initial_call=True,
    )
    def change_source(choice: str | None, prompt: str | None) -> tuple[str, None]:
        if choice is None:
            raise PreventUpdate
        return with_value(study.spec.prompts, prompt or "", choice), None
