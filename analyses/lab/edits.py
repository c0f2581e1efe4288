"""The engine's edits of what the lab is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from analyses.lab.facts import ModelFacts
from analyses.lab.request import (
    AblateEdit,
    FeatureEdit,
    LabEdit,
    PatchEdit,
    PromptEdit,
    SliderEdit,
    SteerEdit,
    check_steps,
    schedule,
)
from analyses.sae.names import check_has, has_sae, load_sae, sae_folder
from analyses.steering.free_sliders import FreeSliders
from analyses.steering.pci import PCI
from analyses.steering.prompt_method import EVERYWHERE, numbered_cross_attentions
from analyses.steering.slider import Slider, load_slider
from analyses.steering.study_files import find_pack, pack_files, slider_file, slider_files
from analyses.steering.text_embedding import TextEmbedding
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from workbench.engine.edits import Edit, ablate, edit_features, patch
from workbench.engine.edits.window import WindowOptions
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site, check_blocks, check_wildcards, numbered_site, parse_sites
from workbench.files import file_version
from workbench.sae.base import SAE
from workbench.studies.study import Study

MOST_LISTED = 12


class NeedsModel(UserError):
    """Edits that depend on the model's number of blocks or its steps, which are not known before it is loaded."""


@dataclass(frozen=True)
class Place:
    """What edits are made for: the clip and its settings, and where their vectors and autoencoders are.

    `folder` is that of the study that they name things of, if any, and `block_names` are the names of the model's
    blocks. Some edits need `facts` of the model: those at every block, and those of which the steps' sigmas are a part.
    """

    clip: Clip
    settings: GenerationSettings
    folder: Path | None
    block_names: Sequence[str]
    facts: ModelFacts | None = None

    def other(self, prompt: str) -> Clip:
        """Return the clip of another prompt, with the same noise and lyrics."""
        return Clip(prompt, self.clip.seed, self.clip.lyrics)

    def sites(self, edit: PatchEdit | AblateEdit | FeatureEdit | PromptEdit) -> list[str]:
        """Return the sites of an edit by the numbers of their blocks."""
        if not edit.sites:
            raise UserError(f"The edit '{edit.kind}' must have at least one site, such as tf3.cross_attn.")
        check_wildcards(edit.sites)
        if any(site.startswith("*.") for site in edit.sites):
            return list(map(str, parse_sites(edit.sites, self.known.n_blocks, self.block_names)))
        sites = [Site.parse(numbered_site(site, self.block_names)) for site in edit.sites]
        if n_blocks := self.facts.n_blocks if self.facts else len(self.block_names):
            check_blocks([site.block for site in sites], n_blocks)
        return list(map(str, sites))

    @property
    def study(self) -> Path:
        """The folder of the study."""
        if self.folder is None:
            raise UserError(
                "An edit names a vector, a slider or an autoencoder of a study. Give the study (--study)."
            )
        return self.folder

    @property
    def known(self) -> ModelFacts:
        """The facts of the model; raise NeedsModel if there are none."""
        if self.facts is None:
            raise NeedsModel("An edit depends on the model, which is not loaded yet. Render the clip.")
        return self.facts

    def cross_attentions(self, sites: Sequence[str]) -> tuple[str, ...]:
        """Return sites in order of computation; raise UserError unless all are cross-attentions."""
        return numbered_cross_attentions(sites, self.known.n_blocks, self.block_names)


def edits_of(edits: Sequence[LabEdit], place: Place) -> tuple[Edit, ...]:
    """Return the edits that are on, in their order.

    Raises:
        NeedsModel: if one depends on the model, and the place has no facts of it.
        UserError: for a site that cannot exist, an edit that contradicts itself, a vector, a slider or an autoencoder
            that the study does not have, or one of a closed gate.
    """
    active = [edit for edit in edits if edit.on]
    for edit in active:
        check_steps(edit, place.settings.num_steps)
    return tuple(each for edit in active for each in _BUILDERS[type(edit)](place, edit))


def _patch(place: Place, edit: PatchEdit) -> tuple[Edit, ...]:
    source = place.other(edit.prompt)
    window: WindowOptions = {**_window(edit), "segments": edit.segments}
    return (patch(place.sites(edit), source, target=edit.target, **window),)


