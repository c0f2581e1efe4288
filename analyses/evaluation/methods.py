"""The methods of an evaluation, computed at some sites and kept in the study, as ways of steering."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from analyses.evaluation.benchmark_spec import Place, way_name
from analyses.sae.names import saes_of_sites
from analyses.steering.asking import fit_vectors, prompt_method
from analyses.steering.clip_stream import Progress
from analyses.steering.concept_slider import concept_slider
from analyses.steering.fit_state import fit_state
from analyses.steering.prompt_method import NEGATIVE, POSITIVE
from analyses.steering.run import Way
from analyses.steering.slider import Slider, load_slider
from analyses.steering.study_files import pack_file, slider_file
from analyses.steering.study_packs import save_pack
from analyses.steering.token_embedding import TokenEmbedding, token_embedding
from analyses.steering.vector import Vector, load_vector
from workbench.engine.edits import Edit
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import content_hash
from workbench.sae.gate import gate_of
from workbench.studies.study import Study

FEATURES = 8
"""SAE features of each site, pass and step."""
FULL_OF_VECTORS = 4.0
"""The full strength of vectors, in mean differences, or in other vectors of CAA's mean norm."""
FULL_OF_SLIDERS = 4.0
FULL_OF_PROMPTS = 2.0
"""The full strength of methods that steer through the prompt; of 1 is the whole way, at all blocks. PCI has steps."""
FLOOR = 1e-4
"""Part of the full strength at which next to nothing is added, to see the noise of the computation."""

Note = Callable[[str], None]

# Of each method that gives a vector: the method that computes it, its own options, and the latents of its pairs.
_VECTORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "caa": ("caa", {}, "own"),
    "caa-same-latents": ("caa", {}, "positive"),
    "caa-by-token": ("caa", {"time": "token"}, "positive"),
    "austeer": ("austeer", {}, "own"),
    "sae-features": ("sae-features", {"k": FEATURES}, "own"),
    "probe": ("probe", {}, "own"),
}
_IN_DIFFERENCES = {"caa", "caa-same-latents", "caa-by-token"}


@dataclass(frozen=True)
class Fitting:
    """What the methods of an evaluation are computed for: a concept at some sites, from pairs without some prompts.

    The sites are at a `place`, such as "localised". `held_out` are the prompts of the evaluation.
    """

    concept: str
    positive: str
    negatives: tuple[str, ...]
    place: Place
    sites: tuple[str, ...]
    pairs: int
    held_out: frozenset[str]
    iterations: int
    learning_rate: float

    @property
    def identity(self) -> str:
        """A hash of everything that determines what is computed from a study, except the method."""
        return content_hash({**self.__dict__, "held_out": sorted(self.held_out)}, 8)

    @property
    def negative(self) -> str:
        """The negative value as methods take it: "" for several."""
        return self.negatives[0] if len(self.negatives) == 1 else ""

    def name(self, method: str) -> str:
        """Return the name under which the study keeps a method's vector or slider."""
        return f"evaluate-{self.concept}-{method}-{self.place}-{self.identity}"


@dataclass(frozen=True)
class Cell:
    """A method at a place: its edits at a strength, and its full strength in its own unit.

    `in_steps` says that strengths are whole numbers of steps.
    """

    method: str
    place: Place
    at: Callable[[float], Sequence[Edit]]
    full: float
    in_steps: bool = False

    @property
    def name(self) -> str:
        """The name that results show."""
        return way_name(self.method, self.place)

    def way(self, parts: Sequence[float], sign: int) -> Way:
        """Return it as a way of steering at parts of its full strength, above 0 (`sign` 1) or below it (-1)."""
        strengths = [sign * part * self.full for part in parts]
        if self.in_steps:
            strengths = [float(round(strength)) for strength in strengths]
        return Way(self.name, self.at, tuple(dict.fromkeys(filter(None, strengths))))

    def floor(self, sign: int) -> Way:
        """Return it at next to no strength."""
        return Way(f"{self.name}, next to 0", self.at, (sign * FLOOR * self.full,), is_floor=True)


def cells(
    study: Study,
    model: AudioDiffusionModel,
    methods: Sequence[str],
    fitting: Fitting,
    note: Note,
    progress: Progress | None = None,
) -> tuple[list[Cell], Vector | None]:
    """Return each method at a place, and the vector of CAA there, if any method needs it.

    Vectors and sliders are computed unless the study has them. A method that the study lacks something for is left
    out, and `note` is called with a sentence that says so.

    Raises:
        UserError: as the methods do.
    """
    methods = _possible(study, methods, fitting, note)
    vectors = _vectors(study, model, methods, fitting, note, progress)
    found = [_cell(study, model, method, fitting, vectors, progress) for method in methods]
    return found, vectors.get("caa")


def _possible(study: Study, methods: Sequence[str], fitting: Fitting, note: Note) -> list[str]:
    """Return the methods without SAE features, if a site lacks an autoencoder, or one may not be used at some step."""
    reason = _no_features(study, fitting) if "sae-features" in methods else ""
    if not reason:
        return list(methods)
    note(f"sae-features is left out at the blocks '{fitting.place}': {reason}")
    return [method for method in methods if method != "sae-features"]


