"""The lab: renders requests with one model, stores the clips as runs of the study, and has judges hear them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from analyses.execution import Unit, Worker
from analyses.lab.edits import NeedsModel, Place, edits_of
from analyses.lab.facts import facts_of, record_facts, recorded_facts
from analyses.lab.request import LabRequest, check_duration
from analyses.lab.scores import DISTANCE, Score, Scores, judges_of, readings
from cache.errors import UserError
from workbench.engine.edits import Edit, Run
from workbench.engine.runs import Clip
from workbench.engine.sites import Site
from workbench.engine.windows import check_segments
from workbench.models import located
from workbench.models.base import AudioDiffusionModel
from workbench.models.checks import check_edit, check_runs, site_tokens
from workbench.models.reference import ModelReference
from workbench.scorers import Scorer, load_scorer, score_key
from workbench.scorers.distances import Distance, load_distance
from workbench.studies.distancing import measure, measured
from workbench.studies.judging import judge
from workbench.studies.runs import RunStore
from workbench.studies.study import Study

Report = Callable[[str, float], None]
"""Called with what is done and how much of it, from 0 to 1; what it raises ends the rendering."""


@dataclass(frozen=True)
class Rendered:
    """The two clips of a request: files relative to the study, and seconds."""

    unedited: str
    edited: str
    seconds: float


class Lab:
    """One model with its judges, loaded on first use and kept: those of the last study that was asked for.

    A model that is loaded already may be given.
    """

    def __init__(self, device: str = "cpu", model: AudioDiffusionModel | None = None) -> None:
        self._device = device
        self._model = None if model is None else (ModelReference.of(model), model)
        self._judges: dict[str, Scorer] = {}
        self._distances: dict[str, Distance] = {}

    def load(self, study: Study, report: Report) -> AudioDiffusionModel:
        """Return the study's model; raise UserError if it cannot be loaded here, or is another one by now."""
        if (model := self._loaded(study)) is None:
            report("Loading the model", 0.0)
            self._model = None  # first, so that there is memory for the other one
            model = study.load_model(self._device)
            self._model = (self._wanted(study), model)
        study.check_model(model.weights_hash)
        return model

    def _wanted(self, study: Study) -> ModelReference:
        return ModelReference(located(study.spec.model), self._device, study.model["dtype"])

    def _loaded(self, study: Study) -> AudioDiffusionModel | None:
        """Return the study's model if it is the one that is loaded."""
        held = self._model  # read once, as another thread may load another one
        return held[1] if held is not None and held[0] == self._wanted(study) else None

    def held(self, study: Study, request: LabRequest) -> Rendered | None:
        """Return the clips of a request if the study has them, without loading the model; otherwise None.

        It is also None for a request that would be refused.
        """
        try:
            store, runs = plan(study, request, self._loaded(study))
            return _clips(store, runs) if all(store.holds(runs)) else None
        except UserError:
            return None

    def check(self, study: Study, request: LabRequest) -> None:
        """Raise UserError for a request that can be refused before it is rendered, without loading the model.

        If the model is not loaded yet, some faults, such as a block that it does not have, are found by `render`.
        """
        model = self._loaded(study)
        try:
            store, (_, run) = plan(study, request, model)
        except NeedsModel:
            return
        if model is not None:
            model.check_settings(store.settings)
            sigmas = model.sigmas(store.settings)
            for edit in dict.fromkeys(run.nested_edits):
                check_edit(model, edit, store.settings, sigmas)
            # The tokens of the conditioning are counted by `render`, as the text encoder would have to run.
            known = [
                edit
                for edit in run.nested_edits
                if not any(site.on_conditioning for site in edit.value_sites)
            ]
            check_tokens(known, site_tokens(model, [run], store.settings))

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        """Generate what the study does not have of a request, and return its clips.

        Raises:
            UserError: for an edit that the study or the model refuses, or numbers that become NaN or infinite.
        """
        try:
            store, runs = plan(study, request, self._loaded(study))
        except NeedsModel:
            store, runs = plan(study, request, self.load(study, report))
        named = (("unedited", runs[0]), ("edited", runs[1]))[: 2 if runs[1].edits else 1]
        missing = tuple(
            each for each, held in zip(named, store.holds([run for _, run in named]), strict=True) if not held
        )
        if missing:
            model = self.load(study, report)
            check_tokens(runs[1].nested_edits, site_tokens(model, [runs[1]], store.settings))
            check_runs(model, [runs[1]], store.settings)
            check_segments(model.plan([runs[1]], store.settings).edits)

            def step(done: int, total: int) -> None:
                report(f"Denoising, step {done + 1} of {total}", done / total)

            reference = ModelReference.of(model)
            Worker([model], progress=step).make(Unit(store, reference, (missing,), tuple(runs), {}, {}))
            record_facts(store, _clip(request), facts_of(model, store.settings))
        return _clips(store, runs)

    def score(self, study: Study, request: LabRequest, report: Report) -> Scores:
        """Have every judge of the study hear the clips of a rendered request, and measure their distance.

        Scores that the study has are not computed again. `report` is called before each judge.
        """
        store, runs = plan(study, request, self._loaded(study))
        judges, notes = self._judges_of(study)
        asked = list(readings(study.spec.prompts, judges))
        for number, (name, scorer) in enumerate(judges.items()):
            report("Scoring", number / len(judges))
            judge(store, runs, scorer, [each.text for each in asked if each.judge == name])
        if DISTANCE not in self._distances:
            self._distances[DISTANCE] = load_distance(DISTANCE)
        distance = self._distances[DISTANCE]
        measure(store, runs, runs[0], distance)
        found = [record.scores if record else {} for record in store.records(runs)]
        keys = [score_key(each.judge, judges[each.judge].identity, each.text) for each in asked]
        scores = tuple(
            Score(each, found[0].get(key), found[1].get(key)) for each, key in zip(asked, keys, strict=True)
        )
        apart = float(measured(store, runs, runs[0], [distance])[1, 0])
        return Scores(scores, None if math.isnan(apart) else apart, tuple(notes))

    def _judges_of(self, study: Study) -> tuple[dict[str, Scorer], list[str]]:
        """Return the study's judges, loaded, and a sentence for each that cannot be."""
        notes = []
        for name in judges_of(study):
            if name not in self._judges:
                try:
                    self._judges[name] = load_scorer(name, device=self._device)
                except UserError as error:
                    notes.append(f"There are no scores by {name}: {error}")
        return {name: self._judges[name] for name in judges_of(study) if name in self._judges}, notes


