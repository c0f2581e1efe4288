"""Units of work, and executors that run them in this process or elsewhere.

A unit is plain data that can be pickled and sent to another process. `make_unit` runs it there: it writes to the
study's run store and returns plain data.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar, runtime_checkable

import torch

from cache.errors import UserError
from cache.wording import quoted
from workbench.audio import not_finite
from workbench.engine.edits import Run
from workbench.engine.runs import Clip, Generation
from workbench.models.base import AudioDiffusionModel
from workbench.models.reference import ModelReference
from workbench.scorers import Scorer, load_scorer
from workbench.scorers.distances import Distance, load_distance
from workbench.studies.distancing import measure
from workbench.studies.judging import judge
from workbench.studies.runs import Audio, RunStore

_log = logging.getLogger(__name__)
Loaded = TypeVar("Loaded", Scorer, Distance)


@dataclass(frozen=True)
class Unit:
    """Runs that are generated and scored in one place.

    The runs of each of `batches`, which have readable names, are generated together, unless the store has all of them.
    Then the `judges` (identities by name) score all `runs` in the store for their `texts` (by judge), and the
    `distances` (identities by name) of all runs from the `reference` are measured, which is one of them.
    """

    store: RunStore
    model: ModelReference
    batches: tuple[tuple[tuple[str, Run], ...], ...]
    runs: tuple[Run, ...]
    judges: Mapping[str, str]
    texts: Mapping[str, tuple[str, ...]]
    distances: Mapping[str, str] = field(default_factory=dict)
    reference: Run | None = None


@runtime_checkable
class Executor(Protocol):
    """Runs units of work."""

    def map(self, units: Iterable[Unit]) -> Iterator[int]:
        """Run the units; yield the result of `make_unit` for each, in order, as soon as it is available."""
        ...


class Worker:
    """Runs units in this process. Models, judges and distances are loaded on first use and kept.

    `progress` is called before each denoising step (see `AudioDiffusionModel.generate_batch`).
    """

    def __init__(
        self,
        models: Iterable[AudioDiffusionModel] = (),
        judges: Mapping[str, Scorer] = MappingProxyType({}),
        distances: Mapping[str, Distance] = MappingProxyType({}),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._progress = progress
        self._models = {ModelReference.of(model): model for model in models}
        self._judges, self._distances = dict(judges), dict(distances)

    def make(self, unit: Unit) -> int:
        """Generate and score the missing runs of a unit, and return the number of computed denoiser rows.

        Raises:
            UserError: if the numbers of a run without edits became NaN or infinite (edited runs are stored as such), or
                the model or a judge differs from the unit's.
        """
        rows = sum(self._generate(unit, batch) for batch in unit.batches)
        for name, identity in unit.judges.items():
            scorer = _loaded("scorer", self._judges, load_scorer, name, identity, unit.model.device)
            judge(unit.store, unit.runs, scorer, unit.texts[name])
        for name, identity in unit.distances.items():
            distance = _loaded("distance", self._distances, load_distance, name, identity, unit.model.device)
            assert unit.reference is not None, "distances are from a reference"
            measure(unit.store, unit.runs, unit.reference, distance)
        return rows

    def _generate(self, unit: Unit, batch: tuple[tuple[str, Run], ...]) -> int:
        store, runs = unit.store, [run for _, run in batch]
        if all(store.holds(runs)):
            return 0
        model = self._model(unit)
        made = model.generate_batch(runs, store.settings, progress=self._progress)

        def audio(place: int) -> Audio | None:
            return _audio(model, store, made, place, *batch[place])

        store.add(runs, made.shared_with, audio, model.sample_rate)
        return made.rows

    def _model(self, unit: Unit) -> AudioDiffusionModel:
        if unit.model not in self._models:
            self._models[unit.model] = unit.model.load()
        model = self._models[unit.model]
        if (model.weights_hash, model.dtype) != (unit.store.weights_hash, unit.store.dtype):
            raise UserError(
                f"The model {unit.model.name} must have the weights {unit.store.weights_hash} in {unit.store.dtype}, "
                f"like the runs in {unit.store.root}. Get the same weights."
            )
        return model


def _loaded(
    kind: str, known: dict[str, Loaded], load: Callable[..., Loaded], name: str, identity: str, device: str
) -> Loaded:
    """Return a scorer or distance, loaded on first use; raise UserError unless it is the one that was planned with."""
    if name not in known:
        known[name] = load(name, device=device)
    if known[name].identity != identity:
        raise UserError(
            f"The {kind} {name} differs from the one the work was planned with. Get the same weights."
        )
    return known[name]


def _audio(
    model: AudioDiffusionModel, store: RunStore, made: Generation, place: int, name: str, run: Run
) -> Audio | None:
    """Return the audio of a run; None for an edited run whose numbers are not finite."""
    broke_at = made.broke_at[place]
    latents = made.latents[place : place + 1]
    audio = None if broke_at is not None else model.decode(latents, store.settings.duration)
    if audio is not None and bool(torch.isfinite(audio).all()):
        return audio[0].float().cpu().numpy()
    assert isinstance(run.clip, Clip)
    what = f"The run '{name}' of {quoted(run.clip.prompt)} (seed {run.clip.seed})"
    sentence = not_finite(what, broke_at, store.dtype, bool(run.edits))
    if not run.edits:
        raise UserError(sentence)
    _log.error("%s", sentence)
    return None


_worker = Worker()


def make_unit(unit: Unit) -> int:
    """Run a unit in this process, which keeps models and judges loaded; see `Worker.make`."""
    return _worker.make(unit)


class InProcess:
    """An executor that runs units one by one in this process, lazily."""

    def __init__(self, worker: Worker | None = None) -> None:
        self._make = make_unit if worker is None else worker.make

    def map(self, units: Iterable[Unit]) -> Iterator[int]:
        """Run the units; see `Executor.map`."""
        return map(self._make, units)
