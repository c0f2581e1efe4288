"""The runs behind patching maps: each arm of each pair and seed is generated once, kept as audio, and scored."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from analyses.patching.arms import Arm
from analyses.patching.contexts import N_REFERENCES, PairContext
from cache.errors import UserError
from cache.opening import file_size, open_file, read_file
from workbench.audio import not_finite, unhearable, write_flac
from workbench.engine.edits import Run
from workbench.engine.runs import Clip, Generation, GenerationSettings
from workbench.files import file_name, file_version, locked, remove_partials, replacing, slug
from workbench.models.base import AudioDiffusionModel
from workbench.models.memory import clips_that_fit
from workbench.provenance import content_hash
from workbench.scorers import Scorer, score_key
from workbench.studies.study import Study

CLEAN = Arm("clean", "", "", (), "necessity")
CORRUPT = Arm("corrupt", "", "", (), "sufficiency")
RUNS = (CLEAN, CORRUPT)
# Roles of the pair's own runs.
OWN = {"clean", "corrupt"}
MAX_RECORDS_BYTES = 2**26


_log = logging.getLogger(__name__)


def runs_of_pair(
    context: PairContext, seed: int, arms: Sequence[Arm], lyrics: str = "", probe: bool = False
) -> list[Run]:
    """A pair's clean run, its corrupt run, and its arms, with shared noise.

    With `probe` all others follow the corrupt run: they never leave its trajectory, and their velocities tell what the
    clean prompt or a patch would do there.
    """

    def plain(role: str) -> list[Run]:
        return [Run(Clip(prompt, seed, lyrics)) for prompt in context.prompts(role)]

    (corrupt,) = plain("corrupt")
    follows = corrupt if probe else None
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
    """Run a pair's clean run, corrupt run and arms as one batch with shared noise; latents come in that order."""
    return model.generate_batch(runs_of_pair(context, seed, arms, lyrics), settings)


