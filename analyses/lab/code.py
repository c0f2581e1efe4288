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
    PromptEdit,
    SliderEdit,
    SteerEdit,
    edit_as_data,
    schedule,
)
from analyses.steering.study_files import find_pack, slider_file
from workbench.engine.sites import numbered_site
from workbench.studies.study import Study

OUT = "clip.flac"
EVERYWHERE = "*.cross_attn"


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
    if any(isinstance(edit, SteerEdit | SliderEdit | FeatureEdit) for edit in request.active):
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
    n_steps = request.settings(study.spec.settings).num_steps
    if isinstance(edit, SteerEdit):
        return _steering(study, edit, n_steps)
    if isinstance(edit, SliderEdit):
        slider = f"wb.load_slider({str(slider_file(study.path, edit.slider).resolve())!r})"
        return f"{slider}.at({edit.strength!r}{_more(_course(edit, n_steps))})"
    sites = _sites(edit.sites, study.block_names)
    if isinstance(edit, PromptEdit):
        return _prompt(request, edit, sites, n_steps)
    window: dict[str, Any] = {"steps": edit.steps, "tokens": edit.tokens}
    if isinstance(edit, PatchEdit):
        target = {} if edit.target == "conditioning" else {"target": edit.target}
        source, named = _clip(request, edit.prompt), {**target, **window, "segments": edit.segments}
        return f"wb.patch({sites}, {source}{_more(named)})"
    if isinstance(edit, AblateEdit):
        source = "" if edit.method == "zero" else f", {_clip(request, edit.prompt)}"
        return f"wb.ablate({sites}, {edit.method!r}{source}{_more(window)})"
    how = {"mode": edit.mode, **window, "ignore_gate": edit.ignore_gate or None}
    autoencoder = f"study.autoencoder({edit.sae!r})"
    return f"wb.edit_features({autoencoder}, {edit.feature}, {sites}, {edit.strength!r}{_more(how)})"


def _sites(sites: Sequence[str], block_names: Sequence[str]) -> str:
    """Return sites as a list in Python, with those of every block as a loop."""
    parts = [site[1:] for site in sites if site.startswith("*.")]
    loops = [f'*(f"tf{{block}}{part}" for block in range(model.n_blocks))' for part in parts]
    plain = [repr(numbered_site(site, block_names)) for site in sites if not site.startswith("*.")]
    return f"[{', '.join([*plain, *loops])}]"


def _course(edit: SteerEdit | SliderEdit, n_steps: int) -> dict[str, Any]:
    return {} if edit.steps is None else {"schedule": list(schedule(edit, n_steps))}


def _prompt(request: LabRequest, edit: PromptEdit, sites: str, n_steps: int) -> str:
    positive, negative = (_clip(request, prompt) for prompt in (edit.positive, edit.negative))
    if not edit.strength:
        return "()"
    if edit.method == "pci":
        source, first = positive if edit.strength > 0 else negative, n_steps - int(abs(edit.strength))
        return f"wb.patch({sites}, {source}, steps=({first}, {n_steps - 1}))"
    window = _more({"steps": edit.steps})
    if edit.method == "text-embedding":
        weights = f"[1.0, {edit.strength!r}, {-edit.strength!r}]"
        return f"wb.blend({sites}, ['self', {positive}, {negative}], {weights}{window})"
    followers = ", ".join(_follower(prompt, sites, edit.sites) for prompt in (positive, negative))
    return f"wb.add_velocity({followers}, {edit.strength!r}{window})"


def _follower(prompt: str, sites: str, given: Sequence[str]) -> str:
    """Return the run at the edited run's latents that reads another prompt at the sites only."""
    if EVERYWHERE in given:
        return f"wb.Run({prompt}, follows=wb.Run('self'))"
    every = f'f"tf{{block}}.cross_attn" for block in range(model.n_blocks) if f"tf{{block}}.cross_attn" not in {sites}'
    return f"wb.Run({prompt}, [wb.patch([{every}], 'self', passes=('cond',))], follows=wb.Run('self'))"


def _steering(study: Study, edit: SteerEdit, n_steps: int) -> str:
    vector = f"wb.load_vector({str(find_pack(study.path, edit.pack).resolve())!r})"
    if edit.sites:
        vector += f".only({list(edit.sites)!r})"
    if edit.resample:
        vector += ".resampled(model.sigmas(settings))"
    defaults = {"unit": "difference", "passes": "cond_only", "operation": "add", "keep_norm": False}
    named = {name: value for name, value in edit.model_dump().items() if defaults.get(name, value) != value}
    named |= {**_course(edit, n_steps), "tokens": edit.tokens, "ignore_gate": edit.ignore_gate or None}
    return f"{vector}.at({edit.strength!r}{_more(named)})"


def _clip(request: LabRequest, prompt: str) -> str:
    return f"wb.Clip({_arguments([prompt, request.seed, *([request.lyrics] if request.lyrics else [])], {})})"


def _arguments(values: Sequence[Any], named: dict[str, Any]) -> str:
    return ", ".join([*map(repr, values), *(f"{name}={value!r}" for name, value in named.items())])


def _more(named: dict[str, Any]) -> str:
    """Return named arguments that are not None, to follow others."""
    given = {name: value for name, value in named.items() if value is not None}
    return f", {_arguments([], given)}" if given else ""