def check_tokens(edits: Iterable[Edit], n_tokens: Callable[[Site], int]) -> None:
    """Raise UserError for an edit of tokens that its sites, of `n_tokens` each, do not have."""
    for edit in edits:
        if edit.window.tokens is None:
            continue
        first, last = edit.window.tokens
        most = max(map(n_tokens, edit.value_sites)) - 1
        if last > most:
            raise UserError(
                f"{edit.described} must have tokens from 0 to {most}, as the clip has no others; got {first} to {last}."
            )


def plan(
    study: Study, request: LabRequest, model: AudioDiffusionModel | None = None
) -> tuple[RunStore, list[Run]]:
    """Return the store of a request's runs, and its unedited and edited run.

    Raises:
        NeedsModel: if the edits depend on the model, which is not given, and nothing of it was recorded with the clip.
        UserError: for a clip that is too long, or as `edits_of` does.
    """
    settings = request.settings(study.spec.settings)
    check_duration(settings.duration, study.spec.settings)
    clip = _clip(request)
    store = RunStore(study.path, study.model["weights_hash"], study.model["dtype"], settings)
    facts = recorded_facts(store, clip) if model is None else facts_of(model, settings)
    place = Place(clip, settings, study.path, study.block_names, facts)
    return store, [Run(clip), Run(clip, edits_of(request.edits, place))]


def _clip(request: LabRequest) -> Clip:
    return Clip(request.prompt, request.seed, request.lyrics)


def _clips(store: RunStore, runs: Sequence[Run]) -> Rendered:
    """Return the clips of runs that are stored; raise UserError if the edited one has no sound."""
    unedited, edited = (record.audio if record else "" for record in store.records(runs))
    if not edited:
        raise UserError(
            "The numbers of the edited clip became NaN or infinite, so it has no sound. Use smaller strengths."
        )
    return Rendered(unedited, edited, store.settings.duration)