class ArmRecord(BaseModel):
    """What a study keeps of an arm: its audio, relative to the study ("" where it has none), and its scores.

    `sha256` is that of the audio file, so that no other one is taken for it. A score is kept under `score_key`, None
    where the scorer failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    audio: str
    sha256: str
    scores: dict[str, float | None] = {}


Records = dict[str, ArmRecord]
_RECORDS = TypeAdapter(Records)


class Sweep:
    """Runs arms of a study's pairs, each once: what lies in the study already is not run again.

    Every pair and seed is a unit with a folder of its own; its `arms.json` names each arm's audio and scores and is
    replaced after every batch, so that a sweep continues where it was cut off, and several at once add to it. Maps
    share runs: arms are identified by what they do, not by the map that asked for them. Every score is computed from
    the audio file.
    """

    def __init__(self, study: Study, model: AudioDiffusionModel, scorers: dict[str, Scorer]) -> None:
        self.study = study
        self.model = model
        self.scorers = scorers
        self.rows = 0

    @cached_property
    def rows_per_batch(self) -> int:
        """Rows of one batch that fit into memory, tried once, when something is to be run."""
        return clips_that_fit(self.model, self.study.spec.settings)

    def check(self, context: PairContext, arms: Sequence[Arm]) -> None:
        """Raise UserError for arms that this pair cannot be run with, before anything is run."""
        runs = runs_of_pair(context, 0, arms, self.study.spec.lyrics)
        self.model.plan(runs, self.study.spec.settings)

    def ensure(self, context: PairContext, seed: int, arms: Iterable[Arm]) -> None:
        """Run and score what is missing of these arms, and of the clean and the corrupt run.

        Raises UserError where the clean or the corrupt run gives no audio.
        """
        unit = _Unit(self.study, context, seed)
        missing = [arm for arm in arms if not unit.holds(arm)]
        chunks = _chunks(missing, self.rows_per_batch) if missing else []
        if not chunks and not all(map(unit.holds, RUNS)):
            chunks = [[]]
        for chunk in chunks:
            generation = run_arms(
                self.model, context, seed, chunk, self.study.spec.settings, self.study.spec.lyrics
            )
            self.rows += generation.rows
            unit.add([*RUNS, *chunk], generation, self.model)
        for scorer in self.scorers.values():
            unit.score(scorer)

    def scores(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> Float[np.ndarray, "arm scorer"]:
        """Scores of the clean run, the corrupt run and the arms; NaN for arms that were not run."""
        unit = _Unit(self.study, context, seed)
        return np.array(
            [[unit.score_of(arm, scorer) for scorer in self.scorers.values()] for arm in (*RUNS, *arms)],
            dtype=np.float64,
        )

    def audio(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[str]:
        """Audio files, relative to the study, of the clean run, the corrupt run and the arms; "" where not run."""
        unit = _Unit(self.study, context, seed)
        return [record.audio if (record := unit.record(arm)) else "" for arm in (*RUNS, *arms)]

    def missing(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[str]:
        """Names of the arms, the clean and the corrupt run among them, that were not run or not scored."""
        unit = _Unit(self.study, context, seed)
        keys = [unit.score_key(scorer) for scorer in self.scorers.values()]
        return [
            arm.name
            for arm in (*RUNS, *arms)
            if (record := unit.record(arm)) is None or not set(keys) <= record.scores.keys()
        ]


class _Unit:
    """The arms of one pair and seed that a study holds.

    Its folder is named by what all its arms share: the pair's prompts and seed, the study's settings, and the model.
    What this process adds is merged into what others have added meanwhile, under a lock; nothing that is there is
    changed.
    """

    def __init__(self, study: Study, context: PairContext, seed: int) -> None:
        self.study = study
        self.context = context
        self.seed = seed
        pair, spec, model = context.pair, study.spec, study.model
        shared = [
            pair.clean.text,
            pair.corrupt.text,
            spec.lyrics,
            spec.settings.model_dump(mode="json"),
            model["weights_hash"],
            model["dtype"],
        ]
        self.folder = (
            study.path / "audio" / "patching" / file_name(pair.concept) / f"{content_hash(shared)}-{seed}"
        )
        self._file = self.folder / "arms.json"
        self.arms = self._read()

    def _read(self) -> Records:
        """What the study holds; a link or a pipe in the place of the file is refused."""
        name = self._file.relative_to(self.study.path)
        if file_size(self.study.path, name) is None:
            return {}
        return _read_records(self.study.path, name, file_version(self._file))

    def key(self, arm: Arm) -> str:
        """What tells an arm from others of this unit: what it does, and the prompts it reads from."""
        others = sorted(arm.sources - OWN)
        what = arm.to_json()
        return _key(
            json.dumps(
                [what["edits"], what["direction"], [self.context.prompts(source) for source in others]]
            )
        )

    def record(self, arm: Arm) -> ArmRecord | None:
        """What is kept of an arm, if it was run."""
        return self.arms.get(self.key(arm))

    def holds(self, arm: Arm) -> bool:
        """Whether an arm was run, and its audio is there."""
        record = self.record(arm)
        return record is not None and self._is_whole(record)

    def add(self, arms: Sequence[Arm], generation: Generation, model: AudioDiffusionModel) -> None:
        """Keep the audio of these arms; those that were one computed row share a file.

        Raises UserError for a clean or corrupt run without audio; another arm without is kept as such.
        """
        files: dict[int, tuple[str, str]] = {}
        made: Records = {}
        for place, (arm, owner) in enumerate(zip(arms, generation.shared_with, strict=True)):
            if self.holds(arm):
                held = self.arms[self.key(arm)]
                files.setdefault(owner, (held.audio, held.sha256))
                continue
            if owner not in files:
                file = self._keep_audio(arm, place, generation, model)
                files[owner] = (file, self._sha256(file) if file else "")
            audio, sha256 = files[owner]
            made[self.key(arm)] = ArmRecord(name=arm.name, audio=audio, sha256=sha256)
        self._merge(
            lambda there: {**made, **{key: there[key] for key in there if self._is_whole(there[key])}}
        )

    def _is_whole(self, record: ArmRecord) -> bool:
        return not record.audio or file_size(self.study.path, record.audio) is not None

    def _keep_audio(self, arm: Arm, place: int, generation: Generation, model: AudioDiffusionModel) -> str:
        """Decode and write an arm's audio; gives its file, "" where it has none."""
        file = self.folder / f"{slug(arm.name)}-{self.key(arm)[:8]}.flac"
        latents = generation.latents[place : place + 1]
        broke_at = generation.broke_at[place]
        audio = None if broke_at is not None else model.decode(latents, self.study.spec.settings.duration)
        if audio is None or not bool(torch.isfinite(audio).all()):
            base = self.context.prompts(arm.base)[0]
            what = f"The run '{arm.name}' of '{base}' (seed {self.seed})"
            sentence = not_finite(what, broke_at, self.study.model["dtype"])
            if arm in RUNS:
                raise UserError(sentence)
            _log.error("%s", sentence)
            return ""
        with locked(self._lock, self.study.path):  # a file that is there has been heard: it stays
            if file_size(self.study.path, file.relative_to(self.study.path)) is None:
                write_flac(file, audio[0].float().cpu().numpy(), model.sample_rate, self.study.path)
        return file.relative_to(self.study.path).as_posix()

    def _sha256(self, file: str) -> str:
        with open_file(self.study.path, file) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def score_key(self, scorer: Scorer) -> str:
        """Under which the scores of a scorer are kept."""
        return score_key(scorer.name, scorer.identity, self.context.pair.text)

    def score(self, scorer: Scorer) -> None:
        """Score every file that this scorer has not heard yet, for the pair's text."""
        name = self.score_key(scorer)
        known = {arm.audio: arm.scores[name] for arm in self.arms.values() if name in arm.scores}
        unheard = {
            arm.audio: arm.sha256
            for arm in self.arms.values()
            if name not in arm.scores and arm.audio not in known
        }
        if not unheard and all(name in arm.scores for arm in self.arms.values()):
            return
        found = known | self._heard(scorer, dict(sorted(unheard.items())))

        def scored(there: Records) -> Records:
            return {
                key: arm.model_copy(update={"scores": {name: found[arm.audio], **arm.scores}})
                if arm.audio in found
                else arm
                for key, arm in there.items()
            }

        self._merge(scored)

    def _heard(self, scorer: Scorer, files: dict[str, str]) -> dict[str, float | None]:
        """The scores of these files, given with their SHA-256; None where there is no audio that could be judged.

        Raises UserError for a file that is not the one that was written.
        """
        scores: dict[str, float | None] = dict.fromkeys(files)
        clips: dict[str, Float[np.ndarray, "channel sample"]] = {}
        rate = 0
        for file in filter(None, files):
            clip, rate = self.study.read_audio(file)
            if self._sha256(file) != files[file]:
                raise UserError(
                    f"{self.study.path / file} is not the recording that was made of its arm: delete the folder "
                    f"{self.folder}, and its pair is run again."
                )
            if fault := unhearable(clip):
                _log.error("%s cannot be scored: %s.", file, fault)
            else:
                clips[file] = clip
        if clips:
            found = scorer.score(np.stack(list(clips.values())), rate, [self.context.pair.text])[:, 0]
            scores |= {
                file: float(value) if np.isfinite(value) else None
                for file, value in zip(clips, found, strict=True)
            }
        return scores

    def score_of(self, arm: Arm, scorer: Scorer) -> float:
        """The arm's score; NaN where it was not run or the scorer failed."""
        record = self.record(arm)
        value = None if record is None else record.scores.get(self.score_key(scorer))
        return float("nan") if value is None else value

    @property
    def _lock(self) -> Path:
        return self.folder / "arms.lock"

    def _merge(self, change: Callable[[Records], Records]) -> None:
        """Change what the study holds now, whoever wrote it."""
        with locked(self._lock, self.study.path):
            remove_partials(self.study.path, self.folder)  # under the lock nobody else writes here
            arms = change(self._read())
            with replacing(self._file, self.study.path) as partial:
                partial.write_bytes(_RECORDS.dump_json(arms))
        self.arms = arms


