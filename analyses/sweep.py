"""The runs behind patching maps: each arm of each pair and seed is generated once, kept as audio, and scored."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analyses.arms import Arm
from analyses.contexts import PairContext
from cache.errors import UserError
from workbench.audio import read_audio, write_flac
from workbench.files import replacing
from workbench.interventions import Intervention
from workbench.memory import clips_that_fit
from workbench.models.protocol import AudioDiffusionModel, Clip, Generation, GenerationSettings
from workbench.provenance import content_hash
from workbench.scorers import Scorer
from workbench.study import Study

CLEAN = Arm("clean", "", "", (), "necessity")
CORRUPT = Arm("corrupt", "", "", (), "sufficiency")
RUNS = (CLEAN, CORRUPT)
# Sources that need no run besides the pair's and the arm's own.
OWN = {"clean", "corrupt", "arm", "path"}


@dataclass(frozen=True)
class Batch:
    """Clips and interventions of one batch; `rows` are those of the clean run, the corrupt run, and every arm."""

    clips: list[Clip]
    interventions: list[Intervention]
    rows: list[int]


def build_batch(
    context: PairContext, seed: int, arms: Sequence[Arm], lyrics: str = "", probe: bool = False
) -> Batch:
    """One batch with shared noise: clean, corrupt, the other runs that arms read from, and the arms.

    With `probe` every arm only shadows the corrupt run: it never leaves its trajectory, and its velocities tell what
    the patch would do there.
    """
    clips = [Clip(context.pair.clean.text, seed, lyrics), Clip(context.pair.corrupt.text, seed, lyrics)]
    if probe:
        clips[0] = Clip(clips[0].prompt, seed, lyrics, shadow_of=1)
    places: dict[str, tuple[int, ...]] = {"clean": (0,), "corrupt": (1,)}
    for source in sorted({source for arm in arms for source in arm.sources} - OWN):
        prompts = context.prompts(source)
        places[source] = tuple(range(len(clips), len(clips) + len(prompts)))
        clips += [Clip(prompt, seed, lyrics) for prompt in prompts]
    interventions: list[Intervention] = []
    rows = [0, 1]
    for arm in arms:
        row = len(clips)
        rows.append(row)
        base = clips[places[arm.base][0]]
        clips.append(Clip(base.prompt, seed, lyrics, shadow_of=1 if probe else None))
        targets = {"arm": row}
        if "path" in arm.sources:  # the same latents, without the arm's edits
            targets["path"] = row + 1
            clips.append(Clip(base.prompt, seed, lyrics, shadow_of=row))
        here = {**places, **{name: (place,) for name, place in targets.items()}}
        interventions += [
            Intervention(targets[edit.target], edit.spec, here[edit.source] if edit.source else None)
            for edit in arm.edits
        ]
    return Batch(clips, interventions, rows)


def run_arms(
    model: AudioDiffusionModel,
    context: PairContext,
    seed: int,
    arms: Sequence[Arm],
    settings: GenerationSettings,
    lyrics: str = "",
) -> Generation:
    """Run a pair's clean run, corrupt run and arms as one batch with shared noise; latents come in that order."""
    batch = build_batch(context, seed, arms, lyrics)
    generation = model.generate(batch.clips, settings, batch.interventions)
    generation.latents = generation.latents[batch.rows]
    return generation


