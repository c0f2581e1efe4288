"""The run store of a study: stores every run once, keyed by what produced it, with its audio and scores.

Runs of one clip, which differ only in their edits, share a folder `audio/runs/<clip>/`. Its `runs.json` has the edits,
audio file and scores of each run. The document is replaced atomically under a lock, so that several processes can add
to it; existing entries are never changed.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError

from cache.errors import UserError
from cache.opening import file_size, open_file, read_file
from workbench.audio import write_flac
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.files import file_version, locked, remove_partials, replacing
from workbench.provenance import content_hash
from workbench.studies.study import Study

FOLDER = "audio/runs"
DOCUMENT = "runs.json"
LOCK = "runs.lock"
MAX_DOCUMENT_BYTES = 2**26

Audio = Float[np.ndarray, "channel sample"]


class RunRecord(BaseModel):
    """A stored run: its edits, audio and scores.

    `audio` is a file relative to the study, or "" if the run's numbers became NaN or infinite; `sha256` identifies the
    file's content. Scores are keyed by `workbench.scorers.score_key`, and None if the scorer failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    edits: list[dict[str, Any]]
    audio: str
    sha256: str
    scores: dict[str, float | None] = {}


Records = dict[str, RunRecord]


class _Document(BaseModel):
    """The contents of `runs.json`: what all runs of the folder have in common, and the runs by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_hash: str
    dtype: str
    settings: GenerationSettings
    clip: dict[str, Any]
    runs: Records = {}


@dataclass(frozen=True)
class RunStore:
    """Runs of a model (its weights and dtype) with the same settings, in the folder of a study; plain data."""

    root: Path
    weights_hash: str
    dtype: str
    settings: GenerationSettings

    @classmethod
    def of(cls, study: Study) -> "RunStore":
        """Return the run store of a study's model and settings."""
        return cls(study.path, study.model["weights_hash"], study.model["dtype"], study.spec.settings)

    def records(self, runs: Sequence[Run]) -> list[RunRecord | None]:
        """Return the record of each run, or None if it has not been generated.

        Raises:
            UserError: if a document is damaged, or is not a regular file.
        """
        places = [self._place(run) for run in runs]
        documents = {folder: self._read(folder) for folder in dict.fromkeys(folder for folder, _ in places)}
        return [documents[folder].get(name) for folder, name in places]

    def holds(self, runs: Sequence[Run]) -> list[bool]:
        """Whether each run has been generated and its audio, if any, exists; raise as `records` does."""
        return [record is not None and self._is_whole(record) for record in self.records(runs)]

    def add(
        self,
        runs: Sequence[Run],
        shared_with: Sequence[int],
        audio: Callable[[int], Audio | None],
        sample_rate: int,
    ) -> None:
        """Store runs that were generated together, except those that are already stored.

        Args:
            runs: the runs.
            shared_with: for each run, the index of the first run that was the same computed row; they share a file.
            audio: returns the audio of the run at an index, or None if it is not finite; called only for files that are
                written.
            sample_rate: sample rate of the audio in Hz.
        """
        files: dict[int, tuple[str, str]] = {}
        made: dict[str, Records] = defaultdict(dict)
        for place, (run, owner, record) in enumerate(zip(runs, shared_with, self.records(runs), strict=True)):
            if record is not None and self._is_whole(record):
                files.setdefault(owner, (record.audio, record.sha256))
                continue
            folder, name = self._place(run)
            if owner not in files:
                files[owner] = self._write(folder, name, audio(place), sample_rate)
            file, sha256 = files[owner]
            edits = [edit.to_json() for edit in run.edits]
            made[folder][name] = RunRecord(edits=edits, audio=file, sha256=sha256)
        clips = self._clips(runs)
        for folder, records in made.items():
            self._change(folder, clips[folder], partial(self._added, records))

    def add_scores(self, runs: Iterable[Run], key: str, scores: Mapping[str, float | None]) -> None:
        """Store scores by audio file, for all runs of these runs' clips that have the file but no such score."""

        def is_new(record: RunRecord) -> bool:
            return record.audio in scores and key not in record.scores

        def scored(there: Records) -> Records:
            new = {
                name: record.model_copy(update={"scores": {**record.scores, key: scores[record.audio]}})
                for name, record in there.items()
                if is_new(record)
            }
            return {**there, **new}

        for folder, clip in self._clips(runs).items():
            if any(map(is_new, self._read(folder).values())):
                self._change(folder, clip, scored)

    def scores_by_file(self, runs: Iterable[Run], key: str) -> dict[str, float | None]:
        """Return the stored scores for a key of the audio files of these runs' clips."""
        folders = {self._folder(run) for run in runs}
        records = (record for folder in folders for record in self._read(folder).values())
        return {record.audio: record.scores[key] for record in records if key in record.scores}

    def check(self, record: RunRecord) -> None:
        """Raise UserError if a run's file is not the one that was written."""
        if self._sha256(record.audio) != record.sha256:
            file = self.root / record.audio
            raise UserError(
                f"{file} has changed since it was generated. Delete the folder {file.parent}; its runs will be "
                "generated again."
            )

    @cached_property
    def _made_with(self) -> dict[str, Any]:
        """Return what all runs of the store have in common."""
        settings = self.settings.model_dump(mode="json")
        return {"weights_hash": self.weights_hash, "dtype": self.dtype, "settings": settings}

    def folder(self, clip: Clip) -> str:
        """Return the folder of a clip's runs, relative to the study; its name is a hash of what they have in common."""
        return f"{FOLDER}/{content_hash({**self._made_with, 'clip': clip.__dict__})}"

    def _folder(self, run: Run) -> str:
        assert isinstance(run.clip, Clip) and run.follows is None, "a run that follows another has no audio"
        return self.folder(run.clip)

    def _place(self, run: Run) -> tuple[str, str]:
        """Return the folder of a run's record, and the run's name."""
        folder = self._folder(run)
        return folder, content_hash([folder, [edit.to_json() for edit in run.edits]])

    def _clips(self, runs: Iterable[Run]) -> dict[str, Clip]:
        """Return the clips of runs by folder."""
        return {self._folder(run): run.clip for run in runs if isinstance(run.clip, Clip)}

    def _is_whole(self, record: RunRecord) -> bool:
        return not record.audio or file_size(self.root, record.audio) is not None

    def _added(self, new: Records, there: Records) -> Records:
        def stays(old: RunRecord, made: RunRecord) -> bool:
            is_rewritten = old.audio == made.audio and old.sha256 != made.sha256
            return self._is_whole(old) and not is_rewritten

        kept = {name: there[name] for name in new if name in there and stays(there[name], new[name])}
        return {**there, **new, **kept}

    def _write(self, folder: str, name: str, audio: Audio | None, sample_rate: int) -> tuple[str, str]:
        """Write a run's audio, if any; return the file and its SHA-256."""
        if audio is None:
            return "", ""
        file = f"{folder}/{name}.flac"
        with locked(self.root / folder / LOCK, self.root):  # an existing file may have been scored: it stays
            if file_size(self.root, file) is None:
                write_flac(self.root / file, audio, sample_rate, self.root)
        return file, self._sha256(file)

    def _sha256(self, file: str) -> str:
        with open_file(self.root, file) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def _read(self, folder: str) -> Records:
        """Read the records of a clip; raise UserError if the document is not a regular file."""
        name = f"{folder}/{DOCUMENT}"
        if file_size(self.root, name) is None:
            return {}
        return _read_records(self.root, name, file_version(self.root / name))

    def _change(self, folder: str, clip: Clip, change: Callable[[Records], Records]) -> None:
        """Change the current records of a clip under its lock."""
        with locked(self.root / folder / LOCK, self.root):
            remove_partials(self.root, self.root / folder)  # the lock excludes other writers
            document = _Document(**self._made_with, clip=clip.__dict__, runs=change(self._read(folder)))
            with replacing(self.root / folder / DOCUMENT, self.root) as partial:
                partial.write_bytes(document.model_dump_json().encode())


# Few, because each change of a document leaves its former version here, and runs with many edits are large.
@lru_cache(maxsize=16)
def _read_records(root: Path, name: str, version: tuple[int, int, int]) -> Records:  # noqa: ARG001 - tells versions apart
    try:
        return _Document.model_validate_json(read_file(root, name, MAX_DOCUMENT_BYTES)).runs
    except ValidationError as error:
        file = root / name
        raise UserError(
            f"{file} is damaged. Delete the folder {file.parent}; its runs will be generated again."
        ) from error
