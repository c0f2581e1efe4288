"""The lab's edits: a card for each, with its fields, a switch, and a button that removes it."""

import re
import secrets
from collections.abc import Iterable
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, MATCH, Input, Output, State, ctx, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from analyses.lab.request import (
    MOST_EDITS,
    AblateEdit,
    FeatureEdit,
    LabEdit,
    LabRequest,
    PatchEdit,
    SteerEdit,
)
from cache.errors import UserError
from dashboards.packs import pack_names
from dashboards.pages.lab_clip import concept_choices, with_value
from dashboards.results import sae_names
from workbench.engine.sites import PARTS
from workbench.studies.study import Study

TITLES = {"patch": "Patch", "ablate": "Ablate", "steer": "Steer", "feature": "Feature"}
WIDEST_STRENGTH = 5.0
"""The slider of strengths goes from minus to plus this, or as far as a given strength needs."""
GATE = "Use autoencoders also at steps that their gate closes"
SEGMENTS = ("text", "lyrics", "swapped", "before", "after")
_RANGE = re.compile(r"(\d{1,9})(?:\s*[-–]\s*(\d{1,9}))?")


def layout(study: Study, request: LabRequest) -> list[Component]:
    """The cards of a request's edits, and buttons that add others."""
    has = {"patch": True, "ablate": True, "steer": bool(pack_names(study)), "feature": bool(sae_names(study))}
    buttons = [
        dmc.Button(
            f"+ {title}",
            id={"type": "lab-add", "kind": kind},
            size="compact-sm",
            variant="light",
            disabled=not has[kind],
        )
        for kind, title in TITLES.items()
    ]
    missing = {
        "steer": "no steering vectors (`workbench steer fit`)",
        "feature": "no sparse autoencoders (`workbench sae train`)",
    }
    lacks = " and ".join(sentence for kind, sentence in missing.items() if not has[kind])
    note = dmc.Text(f"The study has {lacks}.", size="xs", c="dimmed", mt=4) if lacks else None
    return [
        dmc.Stack(cards(study, request), id="lab-edits", gap="xs"),
        dmc.Group(buttons, gap="xs", mt="xs"),
        *filter(None, [note]),
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
        return SteerEdit(pack=pack_names(study)[0])
    name = sae_names(study)[0]
    return FeatureEdit(sae=name, feature=0, sites=(_site_of(study, name),), mode="inject")


def _other(study: Study, prompt: str) -> str:
    """A prompt that differs from this one in the first concept that it names."""
    for concept, known in study.spec.prompts.concepts.items():
        for label in known:
            if (changed := with_value(study.spec.prompts, prompt, f"{concept}={label}")) != prompt:
                return changed
    return prompt


def _site_of(study: Study, name: str) -> str:
    try:
        return str(study.result_attributes(f"sae-{name}").get("site", name))
    except UserError:
        return name


def suggested_sites(study: Study) -> tuple[str, ...]:
    """Sites of the study's own, and the parts of their blocks."""
    sites = [site for site in study.spec.sites if not site.startswith("*.")]
    blocks = sorted({site.partition(".")[0] for site in sites}, key=lambda block: (len(block), block))
    return tuple(dict.fromkeys([*sites, *(f"{block}.{part}" for block in blocks for part in PARTS)]))


def card(study: Study, edit: LabEdit) -> Component:
    """The fields of an edit. Their ids have the edit's own random key, so that removing another one changes nothing."""
    key = secrets.token_hex(4)
    head = dmc.Group(
        [
            dmc.Switch(
                id={"type": "lab-switch", "edit": key, "field": "on"},
                label=TITLES[edit.kind],
                checked=edit.on,
                size="sm",
            ),
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
    concept = dmc.Select(
        id={"type": "lab-source-concept", "edit": key},
        label="… or the clip's with",
        data=concept_choices(study.spec.prompts),
        placeholder="choose",
        searchable=True,
        size="xs",
    )
    prompt = dmc.Textarea(
        id=_id(key, "prompt"), label="From the prompt", value=edit.prompt, autosize=True, size="xs"
    )
    target = _select(
        key, "target", "What is patched", {"conditioning": "conditioning", "output": "output"}, edit.target
    )
    segments = _tags(
        key, "segments", "Segments", edit.segments or (), ["text", "lyrics", "swapped", "before", "after"]
    )
    return [
        prompt,
        _row(concept, target),
        _sites(study, key, edit),
        _row(segments, _steps(key, edit), _tokens(key, edit)),
    ]


def _ablate(study: Study, key: str, edit: AblateEdit) -> list[Component]:
    methods = {"zero": "zero", "mean": "mean of a prompt", "resample": "another prompt's output"}
    method = _select(key, "method", "To", methods, edit.method)
    prompt = dmc.TextInput(
        id=_id(key, "prompt"), label="Prompt of mean or output", value=edit.prompt, size="xs"
    )
    return [_sites(study, key, edit), _row(method, prompt), _row(_steps(key, edit), _tokens(key, edit))]


def _steer(study: Study, key: str, edit: SteerEdit) -> list[Component]:
    names = list(dict.fromkeys([*pack_names(study), edit.pack]))
    pack = _select(key, "pack", "Vector", {name: name for name in names}, edit.pack, searchable=True)
    unit = _select(key, "unit", "Unit", {"difference": "mean difference", "norm": "length 1"}, edit.unit)
    sites = _tags(key, "sites", "Sites (all of the vector's if empty)", edit.sites, suggested_sites(study))
    more = _row(unit, _steps(key, edit), _tokens(key, edit))
    return [pack, _strength(key, edit.strength), sites, more, _gate(key, edit.ignore_gate)]


def _feature(study: Study, key: str, edit: FeatureEdit) -> list[Component]:
    names = list(dict.fromkeys([*sae_names(study), edit.sae]))
    sae = _select(key, "sae", "Autoencoder", {name: name for name in names}, edit.sae, searchable=True)
    feature = dmc.NumberInput(
        id=_id(key, "feature"), label="Feature", value=edit.feature, min=0, allowDecimal=False, size="xs"
    )
    modes = {
        "post_activation": "multiply activations by 1 + s",
        "pre_activation": "multiply pre-activations by 1 + s",
        "inject": "set activations to s",
    }
    mode = _select(key, "mode", "Mode", modes, edit.mode)
    more = _row(mode, _steps(key, edit), _tokens(key, edit))
    return [
        _row(sae, feature),
        _strength(key, edit.strength),
        _sites(study, key, edit),
        more,
        _gate(key, edit.ignore_gate),
    ]


_BODIES: dict[type[LabEdit], Any] = {
    PatchEdit: _patch,
    AblateEdit: _ablate,
    SteerEdit: _steer,
    FeatureEdit: _feature,
}


def _row(*parts: Component) -> Component:
    return dmc.SimpleGrid(list(parts), cols={"base": 1, "xs": len(parts)}, spacing="xs", mt=4)


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


def _sites(study: Study, key: str, edit: LabEdit) -> Component:
    return _tags(key, "sites", "Sites", edit.sites, suggested_sites(study))


def _range(key: str, field: str, label: str, value: tuple[int, int] | None) -> Component:
    text = "" if value is None else f"{value[0]}–{value[1]}"
    return dmc.TextInput(id=_id(key, field), label=label, value=text, placeholder="all", size="xs")


def _steps(key: str, edit: LabEdit) -> Component:
    return _range(key, "steps", "Steps", edit.steps)


def _tokens(key: str, edit: LabEdit) -> Component:
    return _range(key, "tokens", "Tokens", edit.tokens)


def _strength(key: str, strength: float) -> Component:
    widest = max(WIDEST_STRENGTH, abs(strength))
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
        mt=28,
        **{"aria-label": "strength"},
    )
    return html.Div([dmc.Text("Strength", size="xs", fw=500), slider], className="lab-strength")


def _gate(key: str, ignore: bool) -> Component:
    return html.Div(_switch(key, "ignore_gate", GATE, ignore, "xs"), className="lab-gate")


def _switch(key: str, field: str, label: str, checked: bool, size: str) -> Component:
    return dmc.Switch(
        id={"type": "lab-switch", "edit": key, "field": field}, label=label, checked=checked, size=size
    )


def given(of_fields: Iterable[tuple[dict[str, str], Any]]) -> list[dict[str, Any]]:
    """The edits of the cards' fields, as plain data in the order of the cards.

    Raises:
        UserError: for a range that cannot be read.
    """
    edits: dict[str, dict[str, Any]] = {}
    for id, value in of_fields:
        edit, field = edits.setdefault(str(id.get("edit")), {}), str(id.get("field"))
        if field in ("steps", "tokens"):
            value = _read_range(field, value)
        if value not in (None, "", []) or field in ("sites", "prompt"):
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
    """Add and remove cards without touching the others, and make a patch's prompt of the clip's."""

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

    @app.callback(
        Output({"type": "lab-field", "edit": MATCH, "field": "prompt"}, "value"),
        Output({"type": "lab-source-concept", "edit": MATCH}, "value"),
        Input({"type": "lab-source-concept", "edit": MATCH}, "value"),
        State("lab-prompt", "value"),
        prevent_initial_call=True,
    )
    def change_source(choice: str | None, prompt: str | None) -> tuple[str, None]:
        if choice is None:
            raise PreventUpdate
        return with_value(study.spec.prompts, prompt or "", choice), None
