"""The runs behind patching maps: units of work for a map's missing arms, and their scores and audio as arrays."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from analyses.execution import Executor, InProcess, Unit, Worker
from analyses.patching.arms import Arm
from analyses.patching.contexts import N_REFERENCES, PairContext
from cache.wording import counted
from workbench.engine.edits import Run
from workbench.engine.runs import Clip, Generation
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import check_blocks
from workbench.models.base import AudioDiffusionModel
from workbench.models.checks import check_runs
from workbench.models.memory import clips_that_fit
from workbench.models.reference import ModelReference
from workbench.scorers import Scorer, load_scorer, score_key
from workbench.scorers.descriptor_scorer import MEASURE, high
from workbench.scorers.distances import Distance
from workbench.studies.distancing import measure, measured
from workbench.studies.runs import RunRecord, RunStore
from workbench.studies.study import Study

CLEAN = Arm("clean", "", "", (), "necessity")
CORRUPT = Arm("corrupt", "", "", (), "sufficiency")
RUNS = (CLEAN, CORRUPT)
# Roles of the pair's own runs.
OWN = {"clean", "corrupt"}


def runs_of_pair(
    context: PairContext, seed: int, arms: Sequence[Arm], lyrics: str = "", follow_corrupt: bool = False
) -> list[Run]:
    """Return a pair's clean run, its corrupt run, and its arms, with shared noise.

    With `follow_corrupt`, all other runs follow the corrupt run: they never leave its trajectory, and their
    velocities are those that the clean prompt or a patch would give there.
    """

    def plain(role: str) -> list[Run]:
        return [Run(Clip(prompt, seed, lyrics)) for prompt in context.prompts(role)]

    (corrupt,) = plain("corrupt")
    follows = corrupt if follow_corrupt else None
    (clean,) = (replace(run, follows=follows) for run in plain("clean"))
    others = {source for arm in arms for source in arm.sources} - OWN
    roles = {"clean": [clean], "corrupt": [corrupt], **{role: plain(role) for role in others}}
    return [clean, corrupt, *(replace(arm.run.bound(roles), follows=follows) for arm in arms)]


def run_arms(
    model: AudioDiffusionModel,
    context: PairContext,
    seed: int,
    arms: Sequence[Arm],
    settings: GenerationSettings,
    lyrics: str = "",
) -> Generation:
    """Generate a pair's clean run, corrupt run and arms as one batch with shared noise; latents are in that order."""
    return model.generate_batch(runs_of_pair(context, seed, arms, lyrics), settings)