class Sweep:
    """Runs arms of a study's pairs, each once: what lies in the study already is not run again.

    Every pair and seed is a unit with a folder of its own; its `arms.json` names each arm's audio and scores and is
    replaced after every batch, so that a sweep continues where it was cut off. Maps share runs: arms are told by
    what they do, not by the map that asked for them. Every score is computed from the audio file.
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
        batch = build_batch(context, 0, arms, self.study.spec.lyrics)
        self.model.positions(batch.clips, self.study.spec.settings, batch.interventions)

    def ensure(self, context: PairContext, seed: int, arms: Iterable[Arm]) -> None:
        """Run and score what is missing of these arms, and of the clean and the corrupt run."""
        unit = _Unit(self.study, context, seed)
        missing = [arm for arm in arms if unit.key(arm) not in unit.arms]
        chunks = _chunks(missing, self.rows_per_batch) if missing else []
        if not chunks and unit.key(CLEAN) not in unit.arms:
            chunks = [[]]
        for chunk in chunks:
            generation = run_arms(
                self.model, context, seed, chunk, self.study.spec.settings, self.study.spec.lyrics
            )
            self.rows += generation.rows
            unit.add([*RUNS, *chunk], generation.latents, self.model)
        for name, scorer in self.scorers.items():
            unit.score(name, scorer)

    def scores(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> Float[np.ndarray, "arm scorer"]:
        """Scores of the clean run, the corrupt run and the arms; NaN for arms that were not run."""
        unit = _Unit(self.study, context, seed)
        return np.array(
            [[unit.score_of(arm, name) for name in self.scorers] for arm in (*RUNS, *arms)], dtype=np.float64
        )

    def audio(self, context: PairContext, seed: int, arms: Sequence[Arm]) -> list[str]:
        """Audio files, relative to the study, of the clean run, the corrupt run and the arms; "" where not run."""
        unit = _Unit(self.study, context, seed)
        return [unit.arms.get(unit.key(arm), {}).get("audio", "") for arm in (*RUNS, *arms)]


class _Unit:
    """The arms of one pair and seed that a study holds."""

    def __init__(self, study: Study, context: PairContext, seed: int) -> None:
        self.study = study
        self.context = context
        pair = context.pair
        name = f"{content_hash([pair.clean.text, pair.corrupt.text], 8)}-{seed}"
        self.folder = study.path / "audio" / "patching" / pair.concept / name
        self.arms: dict[str, dict[str, Any]] = {}
        if self._file.is_file():
            self.arms = _read_arms(self._file, self._file.stat().st_mtime_ns)

    @property
    def _file(self) -> Path:
        return self.folder / "arms.json"

    def key(self, arm: Arm) -> str:
        """What tells an arm from others of this unit: what it does, and the prompts it reads from."""
        others = sorted(arm.sources - OWN)
        what = arm.to_json()
        return _key(
            json.dumps(
                [what["edits"], what["direction"], [self.context.prompts(source) for source in others]]
            )
        )

    def add(
        self,
        arms: Sequence[Arm],
        latents: Float[torch.Tensor, "arm frame channel"],
        model: AudioDiffusionModel,
    ) -> None:
        """Keep the audio of these arms; those with equal latents share a file."""
        files: dict[bytes, str] = {}
        added: dict[str, dict[str, Any]] = {}
        for arm, row in zip(arms, latents, strict=True):
            key, content = self.key(arm), row.cpu().float().numpy().tobytes()
            if key in self.arms:
                files.setdefault(content, self.arms[key]["audio"])
                continue
            if content not in files:
                readable = re.sub(r"[^\w+.-]+", "-", arm.name)
                file = self.folder / f"{readable}-{key[:8]}.flac"
                audio = model.decode(row[None], self.study.spec.settings.duration)[0]
                write_flac(file, audio.cpu().numpy(), model.sample_rate, self.study.path)
                files[content] = file.relative_to(self.study.path).as_posix()
            added[key] = {"name": arm.name, "audio": files[content], "scores": {}}
        self._save({**self.arms, **added})

    def score(self, name: str, scorer: Scorer) -> None:
        """Score every file that this scorer has not heard yet."""
        silent = [arm for arm in self.arms.values() if name not in arm["scores"]]
        if not silent:
            return
        known = {arm["audio"]: arm["scores"][name] for arm in self.arms.values() if name in arm["scores"]}
        files = [file for file in dict.fromkeys(arm["audio"] for arm in silent) if file not in known]
        if files:
            clips, rates = zip(*(read_audio(self.study.path / file) for file in files), strict=True)
            found = scorer.score(np.stack(clips), rates[0], [self.context.pair.text])[:, 0]
            known |= {
                file: None if np.isnan(value) else float(value)
                for file, value in zip(files, found, strict=True)
            }
        scored = {
            key: {**arm, "scores": {**arm["scores"], name: known[arm["audio"]]}}
            if name not in arm["scores"]
            else arm
            for key, arm in self.arms.items()
        }
        self._save(scored)

    def score_of(self, arm: Arm, scorer: str) -> float:
        """The arm's score; NaN where it was not run or the scorer failed."""
        value = self.arms.get(self.key(arm), {}).get("scores", {}).get(scorer)
        return float("nan") if value is None else value

    def _save(self, arms: dict[str, dict[str, Any]]) -> None:
        with replacing(self._file, self.study.path) as partial:
            partial.write_text(json.dumps(arms), encoding="utf-8")
        self.arms = arms


@lru_cache(maxsize=4096)
def _read_arms(file: Path, changed_ns: int) -> dict[str, dict[str, Any]]:  # noqa: ARG001 - tells versions apart
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged: delete it, and its pair is run again.") from error


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
    sources = {source for arm in arms for source in arm.sources} - OWN
    references = 3 if "references" in sources else 0
    return 2 + len(sources) + references + sum(2 if "path" in arm.sources else 1 for arm in arms)
