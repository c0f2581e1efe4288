"""A concept slider: low-rank changes of a network's weights that turn a concept up or down, and its file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from analyses.steering.files import damaged, read_file
from analyses.steering.header import Line, ModelEntry, Sigmas, Strict, check_ends, content_of
from analyses.steering.schedule import Over, Schedule, scheduled
from cache.errors import UserError
from cache.protocol import Pass
from cache.wording import printable
from workbench.artefacts.lora import CONFIGURATION, read_lora
from workbench.documents import parse_document
from workbench.engine.edits import Edit, low_rank
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import LINEAR_PARTS, Site
from workbench.engine.tensors import HashedTensor
from workbench.models.base import AudioDiffusionModel
from workbench.tensor_files import write_tensors
from workbench.validation import Number, distinct, must_be, validated

_FILE = "A slider's file must be given by its path, such as 'sliders/mood.safetensors'"
VERSION = 2
_HEADER: Final = "concept_slider"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
UNUSED = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Modules of ACE-Step v1's cross-attentions that published LoRAs change and that compute nothing."""


@dataclass(frozen=True)
class Factors:
    """The change `up @ down` of a linear module's weight, and the module's name in the network.

    The factors are down (rank, in) and up (out, rank).
    """

    module: str
    down: HashedTensor
    up: HashedTensor

    @property
    def rank(self) -> int:
        """The rank of the change."""
        return len(self.down.value)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The factors by the names that PEFT and diffusers give them."""
        return {
            f"{self.module}{_DOWN}": self.down.value.numpy(),
            f"{self.module}{_UP}": self.up.value.numpy(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Slider:
    """Low-rank changes of weights from the `negative` value of a concept to its `positive` one.

    `factors` are those of each site's linear module (see `workbench.engine.edits.low_rank`). A strength of 1 adds
    `alpha / rank` times their product to the weight. The slider is valid for the weights of the `model` that it was
    trained on (its `describe()`); None if they are unknown, as those of published ones: any model with such modules
    then accepts it. `settings` are those that it was trained with, and `sigmas` their steps, to which only strengths on
    a schedule are bound. `training` is what else is known of its making: for sliders of `concept_slider` its options,
    prompts and losses.
    """

    method: ClassVar[str] = "concept_slider"

    concept: str
    positive: str
    negative: str
    factors: Mapping[str, Factors]
    alpha: float
    model: Mapping[str, Any] | None
    settings: GenerationSettings
    sigmas: tuple[float, ...]
    training: Mapping[str, Any]

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose linear modules it changes."""
        return tuple(self.factors)

    @property
    def rank(self) -> int:
        """The rank of the changes."""
        return next(iter(self.factors.values())).rank

    def at(
        self,
        strength: float,
        *,
        passes: Sequence[Pass] | None = None,
        schedule: Schedule = "constant",
        over: Over = "steps",
        start_step: int = 0,
    ) -> tuple[Edit, ...]:
        """Return edits that change the weights by `strength` times the slider, for the run that has them only.

        A model with other weights than the slider's refuses them. With a strength of 0 there are none.

        Args:
            strength: the weight of the LoRA; negative towards the `negative` value.
            passes: the passes with changed weights; by default all, as a LoRA has it.
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step with changed weights.

        Raises:
            UserError: for an unknown schedule, a strength that is not finite, or a first step beyond the last one.
        """
        stretches = scheduled(strength, self.sigmas, schedule, over, start_step)
        throughout = len(stretches) == 1 and stretches[0][0] == (0, len(self.sigmas) - 1)
        made_on = None if self.model is None else (self.model["model"], self.model["weights_hash"])
        everywhere: Any = {} if passes is None else {"passes": passes}
        edits = []
        for site, each in self.factors.items():
            for steps, weight in stretches:
                window = everywhere if throughout else {**everywhere, "steps": steps}
                scaled = weight * self.alpha / each.rank
                edits.append(low_rank(each.down, each.up, site, scaled, **window))
        made_at = None if throughout else self.sigmas
        return tuple(replace(edit, made_on=made_on, made_at=made_at) for edit in edits)

    def save(self, path: str | os.PathLike[str], root: Path | None = None) -> Path:
        """Write the slider as a safetensors file, which `load_slider` reads.

        Its factors have the names that PEFT and diffusers give them (`<module>.lora_A.weight`, `.lora_B.weight`), and
        its metadata has PEFT's configuration: diffusers' `load_lora_adapter` reads it with `use_safetensors=True`.

        Args:
            path: the file. Missing folders are created, and an existing file is replaced.
            root: the study's folder, if the file is in a study; links between the two are not followed.

        Returns:
            The path.

        Raises:
            UserError: if the slider contradicts itself, so that `load_slider` would refuse it, or the file cannot be
                written; an existing file is then unchanged.
        """
        must_be((str, os.PathLike), path, _FILE)
        file = Path(path)
        arrays = {name: array for each in self.factors.values() for name, array in each.arrays.items()}
        values = {
            **{name: getattr(self, name) for name in _PLAIN},
            "version": VERSION,
            "modules": {site: each.module for site, each in self.factors.items()},
            "rank": self.rank,
            "content": "",
        }
        header = validated(_Header, values, f"The slider cannot be written to {file}").model_dump(mode="json")
        header["content"] = content_of(header, arrays)
        config = {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(header["modules"].values()),
        }
        metadata = {_HEADER: json.dumps(header, ensure_ascii=False), CONFIGURATION: json.dumps(config)}
        write_tensors(file, arrays, metadata, root)
        return file

    def __repr__(self) -> str:
        ends = f"{self.concept}: + is {self.positive}, − is {self.negative}"
        model = "a model of unknown weights" if self.model is None else self.model["model"]
        return printable(f"Slider({ends}; rank {self.rank} at {', '.join(self.sites)} of {model})")


