"""The engine's edits of what the lab is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from analyses.lab.request import AblateEdit, FeatureEdit, LabEdit, PatchEdit, SteerEdit, schedule
from analyses.sae.names import check_has, has_sae, load_sae, sae_folder
from analyses.steering.study_files import find_pack, pack_files
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from workbench.engine.edits import Edit, ablate, edit_features, patch
from workbench.engine.edits.window import WindowOptions
from workbench.engine.runs import Clip
from workbench.engine.sites import numbered_site
from workbench.files import file_version
from workbench.sae.base import SAE
from workbench.studies.study import Study

MOST_LISTED = 12


def edits_of(
    edits: Sequence[LabEdit], clip: Clip, study: Path | None, block_names: Sequence[str] = ()
) -> tuple[Edit, ...]:
    """Return the edits that are on, in their order, for a clip, with the vectors and autoencoders of a study's folder.

    Raises:
        UserError: for a site that cannot exist, an edit that contradicts itself, a vector or an autoencoder that the
            study does not have, or one of a closed gate.
    """
    place = _Place(clip, study, block_names)
    return tuple(each for edit in edits if edit.on for each in _BUILDERS[type(edit)](place, edit))


@dataclass(frozen=True)
class _Place:
    """What edits are made for: the clip, the study that they name things of, and the names of the model's blocks."""

    clip: Clip
    folder: Path | None
    block_names: Sequence[str]

    def other(self, prompt: str) -> Clip:
        """Return the clip of another prompt, with the same noise and lyrics."""
        return Clip(prompt, self.clip.seed, self.clip.lyrics)

    def sites(self, edit: LabEdit) -> list[str]:
        """Return the sites of an edit by the numbers of their blocks."""
        if not edit.sites:
            raise UserError(f"The edit '{edit.kind}' must have at least one site, such as tf3.cross_attn.")
        return [numbered_site(site, self.block_names) for site in edit.sites]

    @property
    def study(self) -> Path:
        """The folder of the study."""
        if self.folder is None:
            raise UserError("An edit names a vector or an autoencoder of a study. Give the study (--study).")
        return self.folder


def _patch(place: _Place, edit: PatchEdit) -> tuple[Edit, ...]:
    source = place.other(edit.prompt)
    window: WindowOptions = {**_window(edit), "segments": edit.segments}
    return (patch(place.sites(edit), source, target=edit.target, **window),)


def _ablate(place: _Place, edit: AblateEdit) -> tuple[Edit, ...]:
    if edit.method != "zero" and not edit.prompt.strip():
        raise UserError(
            f"The ablation '{edit.method}' takes its values from another prompt. Give that prompt."
        )
    source = () if edit.method == "zero" else place.other(edit.prompt)
    return (ablate(place.sites(edit), edit.method, source, **_window(edit)),)


def _steer(place: _Place, edit: SteerEdit) -> tuple[Edit, ...]:
    vector = _vector(place.study, edit.pack)
    vector = vector.only(place.sites(edit)) if edit.sites else vector
    return vector.at(
        edit.strength,
        unit=edit.unit,
        schedule=schedule(edit, len(vector.sigmas)),
        tokens=edit.tokens,
        ignore_gate=edit.ignore_gate,
    )


def _feature(place: _Place, edit: FeatureEdit) -> tuple[Edit, ...]:
    return (
        edit_features(
            _sae(place.study, edit.sae),
            edit.feature,
            place.sites(edit),
            edit.strength,
            mode=edit.mode,
            ignore_gate=edit.ignore_gate,
            **_window(edit),
        ),
    )


_BUILDERS: dict[type[LabEdit], Callable[..., tuple[Edit, ...]]] = {
    PatchEdit: _patch,
    AblateEdit: _ablate,
    SteerEdit: _steer,
    FeatureEdit: _feature,
}


def _window(edit: PatchEdit | AblateEdit | FeatureEdit) -> WindowOptions:
    return {"steps": edit.steps, "tokens": edit.tokens}


def _vector(study: Path, name: str) -> Vector:
    file, files = find_pack(study, name), pack_files(study)
    if file not in files:
        have = ", ".join(each.stem for each in files[:MOST_LISTED]) or "none yet"
        raise UserError(f"{study} has no steering vector '{name}' (it has {have}).")
    return _loaded_vector(file, study, file_version(file))


def _sae(study: Path, name: str) -> SAE:
    opened = Study.open(study)
    check_has(opened, name)
    version = file_version(sae_folder(opened, name)) if has_sae(opened, name) else (0, 0, 0)
    return _loaded_sae(study, name, version)


@lru_cache(maxsize=32)
def _loaded_vector(file: Path, root: Path, version: tuple[int, int, int]) -> Vector:
    del version  # only part of the key: a changed file is read again
    return load_vector(file, root)


@lru_cache(maxsize=4)
def _loaded_sae(study: Path, name: str, version: tuple[int, int, int]) -> SAE:
    del version
    return load_sae(Study.open(study), name)