def _ablate(place: Place, edit: AblateEdit) -> tuple[Edit, ...]:
    if edit.method != "zero" and not edit.prompt.strip():
        raise UserError(
            f"The ablation '{edit.method}' takes its values from another prompt. Give that prompt."
        )
    source = () if edit.method == "zero" else place.other(edit.prompt)
    return (ablate(place.sites(edit), edit.method, source, **_window(edit)),)


def _steer(place: Place, edit: SteerEdit) -> tuple[Edit, ...]:
    vector = _vector(place.study, edit.pack)
    vector = vector.only(edit.sites) if edit.sites else vector
    if edit.resample:
        vector = vector.resampled(place.known.sigmas)
    return vector.at(
        edit.strength,
        unit=edit.unit,
        passes=edit.passes,
        operation=edit.operation,
        keep_norm=edit.keep_norm,
        schedule=schedule(edit, len(vector.sigmas)),
        tokens=edit.tokens,
        ignore_gate=edit.ignore_gate,
    )


def _slider(place: Place, edit: SliderEdit) -> tuple[Edit, ...]:
    slider = _named_slider(place.study, edit.slider)
    return slider.at(edit.strength, schedule=schedule(edit, len(slider.sigmas)))


def _prompt(place: Place, edit: PromptEdit) -> tuple[Edit, ...]:
    positive, negative = place.other(edit.positive), place.other(edit.negative)
    method = _prompt_method(place, edit)
    if isinstance(method, PCI):
        if edit.steps is not None:
            raise UserError("The strength of pci is its number of last steps. Leave its steps empty.")
        return method.at(edit.strength, positive=positive, negative=negative)
    course = schedule(edit, place.settings.num_steps)
    return method.at(edit.strength, positive=positive, negative=negative, schedule=course)


def _prompt_method(place: Place, edit: PromptEdit) -> PCI | TextEmbedding | FreeSliders:
    common: dict[str, Any] = {
        "concept": "",
        "positive": edit.positive,
        "negative": edit.negative,
        "sites": place.cross_attentions(place.sites(edit)),
        "sigmas": place.known.sigmas,
    }
    if edit.method == "pci":
        return PCI(**common)
    if edit.method == "text-embedding":
        return TextEmbedding(**common)
    others = (site for site in place.cross_attentions((EVERYWHERE,)) if site not in common["sites"])
    return FreeSliders(**common, others=tuple(others))


def _feature(place: Place, edit: FeatureEdit) -> tuple[Edit, ...]:
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
    SliderEdit: _slider,
    PromptEdit: _prompt,
    FeatureEdit: _feature,
}


def _window(edit: PatchEdit | AblateEdit | FeatureEdit) -> WindowOptions:
    return {"steps": edit.steps, "tokens": edit.tokens}


def _vector(study: Path, name: str) -> Vector:
    file = _found(find_pack(study, name), pack_files(study), study, f"steering vector '{name}'")
    return _loaded_vector(file, study, file_version(file))


def _named_slider(study: Path, name: str) -> Slider:
    file = _found(slider_file(study, name), slider_files(study), study, f"concept slider '{name}'")
    return _loaded_slider(file, study, file_version(file))


def _found(file: Path, files: Sequence[Path], study: Path, what: str) -> Path:
    """Return a file that is one of a study's `files`; raise UserError, with those that it has, if it is not."""
    if file not in files:
        have = ", ".join(each.stem for each in files[:MOST_LISTED]) or "none yet"
        raise UserError(f"{study} has no {what} (it has {have}).")
    return file


def _sae(study: Path, name: str) -> SAE:
    opened = Study.open(study)
    check_has(opened, name)
    version = file_version(sae_folder(opened, name)) if has_sae(opened, name) else (0, 0, 0)
    return _loaded_sae(study, name, version)


@lru_cache(maxsize=32)
def _loaded_vector(file: Path, root: Path, version: tuple[int, int, int]) -> Vector:
    del version  # only part of the key: a changed file is read again
    return load_vector(file, root)


@lru_cache(maxsize=8)
def _loaded_slider(file: Path, root: Path, version: tuple[int, int, int]) -> Slider:
    del version
    return load_slider(file, root)


@lru_cache(maxsize=4)
def _loaded_sae(study: Path, name: str, version: tuple[int, int, int]) -> SAE:
    del version
    return load_sae(Study.open(study), name)