@lru_cache(maxsize=4096)
def _read_records(root: Path, name: Path, version: tuple[int, int, int]) -> Records:  # noqa: ARG001 - tells versions apart
    try:
        return _RECORDS.validate_json(read_file(root, name, MAX_RECORDS_BYTES))
    except ValidationError as error:
        folder = (root / name).parent
        raise UserError(
            f"{root / name} is damaged: delete the folder {folder}, and its pair is run again."
        ) from error


@lru_cache(maxsize=100_000)
def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chunks(arms: Sequence[Arm], rows: int) -> list[list[Arm]]:
    """Arms in batches of at most `rows` rows (at least one arm each), the runs they read from included."""
    chunks: list[list[Arm]] = []
    for arm in arms:
        if chunks and _n_rows([*chunks[-1], arm]) <= rows:
            chunks[-1].append(arm)
        else:
            chunks.append([arm])
    return chunks


def _n_rows(arms: Sequence[Arm]) -> int:
    """Rows of a batch of these arms: the pair's runs, others that are read from, and the arms with their helpers."""
    sources = {source for arm in arms for source in arm.sources} - OWN
    references = N_REFERENCES - 1 if "references" in sources else 0
    helpers = sum(run.depends_on_reader and not run.is_self for arm in arms for run in set(arm.run.reads))
    return 2 + len(sources) + references + len(arms) + helpers