class Sweep:
    """Runs a map's arms over its pairs and seeds, and reads their scores and audio from the study's run store.

    Runs that the study already has, from any map, are not repeated. Every pair and seed is a unit of work. The
    `scorers` score the texts of the contexts; `descriptors` are measured beside them, as if each were a further scorer:
    `columns` names both. With `distances`, those of all runs of a unit from its corrupt run are measured. `rows` counts
    the denoiser rows that were computed.
    """

    def __init__(
        self,
        study: Study,
        model: AudioDiffusionModel,
        scorers: Mapping[str, Scorer],
        contexts: Mapping[str, Sequence[PairContext]],
        executor: Executor | None = None,
        distances: Mapping[str, Distance] = MappingProxyType({}),
        descriptors: Sequence[str] = (),
    ) -> None:
        self.contexts = contexts
        self.rows = 0
        self.scorers = scorers
        self.columns = [*scorers, *descriptors]
        self._measured = tuple(map(high, descriptors))
        self._judges = (
            {**scorers, MEASURE: scorers.get(MEASURE) or load_scorer(MEASURE)} if descriptors else scorers
        )
        self._distances = distances
        self._model = model
        self._settings, self._lyrics = study.spec.settings, study.spec.lyrics
        self._store = RunStore.of(study)
        self._last: tuple[PairContext, int, Sequence[Arm], list[Run]] | None = None
        self._executor = InProcess(Worker([model], self._judges, distances)) if executor is None else executor

    @property
    def n_seeds(self) -> int:
        """Number of seeds of each pair."""
        return len(next(pair for pairs in self.contexts.values() for pair in pairs).seeds)

    @cached_property
    def rows_per_batch(self) -> int:
        """Rows of a batch that fit into memory, measured once, before the first run."""
        return clips_that_fit(self._model, self._settings)

    def check(self, arms: Sequence[Arm]) -> list[str]:
        """Return a sentence on each conditioning segment that some pairs do not have; nothing is patched there.

        Raises:
            UserError: for arms that a pair cannot be run with, and edits that cannot act anywhere.
        """
        check_blocks([arm.block for arm in arms if arm.block is not None], self._model.n_blocks)
        empty: Counter[tuple[str, str]] = Counter()
        for concept, context in ((name, each) for name, pairs in self.contexts.items() for each in pairs):
            runs = runs_of_pair(context, 0, arms, self._lyrics)
            batch = self._model.plan(runs, self._settings)
            check_runs(self._model, runs, self._settings)
            own = batch.requested[: len(RUNS)]
            of_pair = [edit for edit in batch.edits if edit.acts_on_nothing and edit.sources[0] in own]
            empty.update({(concept, ", ".join(edit.edit.window.segments or ())) for edit in of_pair})
        return [
            f"{n} of {counted(len(self.contexts[concept]), 'pair')} of {concept} {'has' if n == 1 else 'have'} no "
            f"tokens of the segment {name}: nothing is patched there."
            for (concept, name), n in sorted(empty.items())
        ]

    def run(self, arms: Mapping[str, Sequence[Arm]], pairs: range) -> Iterator[None]:
        """Run and score the missing arms, clean runs and corrupt runs of these pairs, for each concept.

        Yields after each pair and seed. Raises UserError if a clean or corrupt run gives no audio.
        """
        units = (
            self._unit(context, seed, of_concept)
            for pair in pairs
            for concept, of_concept in arms.items()
            for context in self.contexts[concept][pair : pair + 1]
            for seed in context.seeds
        )
        for rows in self._executor.map(units):
            self.rows += rows
            yield

    def _unit(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> Unit:
        """Return the missing arms of a pair in batches, each with the clean and the corrupt run."""
        runs = self._runs(context, seed, arms)
        every = list(zip((*RUNS, *arms), runs, strict=True))
        missing = [
            asked for asked, is_held in zip(every, self._store.holds(runs), strict=True) if not is_held
        ]
        changed = [asked for asked in missing if asked[0] not in RUNS]
        chunks = _chunks(changed, self.rows_per_batch) if changed else [[]] if missing else []
        batches = [[(arm.name, run) for arm, run in (*every[: len(RUNS)], *chunk)] for chunk in chunks]
        return Unit(
            store=self._store,
            model=ModelReference.of(self._model),
            batches=tuple(map(tuple, batches)),
            runs=tuple(runs),
            judges={name: scorer.identity for name, scorer in self._judges.items()},
            texts={name: self._texts(context, name) for name in self._judges},
            distances={name: distance.identity for name, distance in self._distances.items()},
            reference=runs[1] if self._distances else None,
        )

    def scores(
        self, context: PairContext, seed: int, arms: Sequence[Arm], text: str | None = None
    ) -> Float[np.ndarray, "arm column"]:
        """Return the scores of the clean run, the corrupt run and the arms; NaN if not run, or if the scorer failed.

        They are for one of the context's texts, by default the pair's own, and the values of the descriptors.
        """
        asked = [(scorer, text or context.pair.text) for scorer in self.scorers.values()]
        asked += [(self._judges[MEASURE], measured) for measured in self._measured]
        keys = [score_key(scorer.name, scorer.identity, text) for scorer, text in asked]
        records = self._records(context, seed, arms)
        scores = [[None if record is None else record.scores.get(key) for key in keys] for record in records]
        return np.array(scores, dtype=np.float64)

    def audio(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[str]:
        """Return audio files, relative to the study, of the clean run, the corrupt run and the arms; "" if not run."""
        return [record.audio if record else "" for record in self._records(context, seed, arms)]

    def distances(
        self, context: PairContext, seed: int, arms: Sequence[Arm]
    ) -> Float[np.ndarray, "arm distance"]:
        """Return how far the clean run, the corrupt run and the arms are from the corrupt run; NaN if unknown."""
        runs = self._runs(context, seed, arms)
        return measured(self._store, runs, runs[1], list(self._distances.values()))

    def distances_between_seeds(self, context: PairContext) -> Float[np.ndarray, "seed distance"]:
        """Return how far a pair's corrupt run with each seed is from that with the next; NaN if there is one seed."""
        runs = [Run(Clip(context.pair.corrupt.text, seed, self._lyrics)) for seed in context.seeds]
        distances = list(self._distances.values())
        found = np.full((len(runs), len(distances)), np.nan)
        for place, (run, other) in enumerate(zip(runs, [*runs[1:], runs[0]], strict=True)):
            if run != other:
                for distance in distances:
                    measure(self._store, [run], other, distance)
                found[place] = measured(self._store, [run], other, distances)[0]
        return found

    def missing(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[str]:
        """Return the names of the arms, including the clean and the corrupt run, that are not run or not scored."""
        keys = {
            score_key(scorer.name, scorer.identity, text)
            for name, scorer in self._judges.items()
            for text in self._texts(context, name)
        }
        records = zip((*RUNS, *arms), self._records(context, seed, arms), strict=True)
        return [arm.name for arm, record in records if record is None or not keys <= record.scores.keys()]

    def _records(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[RunRecord | None]:
        return self._store.records(self._runs(context, seed, arms))

    def _runs(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[Run]:
        """Return the runs of a pair. The last ones are kept: binding arms takes longer than looking their scores up."""
        last = self._last
        if last is None or last[0] != context or last[1] != seed or last[2] is not arms:
            last = context, seed, arms, runs_of_pair(context, seed, arms, self._lyrics)
            self._last = last
        return last[3]

    def _texts(self, context: PairContext, judge: str) -> tuple[str, ...]:
        """Return the texts for which a judge scores a pair's runs."""
        own = context.texts if judge in self.scorers else ()
        return (*own, *self._measured) if judge == MEASURE else own


def _chunks(asked: Sequence[tuple[Arm, Run]], rows: int) -> list[list[tuple[Arm, Run]]]:
    """Split arms into batches of at most `rows` rows (at least one arm each), including the runs they read from."""
    chunks: list[list[tuple[Arm, Run]]] = []
    for each in asked:
        if chunks and _n_rows([arm for arm, _ in (*chunks[-1], each)]) <= rows:
            chunks[-1].append(each)
        else:
            chunks.append([each])
    return chunks


def _n_rows(arms: Sequence[Arm]) -> int:
    """Return the number of rows of a batch: the pair's runs, the arms and their shadows, and other runs they read."""
    sources = {source for arm in arms for source in arm.sources} - OWN
    references = N_REFERENCES - 1 if "references" in sources else 0
    helpers = sum(run.depends_on_reader and not run.is_self for arm in arms for run in set(arm.run.reads))
    return 2 + len(sources) + references + len(arms) + helpers
