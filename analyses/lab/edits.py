"""The engine's edits of what the lab is asked for."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import cast

from analyses.lab.request import AblateEdit, FeatureEdit, LabEdit, LabRequest, PatchEdit, SteerEdit
from analyses.sae.names import load_sae, sae_folder
from analyses.steering.study_files import find_pack, pack_files
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from workbench.engine.edits import Edit, ablate, edit_features, patch
from workbench.engine.edits.window import WindowOptions
from workbench.engine.runs import Clip
from workbench.engine.sites import numbered_site
from workbench.files import file_version
from workbench.sae.base import SAE
from workbench.sae.folder import CONFIG_FILE
from workbench.studies.study import Study


def edits_of(study: Study, request: LabRequest) -> tuple[Edit, ...]:
    """Return the edits of a request that are on, in its order, with the study's vectors and autoencoders.

    Raises:
        UserError: for a site that cannot exist, an edit that contradicts itself, a vector or an autoencoder that the
            study does not have, or one of a closed gate.
    """
    return tuple(each for edit in request.active for each in _built(study, request, edit))


def _built(study: Study, request: LabRequest, edit: LabEdit) -> tuple[Edit, ...]:
    return _BUILDERS[type(edit)](study, request, edit)


def _patch(study: Study, request: LabRequest, edit: PatchEdit) -> tuple[Edit, ...]:
    source = Clip(edit.prompt, request.seed, request.lyrics)
    window = {**_window(edit), "segments": edit.segments}
    return (patch(_sites(study, edit), source, target=edit.target, **cast(WindowOptions, window)),)


def _ablate(study: Study, request: LabRequest, edit: AblateEdit) -> tuple[Edit, ...]:
    source = () if edit.method == "zero" else _ablation_source(request, edit)
    return (ablate(_sites(study, edit), edit.method, source, **_window(edit)),)


def _ablation_source(request: LabRequest, edit: AblateEdit) -> Clip:
    if not edit.prompt.strip():
        raise UserError(
            f"The ablation '{edit.method}' takes its values from another prompt. Give that prompt."
        )
    return Clip(edit.prompt, request.seed, request.lyrics)


def _steer(study: Study, request: LabRequest, edit: SteerEdit) -> tuple[Edit, ...]:  # noqa: ARG001 - as the others
    vector = _vector(study, edit.pack)
    vector = vector.only(_sites(study, edit)) if edit.sites else vector
    return vector.at(
        edit.strength,
        unit=edit.unit,
        schedule=steered_steps(edit, len(vector.sigmas)),
        tokens=edit.tokens,
        ignore_gate=edit.ignore_gate,
    )


def steered_steps(edit: SteerEdit, n_steps: int) -> str | tuple[float, ...]:
    """Return the schedule of a vector's strength that is 1 at the edit's steps and otherwise 0.

    Raises:
        UserError: if the edit has a step that the vector does not have.
    """
    if edit.steps is None:
        return "constant"
    first, last = edit.steps
    if not first <= last < n_steps:
        raise UserError(
            f"The steps of '{edit.pack}' must be from 0 to {n_steps - 1}, the lower one first; got {first} to {last}."
        )
    return tuple(float(first <= step <= last) for step in range(n_steps))


def _feature(study: Study, request: LabRequest, edit: FeatureEdit) -> tuple[Edit, ...]:  # noqa: ARG001
    sae = _sae(study, edit.sae)
    how = {"mode": edit.mode, "ignore_gate": edit.ignore_gate, **_window(edit)}
    return (edit_features(sae, edit.feature, _sites(study, edit), edit.strength, **how),)  # type: ignore[arg-type]


_BUILDERS: dict[type[LabEdit], Callable[..., tuple[Edit, ...]]] = {
    PatchEdit: _patch,
    AblateEdit: _ablate,
    SteerEdit: _steer,
    FeatureEdit: _feature,
}


def _sites(study: Study, edit: LabEdit) -> list[str]:
    if not edit.sites:
        raise UserError(f"The edit '{edit.kind}' must have at least one site, such as tf3.cross_attn.")
    return [numbered_site(site, study.block_names) for site in edit.sites]


def _window(edit: PatchEdit | AblateEdit | FeatureEdit) -> WindowOptions:
    return {"steps": edit.steps, "tokens": edit.tokens}


def _vector(study: Study, name: str) -> Vector:
    file = find_pack(study.path, name)
    if file not in pack_files(study.path):
        have = ", ".join(each.stem for each in pack_files(study.path)[:12]) or "none yet"
        raise UserError(f"{study.path} has no steering vector '{name}' (it has {have}).")
    return _loaded_vector(file, study.path, file_version(file))


def _sae(study: Study, name: str) -> SAE:
    config = sae_folder(study, name) / CONFIG_FILE
    if name not in study.files("sae", "") or not config.is_file():
        return load_sae(study, name)  # raises the sentence on what there is
    return _loaded_sae(study, name, file_version(config))


@lru_cache(maxsize=32)
def _loaded_vector(file: Path, root: Path, version: tuple[int, int, int]) -> Vector:
    del version  # only part of the key: a changed file is read again
    return load_vector(file, root)


@lru_cache(maxsize=4)
def _loaded_sae(study: Study, name: str, version: tuple[int, int, int]) -> SAE:
    del version
    return load_sae(study, name)