class _Header(Strict):
    """What the file of a slider says beside its arrays; `modules` are by site, `content` is a hash of both."""

    version: Literal[2]
    concept: Line
    positive: Line
    negative: Line
    modules: dict[str, Line] = Field(min_length=1)
    rank: int = Field(ge=1)
    alpha: Number = Field(gt=0)
    model: ModelEntry | None
    settings: GenerationSettings
    sigmas: Sigmas
    training: dict[str, Any]
    content: str

    @field_validator("modules")
    @classmethod
    def _once(cls, modules: dict[str, str]) -> dict[str, str]:
        distinct(tuple(modules.values()))
        return modules

    @field_validator("training")
    @classmethod
    def _trained(cls, training: dict[str, Any]) -> dict[str, Any]:
        prompts, iterations = training.get("prompts", []), training.get("iterations", 1)
        if not isinstance(prompts, list) or not all(map(_is_pair, prompts)):
            raise ValueError("its prompts must be pairs of texts")
        if type(iterations) is not int or iterations < 1:
            raise ValueError("its iterations must be a whole number of at least 1")
        return training

    @model_validator(mode="after")
    def _agreeing(self) -> "_Header":
        check_ends(self.positive, self.negative)
        steps = self.settings.num_steps
        if len(self.sigmas) != steps:
            raise ValueError(f"it has {len(self.sigmas)} sigmas, but settings.num_steps is {steps}")
        return self


def _is_pair(prompts: Any) -> bool:
    return isinstance(prompts, list) and len(prompts) == 2 and all(isinstance(text, str) for text in prompts)


_PLAIN = ("concept", "positive", "negative", "alpha", "model", "settings", "sigmas", "training")


def load_slider(path: str | os.PathLike[str], root: Path | None = None) -> Slider:
    """Load a slider that `Slider.save` wrote; see there for `root`.

    Raises:
        UserError: if the file does not exist, is damaged, or is not a slider.
    """
    must_be((str, os.PathLike), path, _FILE)
    file = Path(path)
    arrays, text = read_file(file, _HEADER, root)
    try:
        document = parse_document(text)
        header = validated(_Header, document, "its header is incomplete or wrong")
        if header.content != content_of(document, arrays):
            raise ValueError("its content is not what was written")
        return _slider(header, arrays)
    except (ValueError, UserError) as error:
        raise damaged(file, _HEADER, str(error)) from error


