"""A request of the lab as code: the command and the Python that make the same clip."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from analyses.lab.request import (
    AblateEdit,
    FeatureEdit,
    LabEdit,
    LabRequest,
    PatchEdit,
    SteerEdit,
    edit_as_data,
    schedule,
)
from analyses.steering.study_files import find_pack
from workbench.engine.sites import numbered_site
from workbench.studies.study import Study

OUT = "clip.flac"


def as_command(study: Study, request: LabRequest) -> str:
    """Return the `workbench generate` command that makes the edited clip of a request."""
    settings = request.settings(study.spec.settings)
    words = [
        "workbench",
        "generate",
        study.spec.model,
        "--prompt",
        request.prompt,
        "--seed",
        str(request.seed),
    ]
    if request.lyrics:
        words += ["--lyrics", request.lyrics]
    words += ["--duration", f"{settings.duration!r}", "--num-steps", str(settings.num_steps)]
    words += ["--guidance", f"{settings.guidance_scale!r}"]
    for name, value in settings.options.items():
        words += ["--option", f"{name}={json.dumps(value) if not isinstance(value, str) else value}"]
    if study.model["dtype"] != "float32":
        words += ["--model-dtype", study.model["dtype"]]
    if any(isinstance(edit, SteerEdit | FeatureEdit) for edit in request.active):
        words += ["--study", str(study.path.resolve())]
    for edit in request.active:
        words += ["--edit", json.dumps(edit_as_data(edit), ensure_ascii=False)]
    return shlex.join([*words, "--out", OUT])


def as_python(study: Study, request: LabRequest) -> str:
    """Return the Python program that makes the edited clip of a request."""
    settings = request.settings(study.spec.settings)
    dtype = study.model["dtype"]
    given: dict[str, Any] = {"duration": settings.duration, "num_steps": settings.num_steps}
    given |= {"guidance_scale": settings.guidance_scale}
    given |= {"options": settings.options} if settings.options else {}
    lines = ["import workbench as wb", ""]
    lines.append(
        f"model = wb.load({_arguments([study.spec.model], {} if dtype == 'float32' else {'dtype': dtype})})"
    )
    if any(isinstance(edit, FeatureEdit) for edit in request.active):
        lines.append(f"study = wb.open({str(study.path.resolve())!r})")
    lines.append(f"settings = wb.GenerationSettings({_arguments([], given)})")
    lines.append(f"clip = {_clip(request, request.prompt)}")
    lines += ["edits = [", *(f"    {_edit(study, request, edit)}," for edit in request.active), "]"]
    lines += [f"run = model.generate(clip, settings, edits=edits)\nrun.save({OUT!r})"]
    return "\n".join(lines)


def _edit(study: Study, request: LabRequest, edit: LabEdit) -> str:
    sites = [numbered_site(site, study.block_names) for site in edit.sites]
    window: dict[str, Any] = {"steps": edit.steps, "tokens": edit.tokens}
    if isinstance(edit, SteerEdit):
        return _steering(study, edit, sites, request.settings(study.spec.settings).num_steps)
    if isinstance(edit, PatchEdit):
        target = {} if edit.target == "conditioning" else {"target": edit.target}
        source, named = _clip(request, edit.prompt), {**target, **window, "segments": edit.segments}
        return f"wb.patch({sites!r}, {source}{_more(named)})"
    if isinstance(edit, AblateEdit):
        source = "" if edit.method == "zero" else f", {_clip(request, edit.prompt)}"
        return f"wb.ablate({sites!r}, {edit.method!r}{source}{_more(window)})"
    how = {"mode": edit.mode, **window, "ignore_gate": edit.ignore_gate or None}
    autoencoder = f"study.autoencoder({edit.sae!r})"
    return f"wb.edit_features({autoencoder}, {edit.feature}, {sites!r}, {edit.strength!r}{_more(how)})"


def _steering(study: Study, edit: SteerEdit, sites: Sequence[str], n_steps: int) -> str:
    vector = f"wb.load_vector({str(find_pack(study.path, edit.pack).resolve())!r})"
    if sites:
        vector += f".only({list(sites)!r})"
    named: dict[str, Any] = {"unit": edit.unit} if edit.unit != "difference" else {}
    if edit.steps is not None:
        named["schedule"] = list(schedule(edit, n_steps))
    named |= {"tokens": edit.tokens, "ignore_gate": edit.ignore_gate or None}
    return f"{vector}.at({edit.strength!r}{_more(named)})"


def _clip(request: LabRequest, prompt: str) -> str:
    return f"wb.Clip({_arguments([prompt, request.seed, *([request.lyrics] if request.lyrics else [])], {})})"


def _arguments(values: Sequence[Any], named: dict[str, Any]) -> str:
    return ", ".join([*map(repr, values), *(f"{name}={value!r}" for name, value in named.items())])


def _more(named: dict[str, Any]) -> str:
    """Return named arguments that are not None, to follow others."""
    given = {name: value for name, value in named.items() if value is not None}
    return f", {_arguments([], given)}" if given else ""
