"""Studies in Python and in notebooks: each command on a study as a method that returns something to look at."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
import xarray as xr

from analyses.evaluation.benchmark import asked_benchmark, run_benchmark
from analyses.evaluation.benchmark_spec import BenchmarkSpec
from analyses.evaluation.feature_effects import asked_effects, run_effects
from analyses.evaluation.sae import asked_evaluation, evaluate_sae
from analyses.evaluation.spec import EffectsSpec, EvaluationSpec
from analyses.patching.asking import asked_spec, tensors_beside
from analyses.patching.run import run_patching, settled
from analyses.patching.spec import DEFAULT_QUESTION, PatchingSpec
from analyses.probes.run import asked_probes, run_probes
from analyses.probes.spec import ProbeSpec
from analyses.sae.names import PREFIX, load_sae
from analyses.sae.run import asked_trainings, run_saes, trained_names
from analyses.sae.spec import TrainSettings
from analyses.steering.asking import Steering, check_name
from analyses.steering.fit_state import fit_state
from analyses.steering.judging import STRENGTHS, judged
from analyses.steering.run import Way, run_steering
from analyses.steering.slider import Slider
from analyses.steering.trials import asked_ladder, asked_trial, rungs_of_ladder, ways_of_trial
from analyses.steering.vector import Vector
from analyses.steering_spec import SteeringSpec
from cache.errors import UserError
from dashboards import figures
from dashboards.export import export_figure
from dashboards.formats import DEFAULT_FORMAT, FileFormat
from dashboards.results import is_usable, load_result, remove_unusable
from dashboards.signatures import takes
from dashboards.summaries import (
    benchmark_summary,
    effects_summary,
    evaluation_summary,
    patching_summary,
    probes_summary,
    published_summary,
    sae_summary,
    steering_summary,
)
from workbench.cli.console import note, progress, progress_of_parts
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import numbered_site
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.defaults import PROMPT_SET
from workbench.prompts.prompt_sets import PromptSet
from workbench.sae.base import SAE
from workbench.sae.settings import SETTINGS
from workbench.studies.planning import plan_study, words_unknown
from workbench.studies.request import StudyRequest
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study
from workbench.validation import must_be

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A result of a study, in memory as `data` (docs/reference/results.md describes each kind).

    A notebook shows its summary table.
    """

    study: Study
    name: str
    data: xr.Dataset

    def table(self) -> pd.DataFrame:
        """The summary table that the command prints.

        Raises:
            UserError: this kind of result has none.
        """
        kind = str(self.data.attrs["kind"])
        if kind not in _SUMMARIES:
            raise UserError(f"Results of kind '{kind}' have no summary table: use `data`.")
        return _SUMMARIES[kind](self.data, self.study.clips)

    def plot(self, **options: Any) -> "go.Figure":
        """Draw the result's main figure for the screen; `options` are those of `workbench export`.

        Raises:
            UserError: this kind of result has none, or an option is wrong.
        """
        kind = str(self.data.attrs["kind"])
        if kind not in _MAIN_FIGURES:
            raise UserError(f"Results of kind '{kind}' have no figure: use `data`.")
        figure, option = _MAIN_FIGURES[kind]
        which = {option: self.name.partition("-")[2]} if option else {}
        return figures.screen_figure(self.study, figure, **(which | options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name} of {self.study.path})"

    def _repr_html_(self) -> str:
        if self.data.attrs["kind"] not in _SUMMARIES:
            return str(self.data._repr_html_())
        return str(self.table().to_html(index=False))


class SaeResult(Result):
    """The result of training a sparse autoencoder, with the autoencoder itself."""

    @property
    def autoencoder(self) -> SAE:
        """The autoencoder, on the CPU."""
        return load_sae(self.study, self.name.removeprefix(PREFIX))


