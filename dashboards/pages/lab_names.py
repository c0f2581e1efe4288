"""What clips of the lab are called: their edits in a few words, and what they have in common."""

from collections.abc import Sequence

from analyses.lab.request import (
    FeatureEdit,
    LabEdit,
    LabRequest,
    PromptEdit,
    SliderEdit,
    SteerEdit,
    edits_as_text,
)
from dashboards.names import shortened
from workbench.studies.study import Study

LONGEST_LYRICS = 60  # characters in the caption
UNEDITED = "unedited"
WITH_STRENGTH = (SteerEdit, SliderEdit, PromptEdit, FeatureEdit)


def caption(study: Study, request: LabRequest) -> str:
    """What all clips of a request have in common: prompt, seed, and lyrics and settings that are not the study's."""
    given, own = request.settings(study.spec.settings), study.spec.settings
    others = {
        f"{given.duration:g} s": given.duration != own.duration,
        f"{given.num_steps} steps": given.num_steps != own.num_steps,
        f"guidance {given.guidance_scale:g}": given.guidance_scale != own.guidance_scale,
        f"lyrics “{shortened(request.lyrics, LONGEST_LYRICS)}”": request.lyrics != "",
    }
    named = [name for name, is_other in others.items() if is_other]
    return ", ".join([request.prompt, f"seed {request.seed}", *named])


def strengths(request: LabRequest) -> list[float]:
    """The strengths of a request's edits that are on and have one."""
    return [edit.strength for edit in request.active if isinstance(edit, WITH_STRENGTH)]


def without_strength(request: LabRequest) -> str | None:
    """The edits of a request but for their only strength, as text; None if they have none or several."""
    if len(strengths(request)) != 1:
        return None
    bare = [
        edit.model_copy(update={"strength": 0.0}) if isinstance(edit, WITH_STRENGTH) else edit
        for edit in request.active
    ]
    return edits_as_text(bare)


def title(request: LabRequest) -> str:
    """The edits of a request in a few words, such as "mood × 2, patch tf3.cross_attn"."""
    return ", ".join(map(_named, request.active)) or UNEDITED


def _named(edit: LabEdit) -> str:
    if isinstance(edit, WITH_STRENGTH):
        name = f"{_what(edit)} × {_signed(edit.strength)}"
        return f"{name} at {_where(edit.sites)}" if isinstance(edit, SteerEdit) and edit.sites else name
    return f"{edit.kind} {_where(edit.sites)}"


def _what(edit: SteerEdit | SliderEdit | PromptEdit | FeatureEdit) -> str:
    if isinstance(edit, SteerEdit):
        return edit.pack
    if isinstance(edit, SliderEdit):
        return f"slider {edit.slider}"
    return edit.method if isinstance(edit, PromptEdit) else f"feature {edit.feature}"


def _where(sites: Sequence[str]) -> str:
    return ", ".join(sites[:2]) + (" …" if len(sites) > 2 else "")


def _signed(strength: float) -> str:
    return f"{strength:g}".replace("-", "−")