def _no_features(study: Study, fitting: Fitting) -> str:
    """Return why features of the study's autoencoders cannot be taken at the sites, as a sentence, or ""."""
    saes = saes_of_sites(study, fitting.sites)
    for site in fitting.sites:
        if site not in saes:
            return f"the study has no sparse autoencoder of {site}."
        name, sae = saes[site]
        gate = gate_of(sae)
        closed = next(gate.closed, None) if gate is not None else None
        if closed is not None:
            step, _, why = closed
            return f"the autoencoder {name} may not be used at step {step}: {why}."
    return ""


def _vectors(
    study: Study,
    model: AudioDiffusionModel,
    methods: Sequence[str],
    fitting: Fitting,
    note: Note,
    progress: Progress | None,
) -> dict[str, Vector]:
    """Return the vectors of methods, and CAA's, to whose norm others are scaled; compute those that are missing."""
    asked = [method for method in _VECTORS if method in methods]
    if set(asked) - _IN_DIFFERENCES and "caa" not in asked:
        asked.insert(0, "caa")
    files = {method: pack_file(study.path, fitting.name(method)) for method in asked}
    for latents in ("own", "positive"):
        missing = [
            method for method in asked if _VECTORS[method][2] == latents and not files[method].exists()
        ]
        if not missing:
            continue
        with fit_state(study, "vector", fitting.name(missing[0]), note) as state:
            made = fit_vectors(
                study,
                model,
                [_with_options(model, method, fitting) for method in missing],
                fitting.concept,
                fitting.sites,
                positive=fitting.positive,
                negative=fitting.negative,
                held_out=fitting.held_out,
                pairs=fitting.pairs,
                latents=latents,
                progress=progress,
                state=state,
            )
            for method, vector in zip(missing, made, strict=True):
                save_pack(study.path, fitting.name(method), vector)
    return {method: load_vector(file, root=study.path) for method, file in files.items()}


def _with_options(model: AudioDiffusionModel, method: str, fitting: Fitting) -> tuple[str, Mapping[str, Any]]:
    """Return the method that computes a vector, and its own options; AUSteer moves half of all channels."""
    name, own, _ = _VECTORS[method]
    if name == "austeer":
        own = {"k": sum(map(model.channels, map(Site.parse, fitting.sites))) // 2}
    return name, own


def _cell(
    study: Study,
    model: AudioDiffusionModel,
    method: str,
    fitting: Fitting,
    vectors: Mapping[str, Vector],
    progress: Progress | None,
) -> Cell:
    """Return a method at the place."""
    place = fitting.place
    if method in vectors:
        vector = vectors[method]
        if method in _IN_DIFFERENCES:
            return Cell(method, place, vector.at, FULL_OF_VECTORS)
        ratio = mean_norm(vectors["caa"]) / mean_norm(vector)
        return Cell(method, place, lambda strength: vector.at(strength * ratio), FULL_OF_VECTORS)
    if method == "concept-slider":
        return Cell(method, place, _slider(study, model, fitting, progress).at, FULL_OF_SLIDERS)
    if method == "token-embedding":
        embedding = _embedding(study, model, fitting)
        return Cell(method, place, partial(_at_other_words, embedding), FULL_OF_PROMPTS)
    blocks = "+".join(f"tf{Site.parse(site).block}" for site in fitting.sites)
    through = prompt_method(study, model, method, fitting.concept, blocks, fitting.positive, fitting.negative)
    if method == "pci":
        return Cell(method, place, through.at, float(study.spec.settings.num_steps), in_steps=True)
    return Cell(method, place, through.at, FULL_OF_PROMPTS)


def _embedding(study: Study, model: AudioDiffusionModel, fitting: Fitting) -> TokenEmbedding:
    """Return the token embedding of the sites."""
    return token_embedding(
        model,
        fitting.concept,
        fitting.sites,
        positive=fitting.positive,
        negative=fitting.negative,
        prompts=study.spec.prompts,
        held_out=fitting.held_out,
        pairs=fitting.pairs,
        settings=study.spec.settings,
    )


def _at_other_words(embedding: TokenEmbedding, strength: float) -> Sequence[Edit]:
    """Return the edits at the words that differ from the real prompt, which has the value that is steered towards."""
    return embedding.at(strength, positive=POSITIVE if strength > 0 else NEGATIVE)


def _slider(study: Study, model: AudioDiffusionModel, fitting: Fitting, progress: Progress | None) -> Slider:
    """Return the concept slider of the sites; train it, unless the study has it."""
    file = slider_file(study.path, fitting.name("concept-slider"))
    if not file.exists():
        concept_slider(
            model,
            fitting.concept,
            fitting.sites,
            positive=fitting.positive,
            negative=fitting.negative,
            prompts=study.spec.prompts,
            held_out=fitting.held_out,
            pairs=fitting.pairs,
            iterations=fitting.iterations,
            learning_rate=fitting.learning_rate,
            settings=study.spec.settings,
            checkpoints=file.with_suffix(".training"),
            progress=progress,
        ).save(file, study.path)
    return load_slider(file, root=study.path)


def mean_norm(vector: Vector) -> float:
    """Return the mean norm over sites, passes and steps."""
    return float(np.mean([norms.values.mean() for norms in vector.norms.values()]))