class OpenStudy:
    """A study in Python: its clips and activations, and the results computed from them.

    The methods work like the commands with the same names, with the same defaults and checks: existing results are not
    computed again. `folder` is the underlying `Study`, with everything about its model, clips and activations.
    """

    def __init__(self, folder: Study, model: AudioDiffusionModel | None = None, device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self._model = model

    @cached_property
    def model(self) -> AudioDiffusionModel:
        """The study's model, loaded when it is first used."""
        return self._model or self.folder.load_model(self.device)

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self.folder.path

    @property
    def settings(self) -> GenerationSettings:
        """The settings with which the study's clips were generated."""
        return self.folder.spec.settings

    @property
    def clips(self) -> pd.DataFrame:
        """The study's clips, one row each, with the value of each concept as label_<concept>."""
        return self.folder.clips

    def activations(self, site: str) -> xr.DataArray:
        """The recorded activations of a site, labelled, dims (clip, step, pass, token, channel), read when indexed."""
        return self.folder.cache.dataset(numbered_site(site, self.folder.block_names))

    @property
    def results(self) -> list[str]:
        """Names of the study's results."""
        return self.folder.result_names()

    def result(self, name: str) -> Result:
        """Load a result.

        Raises:
            UserError: it is missing or damaged; the message names the command that makes it.
        """
        must_be(str, name, "A result must be given by its name, such as 'patching-blocks'")
        data = load_result(self.folder, name)
        made = SaeResult if data.attrs["kind"] == "sae" else Result
        return made(self.folder, name, data)

    def autoencoder(self, name: str) -> SAE:
        """Load a sparse autoencoder of the study by its name, on the CPU; raise UserError if there is none."""
        must_be(str, name, "An autoencoder must be given by its name, such as 'tf4.cross_attn'")
        return load_sae(self.folder, name)

    @takes(PatchingSpec, maker=asked_spec)
    def patch(self, question: str = DEFAULT_QUESTION, **options: Any) -> Result:
        """Make a patching map for a question, as `workbench patch` does.

        `options` are those of `analyses.patching.asking.asked_spec`: concepts, pairs, seeds, blocks, sets, nulls …
        """
        spec = asked_spec(self.folder, question, **options)
        done = self.folder.is_done(spec.result_name, settled(spec))
        if not (done and is_usable(self.folder, spec.result_name)):
            with progress("Patching pairs") as report:
                tensors = tensors_beside(options.get("arms"))
                run_patching(self.folder, self.model, spec, report, note, tensors=tensors)
        return self.result(spec.result_name)

    @takes(ProbeSpec)
    def probe(self, sites: str | Sequence[str] = (), **options: Any) -> Result:
        """Fit linear probes for each concept at the sites (by default all recorded ones), as `workbench probe` does.

        `options` are further fields of `analyses.probes.spec.ProbeSpec`: concepts, steps, folds …
        """
        spec = asked_probes(self.folder, sites, **options)
        if not (self.folder.is_done("probes", spec) and is_usable(self.folder, "probes")):
            with progress("Probing sites") as report:
                run_probes(self.folder, spec, report, note)
        return self.result("probes")

    @takes(TrainSettings, *SETTINGS)
    def train_sae(self, site: str, name: str = "", **options: Any) -> SaeResult:
        """Train a sparse autoencoder on a site and describe its features, as `workbench sae train` does.

        The site is a recorded one, or any one with `source="generation"`.

        It is kept by its name; without one it is called like the site, or if that one exists `<site>-2`, and so on.
        `options` are those of `analyses.sae.train.train_spec`: k, expansion, train_steps …
        """
        must_be(str, site, "An autoencoder is trained on one site; several are trained by train_saes")
        (result,) = self.train_saes(site, name, **options)
        return result

    @takes(TrainSettings, *SETTINGS)
    def train_saes(
        self, sites: str | Sequence[str], name: str = "", architecture: str = "topk", **options: Any
    ) -> list[SaeResult]:
        """Train several sparse autoencoders in one pass over the activations, as `workbench sae train` does.

        Of `pass_name`, `expansion`, `k` and `seed` there may be several values, in a list: every one is combined with
        every other, at every site. The other `options` are those of `train_sae`.
        """
        specs = asked_trainings(self.folder, sites, architecture, **options)
        remove_unusable(
            self.folder, [PREFIX + each for each in trained_names(self.folder, specs, name) if each]
        )
        names = trained_names(self.folder, specs, name)
        if not all(names):
            with progress("Training") as report:
                made = run_saes(self.folder, specs, self.device, report, name, note)
            names = [result.attrs["name"] for result in made]
        return [
            SaeResult(self.folder, PREFIX + each, load_result(self.folder, PREFIX + each)) for each in names
        ]

    @takes(EvaluationSpec)
    def evaluate_sae(self, name: str, **options: Any) -> Result:
        """Measure what the model loses with an autoencoder in its site's place, as `workbench sae evaluate` does.

        Sets the autoencoder's gate: the steps at which it may not be used. `options` are fields of
        `analyses.evaluation.spec.EvaluationSpec`: clips, pairs, against …
        """
        spec = asked_evaluation(self.folder, name, **options)
        with progress("Evaluating the autoencoder") as report:
            evaluate_sae(self.folder, self.model, spec, report, note)
        return self.result(spec.result_name)

    @takes(EffectsSpec)
    def feature_effects(self, names: str | Sequence[str], **options: Any) -> Result:
        """Turn features of an autoencoder off, and double them, as `workbench sae effects` does.

        Of several autoencoders, features are changed at all their sites at once. `options` are fields of
        `analyses.evaluation.spec.EffectsSpec`: concepts, features, factors …
        """
        spec = asked_effects(self.folder, names, **options)
        with progress("Changing features") as report:
            run_effects(self.folder, self.model, spec, report, note)
        return self.result(spec.result_name)

    @takes(SteeringSpec)
    def steer(
        self, ways: Steering | Mapping[str, Steering], *, ignore_gate: bool = False, **options: Any
    ) -> Result:
        """Steer new prompts in a way, or several by name, and with random vectors, as `workbench steer apply` does.

        Ways of steering are vectors, concept sliders and methods that steer through the prompt, all for one concept.
        With `ignore_gate` vectors of SAE features steer also at steps that the gate of their autoencoder closes.
        `options` are the fields of `analyses.steering_spec.SteeringSpec`: strengths, pairs, randoms …
        """
        must_be((*_STEERING, Mapping), ways, f"{_WAY}, or several by name")
        named = list(ways.items()) if isinstance(ways, Mapping) else [(ways.concept, ways)]
        for _, each in named:
            must_be(_STEERING, each, _WAY)
        spec = asked_trial(self.folder, named, **options)
        return self._try(spec, ways_of_trial(named, spec, note, ignore_gate=ignore_gate))

    @takes(BenchmarkSpec)
    def evaluate_steering(self, **options: Any) -> Result:
        """Compare methods of steering on prompts that none was computed from, as `workbench steer evaluate` does.

        `options` are the fields of `analyses.evaluation.benchmark_spec.BenchmarkSpec`: concepts, methods, sites …
        Call it again to continue after an interruption.
        """
        spec = asked_benchmark(self.folder, **options)
        with progress_of_parts() as parts:
            run_benchmark(self.folder, self.model, spec, parts, note)
        return self.result(spec.result_name)

    def check(
        self,
        vector: Vector,
        name: str = "",
        *,
        pairs: int = 8,
        seeds: int = 1,
        strengths: Sequence[float] = STRENGTHS,
        scorers: str | Sequence[str] = "embedded",
        seed: int = 0,
        ignore_gate: bool = False,
    ) -> Vector:
        """Have a vector judged on prompts that it was not computed from, as `workbench steer check` does.

        `name` is that of the result, `steering-check-NAME`, and by default the vector's concept.

        Returns:
            The vector with what each judge says as its `checks`, which `save` writes with the rest.
        """
        must_be(Vector, vector, "A vector must be one such as wb.caa returns")
        check_name(name)
        asked = {"pairs": pairs, "seeds": seeds, "strengths": strengths, "scorers": scorers, "seed": seed}
        named = name or vector.concept
        with progress("Judging the vector") as report:
            return judged(
                self.folder, self.model, vector, named, report, note, ignore_gate=ignore_gate, **asked
            )

    @takes(SteeringSpec)
    def ladder(
        self,
        concept: str,
        sites: str = "",
        *,
        positive: str = "",
        negative: str = "",
        fit_pairs: int = 16,
        others: Mapping[str, Vector | Slider] = MappingProxyType({}),
        ignore_gate: bool = False,
        **options: Any,
    ) -> Result:
        """Show where a concept is lost between patching and steering, as `workbench steer ladder` does.

        `sites` are blocks, such as tf3+tf4, by default those with an impact of at least .1 in the study's map of
        blocks. `others` are further vectors and concept sliders of the concept by name, each a rung of its own.
        """
        must_be(Mapping, others, "Others must be vectors or sliders by name, such as {'signs': vector}")
        for each in others.values():
            must_be((Vector, Slider), each, "Each of the others must be a vector or a concept slider")
        named = list(others.items())
        spec = asked_ladder(self.folder, concept, positive, negative, fit_pairs, named, **options)
        with fit_state(self.folder, "ladder", spec.result_name, note) as state:
            with progress("Generating clips") as report:
                rungs = rungs_of_ladder(
                    self.folder, self.model, spec, note, sites, fit_pairs, named, report, state, ignore_gate
                )
            return self._try(spec, rungs)

    def _try(self, spec: SteeringSpec, ways: Sequence[Way]) -> Result:
        with progress("Steering prompts") as report:
            run_steering(self.folder, self.model, spec, ways, report, note)
        return self.result(spec.result_name)

    def figure(self, figure: str, /, **options: Any) -> "go.Figure":
        """Draw a figure for the screen, by its name and options in `workbench export`."""
        return figures.screen_figure(self.folder, figure, **options)

    def export(
        self,
        figure: str,
        /,
        format: FileFormat = DEFAULT_FORMAT,
        out: str | Path | None = None,
        **options: Any,
    ) -> list[Path]:
        """Write a paper figure with its numbers and provenance, as `workbench export` does; returns the files."""
        figures.make_spec(
            self.folder, figure, options
        )  # refuses options named like arguments of export_figure
        must_be((str, os.PathLike, type(None)), out, "The folder of a figure must be given by its path")
        return export_figure(self.folder, figure, format, None if out is None else Path(out), **options)

    def __repr__(self) -> str:
        results = ", ".join(self.results) or "no results yet"
        return f"OpenStudy({self.path}: {len(self.clips)} clips of {self.folder.spec.model}; {results})"


_SUMMARIES: dict[str, Callable[[xr.Dataset, pd.DataFrame], pd.DataFrame]] = {
    "patching": lambda result, _: patching_summary(result),
    "probes": lambda result, _: probes_summary(result),
    "sae": sae_summary,
    "steering": lambda result, _: steering_summary(result),
    "steering-benchmark": lambda result, _: _benchmark_table(result),
    "sae-evaluation": lambda result, _: evaluation_summary(result),
    "feature-effects": lambda result, _: effects_summary(result),
}


def _benchmark_table(result: xr.Dataset) -> pd.DataFrame:
    """What an evaluation's first judge says."""
    of_protocol = published_summary if result.attrs["protocol"] == "published" else benchmark_summary
    return of_protocol(result, str(result["scorer"].values[0]))


_MAIN_FIGURES = {
    "patching": ("patching", "name"),
    "probes": ("probes", ""),
    "sae": ("sae-training", "name"),
    "steering": ("dose-response", "name"),
    "steering-benchmark": ("method-ranking", "name"),
}
"""The main figure for each kind of result, and the figure's option that selects the result."""

_STEERING = get_args(Steering)
_WAY = "A way of steering must be a vector, such as wb.caa returns, a concept slider or a prompt method"
_FOLDER = "A study must be given by its folder, such as 'studies/first'"


@takes(StudyRequest, maker=plan_study)
def trace(
    model: AudioDiffusionModel | str,
    prompts: str | PromptSet = PROMPT_SET,
    *,
    out: str | Path,
    store: str | None = None,
    job: tuple[int, int] = (1, 1),
    **options: Any,
) -> OpenStudy:
    """Make, continue or extend a study in the folder `out`, as `workbench trace` does, and open it.

    `model` is a loaded model, or the name of one. `options` are the fields of
    `workbench.studies.request.StudyRequest`: n_prompts, sites, settings …; see
    `workbench.studies.tracing.trace_study` for `store` and `job`.
    """
    loaded = load_model(model) if isinstance(model, str) else model
    must_be(AudioDiffusionModel, loaded, "A study needs a model, or the name of one")
    must_be((str, os.PathLike), out, _FOLDER)
    spec = plan_study(loaded, prompts, **options)
    if sentence := words_unknown(loaded, spec):
        note(sentence)
    with progress("Tracing clips") as report:
        study = trace_study(Path(out), spec, loaded, report, store, job, note)
    return OpenStudy(study, loaded, loaded.device)


def open_study(path: str | Path, *, device: str = "cpu", allow_store: bool = False) -> OpenStudy:
    """Open an existing study; its model is loaded on `device` when it is first needed.

    `allow_store` permits reading an activation store named by a study from elsewhere, as `--allow-store` does.

    Raises:
        UserError: there is no study.
    """
    must_be((str, os.PathLike), path, _FOLDER)
    study = Study.open(Path(path))
    if allow_store:
        study.confirm()
    return OpenStudy(study, device=device)