def _slider(header: _Header, arrays: Mapping[str, np.ndarray]) -> Slider:
    """Combine a header with its arrays; raise ValueError or UserError unless they fit together."""
    if arrays.keys() != {f"{module}{end}" for module in header.modules.values() for end in (_DOWN, _UP)}:
        raise ValueError("its arrays are not those of its modules")
    factors = {}
    for site, module in header.modules.items():
        each = _factors(module, arrays[f"{module}{_DOWN}"], arrays[f"{module}{_UP}"])
        low_rank(each.down, each.up, site)  # raises for other sites and shapes
        if each.rank != header.rank:
            raise ValueError(f"the change at {site} has rank {each.rank}, not {header.rank}")
        factors[site] = each
    return Slider(**{name: getattr(header, name) for name in _PLAIN}, factors=factors)


def _factors(module: str, down: np.ndarray, up: np.ndarray) -> Factors:
    return Factors(module, HashedTensor.of(down), HashedTensor.of(up))


def published_slider(
    model: AudioDiffusionModel,
    source: str,
    concept: str = "",
    *,
    settings: GenerationSettings | None = None,
) -> Slider:
    """Load a published LoRA of the model's network (`pytorch_lora_weights.safetensors` with `train_config.json`).

    Args:
        model: the model that it will steer.
        source: a folder, a file or a hub id.
        concept: its concept, if its settings do not say it; one of TADA's.
        settings: generation settings whose steps a schedule of strengths refers to.

    Raises:
        UserError: if the files are missing or damaged, or the LoRA has no module of this model, other modules, or
            modules of another size.
    """
    must_be(AudioDiffusionModel, model, "A LoRA is loaded for a model, such as wb.load('ace-step-v1')")
    settings = settings_or_default(settings)
    model.check_settings(settings)
    read = read_lora(source, concept)
    sites = linear_sites(model)
    factors = {
        str(sites[module]): _factors(module, read.down[module], read.up[module])
        for module in _known_modules(list(read.down), sites, model, source)
    }
    for site, each in factors.items():
        linear = model.linear(Site.parse(site))
        edit = low_rank(each.down, each.up, site)
        edit.parameters.check_weight(Site.parse(site), linear.out_features, linear.in_features)
    return Slider(
        concept=read.concept.name,
        positive=read.concept.positive,
        negative=read.concept.negative,
        factors=dict(sorted(factors.items(), key=lambda item: Site.parse(item[0]).order)),
        alpha=read.alpha,
        model=None,
        settings=settings,
        sigmas=tuple(model.sigmas(settings)),
        training={"settings": read.origin.settings, "source": source, "sha256": read.origin.sha256},
    )


def linear_sites(model: AudioDiffusionModel) -> dict[str, Site]:
    """Return the sites whose weights can be changed, by the name of their module in the network."""
    names = {module: name for name, module in model.denoiser.named_modules()}
    return {names[model.linear(site)]: site for site in model.sites() if site.part in LINEAR_PARTS}


def _known_modules(
    modules: Sequence[str], sites: Mapping[str, Site], model: AudioDiffusionModel, source: str
) -> list[str]:
    """Return the modules that have sites; raise UserError if there are none, or others that compute something."""
    own = {name for name, _ in model.denoiser.named_modules()}
    unused = [name for name in modules if name in own and name.rpartition(".")[2] in UNUSED]
    known = [name for name in modules if name in sites]
    example = next(iter(sites))
    if not known:
        raise UserError(
            f"{source} has no module of {model.name}, whose modules have names like {example}; it has "
            f"{modules[0][:80]}. Use a LoRA of this model."
        )
    others = [name for name in modules if name not in sites and name not in unused]
    if others:
        raise UserError(
            f"{source} changes {len(others)} modules that {model.name} lacks or that cannot be changed, such as "
            f"{others[0][:80]}; those that can have names like {example}. Use a LoRA of this model."
        )
    return known
