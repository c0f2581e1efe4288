"""A study: a folder with everything of one investigation (plan, activations, audio, results, provenance)."""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cache import ActivationCache, tables
from cache.errors import CacheError, UserError
from cache.opening import (
    checked_folder,
    file_size,
    is_partial,
    open_folder,
    read_file,
    remove_file,
    remove_folder,
)
from cache.plan import TokenReduction
from cache.protocol import CLIPS, Pass, canonical_json
from workbench.documents import read_document
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.files import file_name, locked, replacing
from workbench.models import ORGANISMS, load_model, model_source
from workbench.prompts.prompt_sets import Encode, Prompt, PromptSet
from workbench.provenance import content_hash, provenance
from workbench.seeds import consecutive_seeds
from workbench.studies.confirmed import UnconfirmedStore, confirm, is_confirmed
from workbench.studies.recordings import read_recording
from workbench.studies.request import StudyOptions
from workbench.studies.result_files import load_result_file, read_result_attributes, save_result_file

if TYPE_CHECKING:
    from workbench.models.base import AudioDiffusionModel

STUDY_VERSION = 4
DOCUMENT = "study.json"
CACHE = "activations.zarr"
LOCKS = "locks"
CLIP_COLUMNS = ("clip", "prompt", "lyrics", "seed", "duration", "prompt_id", "encoding")
MAX_DOCUMENT_BYTES = 2**24


class StudySpec(StudyOptions):
    """The spec of a study: the model, its prompts and clips, and the activations to capture.

    There are `n_prompts` × `seeds` clips; `sites`, `steps`, `passes` and `tokens` select the activations, stored as
    `cache_dtype`, or as in `site_dtypes` for the sites there.
    """

    model: str
    prompts: PromptSet
    settings: GenerationSettings
    sites: tuple[str, ...]
    steps: tuple[int, ...]
    passes: tuple[Pass, ...]
    tokens: TokenReduction = TokenReduction()

    @property
    def n_clips(self) -> int:
        """Number of clips of the study."""
        return self.n_prompts * self.seeds

    def extends(self, other: "StudySpec") -> bool:
        """Whether this equals another spec except for more prompts or seeds (and fewer of neither)."""
        numbers = {"n_prompts": other.n_prompts, "seeds": other.seeds}
        larger = (
            self.n_prompts >= other.n_prompts and self.seeds >= other.seeds and self.n_clips > other.n_clips
        )
        return larger and self.model_copy(update=numbers) == other


class _Model(BaseModel):
    """A study's description of its model, from the adapter's `describe()`."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    weights_hash: str
    dtype: str
    block_names: list[str] = []


class _Document(BaseModel):
    """The contents of `study.json`."""

    study_version: Literal[4]
    spec: StudySpec
    model: dict[str, Any]
    store: str | None
    provenance: dict[str, Any] = {}

    @field_validator("model")
    @classmethod
    def _is_described(cls, model: dict[str, Any]) -> dict[str, Any]:
        _Model.model_validate(model)
        if model.keys() & {"seed", "clips", "duration_s"}:  # belong to a result's provenance
            raise ValueError("not a property of a model")
        return model


class Study:
    """A study folder, made by `Study.create` or opened by `Study.open`."""

    def __init__(self, path: Path, spec: StudySpec, model: dict[str, Any], store: str | None = None) -> None:
        self.path = path
        self.spec = spec
        self.model = model
        self.store = store
        self._is_confirmed = False
        self.clips = tables.to_pandas(_read_clips(path, spec.n_clips))

    @classmethod
    def create(
        cls, path: Path, spec: StudySpec, model: dict[str, Any], encode: Encode, store: str | None = None
    ) -> "Study":
        """Create the folder, or reopen it if it has the same spec and model.

        An otherwise equal study with fewer prompts or seeds is reopened unchanged (see `extended`).

        Args:
            path: the study folder.
            spec: the study's spec.
            model: the adapter's `describe()`.
            encode: returns the key of what the model reads from a prompt.
            store: URL of the activation cache, if it is not in the folder.

        Raises:
            UserError: if the folder has another study or other files.
        """
        if path.is_dir() and file_size(path, DOCUMENT) is not None:
            study = cls.open(path)
            is_same = study.spec == spec or spec.extends(study.spec)
            if not is_same or _model_differences(study.model, model):
                raise UserError(
                    f"{path} already has another study ({_difference(study, spec, model)}). "
                    "Give another folder, or delete this one."
                )
            if study.store != store:
                raise UserError(
                    f"{path} stores its activations in {study.store or 'its folder'}, not in {store or 'its folder'}. "
                    "Give the same store, or another folder."
                )
            study.confirm()
            return study
        if path.exists() and (not path.is_dir() or not _is_unfinished(path)):
            raise UserError(f"{path} exists but is not a study. Give a new or empty folder.")
        clips = clip_table(spec, encode)
        with locked(path / LOCKS / "study.lock", path):
            is_first = not (path / "study.json").exists()
            if is_first:
                _write(path, spec, clips, model, store)
        return cls(path, spec, model, store) if is_first else cls.create(path, spec, model, encode, store)

    def extended(self, spec: StudySpec, clips: pd.DataFrame) -> "Study":
        """Change this study to a spec with more or fewer clips; `clips` must begin as its own (see `more_clips`)."""
        before = {"extended_from": [self.spec.n_prompts, self.spec.seeds]} if spec.extends(self.spec) else {}
        with locked(self.path / LOCKS / "study.lock", self.path):
            _write(self.path, spec, clips, self.model, self.store, **before)
        return Study(self.path, spec, self.model, self.store)

    def was(self, spec: StudySpec) -> bool:
        """Whether this is the study of `spec`, or was before its last extension."""
        before = self.provenance.get("extended_from")
        return self.spec == spec or (self.spec.extends(spec) and before == [spec.n_prompts, spec.seeds])

    @property
    def provenance(self) -> dict[str, Any]:
        """With what and when the study was made or extended, from its `study.json`; raise UserError as `open` does."""
        return _read_document(self.path).provenance

    @property
    def is_there(self) -> bool:
        """Whether the study still exists."""
        return file_size(self.path, DOCUMENT) is not None

    @property
    def is_bare(self) -> bool:
        """Whether the folder has only what a trace creates before its first clip."""
        return {entry.name for entry in self.path.iterdir()} <= {DOCUMENT, CLIPS, CACHE, LOCKS}

    def remove(self) -> None:
        """Remove the files of a bare study; its cache stays."""
        for name in (DOCUMENT, CLIPS):  # study.json first: a folder without it is not a study
            remove_file(self.path, name)
        remove_folder(self.path, LOCKS)

    @classmethod
    def open(cls, path: Path) -> "Study":
        """Open a study folder; raise UserError if it is missing, half-written or of another version."""
        document = _read_document(path)
        return cls(path, document.spec, document.model, document.store)

    @property
    def cache(self) -> ActivationCache:
        """The activation cache; raises UserError if tracing has not finished, or it belongs to another study."""
        cache = ActivationCache(self.cache_location, allow_partial=True)
        if sentence := self._unfinished(cache):
            raise CacheError(sentence)
        if other := self._differences(cache):
            raise UserError(
                f"{self.cache_location} does not have the activations of {self.path} (other {', '.join(other)}). "
                "Restore the cache of this study there, or trace it again into another folder."
            )
        return cache

    def unfinished(self) -> str:
        """Return a sentence if the study is only partly traced (such as after an interrupted extension), or "".

        Raises:
            UserError: if its cache cannot be opened.
        """
        return self._unfinished(ActivationCache(self.cache_location, allow_partial=True))

    def _unfinished(self, cache: ActivationCache) -> str:
        missing = cache.plan.n_shards - len(cache.manifest.entries)
        if not missing:
            return ""
        ranges = (cache.plan.shard_clips(shard) for shard in cache.manifest.entries)
        there = sum(last + 1 - first for first, last in ranges)
        damaged = cache.manifest.damaged
        fault = f"; its manifest is damaged ({damaged[0]})" if damaged else ""
        return (
            f"{self.path} is half-written: {there} of its {cache.plan.n_clips} clips are traced{fault}. Run `workbench "
            "trace` again with the same options to trace the others or, after an extension, with the previous numbers "
            "to undo it."
        )

    def _differences(self, cache: ActivationCache) -> list[str]:
        """Return how a cache differs from this study's, without reading shards."""
        spec, plan = self.spec, cache.plan
        asked = {str(Site.parse(site)) for site in spec.sites if not site.startswith("*.")}
        asked |= {
            site for site in plan.sites for every in spec.sites if f"*.{site.partition('.')[2]}" == every
        }
        own = {
            "sites": asked == plan.sites.keys(),
            "dtypes": all(
                spec.site_dtypes.get(site, spec.cache_dtype) == plan.dtypes[site] for site in plan.sites
            ),
            "steps": spec.steps == plan.steps,
            "passes": spec.passes == plan.passes,
            "tokens": spec.tokens == plan.token_reduction,
            "model, prompts or settings": cache_identity(spec, self.model["weights_hash"]) == plan.identity,
            "clips": self._clips_hash == cache.group.clips_hash,
        }
        return [name for name, is_same in own.items() if not is_same]

    @cached_property
    def _clips_hash(self) -> str:
        return tables.stored_hash(_read_clips(self.path, self.spec.n_clips))

    @property
    def cache_location(self) -> Path | str:
        """Folder or URL of the activation cache.

        Raises:
            UnconfirmedStore: for a URL that has not been confirmed.
            UnsafeFile: if the folder is a link.
        """
        if self.store is None:
            return checked_folder(self.path, CACHE)
        if not self.is_confirmed:
            raise UnconfirmedStore(
                f"{self.path} stores its activations at {self.store}, which you have not confirmed. If you trust this "
                f"address, run `workbench cache info {shlex.quote(str(self.path))} --allow-store` once."
            )
        return self.store

    @property
    def is_confirmed(self) -> bool:
        """Whether the study was made here, or the user has confirmed its store and model folder."""
        return self._is_confirmed or is_confirmed(self._document())

    def confirm(self) -> None:
        """Confirm that the store and model folder in the study may be used, now and later."""
        self._is_confirmed = True
        with suppress(UserError):  # without a writable state folder, it is confirmed for now only
            confirm(self._document(), self.path)

    def _document(self) -> bytes:
        return read_file(self.path, DOCUMENT, MAX_DOCUMENT_BYTES)

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the model's blocks if they are not "tf0", "tf1" …; otherwise empty."""
        return tuple(self.model.get("block_names", ()))

    def audio_path(self, clip: int) -> Path:
        """Return the FLAC file of a clip."""
        return self.path / "audio" / "clips" / f"{clip:05d}.flac"

    def has_audio(self, clip: int) -> bool:
        """Whether the FLAC file of a clip exists; raises UnsafeFile if something else is in its place."""
        return file_size(self.path, self.audio_path(clip).relative_to(self.path)) is not None

    def read_audio(self, name: str) -> tuple[Float[np.ndarray, "channel sample"], int]:
        """Read a recording of the study by its relative path; raise UserError as `read_recording` does."""
        return read_recording(self.path, name, self.spec.settings.duration)

    def truth_card(self) -> dict[str, Any] | None:
        """Return the planted truth of the study's model, if any. For tests and display; analyses never read it.

        Raises:
            UserError: if it is damaged.
        """
        if self.spec.model not in ORGANISMS and not self.is_confirmed:
            return None  # a study from elsewhere may refer to any folder
        try:
            folder = Path(model_source(self.spec.model))
        except UserError:  # the model is not on this machine
            return None
        try:
            return read_document(folder, "truth.json", MAX_DOCUMENT_BYTES) if folder.is_dir() else None
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(
                f"{folder / 'truth.json'} is damaged. Remove it, or get the model again."
            ) from error

    def files(self, folder: str, ending: str) -> list[str]:
        """Return the names, without the ending, of entries with an ending in a folder of the study.

        Raises:
            UnsafeFile: if the folder is a link or not a folder; the entries are not checked.
        """
        with suppress(FileNotFoundError), open_folder(self.path, folder) as entries:
            names = [name for name in os.listdir(entries) if name.endswith(ending) and not is_partial(name)]
            return sorted(name.removesuffix(ending) for name in names)
        return []

    def result_names(self) -> list[str]:
        """Return the names of the existing results."""
        return self.files("results", ".nc")

    def result(self, name: str) -> xr.Dataset:
        """Load a result into memory; raise UserError if it does not exist or is damaged."""
        self._check_has(name)
        return load_result_file(self.path, _result_file(name))

    def result_attributes(self, name: str) -> dict[str, Any]:
        """Read the attributes of a result without its arrays; raise as `result` does."""
        self._check_has(name)
        return read_result_attributes(self.path, _result_file(name))

    def _check_has(self, name: str) -> None:
        if name not in self.result_names():
            have = ", ".join(self.result_names()) or "no results yet"
            raise UserError(f"{self.path} has no result '{name}'; it has {have}.")

    def is_done(self, name: str, spec: BaseModel) -> bool:
        """Whether the result exists and was computed with this spec from the study in its current state."""
        try:
            attributes = self.result_attributes(name)
        except UserError:  # missing or damaged: compute it
            return False
        return bool(attributes["result_id"] == self._result_id(attributes["kind"], spec))

    def done_result(self, name: str, spec: BaseModel) -> xr.Dataset | None:
        """Return the result if `is_done` and it can be read; None if it is to be computed."""
        with suppress(UserError):  # damaged: made again
            if self.is_done(name, spec):
                return self.result(name)
        return None

    def replaced(self, name: str, spec: BaseModel) -> str:
        """Return a sentence if a result computed with this spec would replace one with other options, else ""."""
        try:
            old = json.loads(self.result_attributes(name)["spec"])
        except UserError:  # missing or damaged
            return ""
        new = spec.model_dump(mode="json")
        other = [option for option in new if new[option] != old.get(option)]
        if not other:
            return ""
        return (
            f"This replaces the result {name}, which was computed with other options ({', '.join(other)}). To keep it, "
            f"stop now and work in a copy of {self.path}."
        )

    def made(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a result with these attributes was computed from the study in its current state."""
        return self._made(attributes, self.spec)

    def made_before_extension(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a result with these attributes was computed from the study before its last extension."""
        before = self.provenance.get("extended_from")
        if not (isinstance(before, list) and len(before) == 2):
            return False
        n_prompts, seeds = before
        smaller = self.spec.model_copy(update={"n_prompts": n_prompts, "seeds": seeds})
        return self._made(attributes, smaller)

    def _made(self, attributes: Mapping[str, Any], study: StudySpec) -> bool:
        made = self._id(attributes["kind"], json.loads(attributes["spec"]), study)
        return bool(attributes["result_id"] == made)

    def _result_id(self, kind: str, spec: BaseModel) -> str:
        """Return the id of a result: a hash of its kind and spec, and the study's spec and model."""
        return self._id(kind, spec.model_dump(mode="json"), self.spec)

    def _id(self, kind: str, spec: dict[str, Any], study: StudySpec) -> str:
        return content_hash(
            {
                "kind": kind,
                "spec": spec,
                "study": study.model_dump(mode="json", warnings=False),
                "model": self.model,
            }
        )

    def load_model(self, device: str = "cpu") -> "AudioDiffusionModel":
        """Load the study's model in the dtype it was traced in; raise UserError if its weights have changed."""
        model = load_model(self.spec.model, device=device, dtype=self.model["dtype"])
        self.check_model(model.weights_hash)
        return model

    def check_model(self, weights_hash: str) -> None:
        """Raise UserError if the weights are not those the study was made with."""
        if weights_hash != self.model["weights_hash"]:
            raise UserError(
                f"The weights of {self.spec.model} have changed since {self.path} was traced. "
                "Trace it again into another folder."
            )

    def making(
        self, name: str, kind: str = "result", can_be_named: bool = False
    ) -> AbstractContextManager[None]:
        """Lock a result, or something of another kind, while it is computed: a second process gets a UserError.

        It is advised to use another name, too, if users name results of this kind.
        """
        ways = [
            "Wait until it has finished",
            *(["give another name (--name)"] if can_be_named else []),
            "or stop it",
        ]
        own = name if kind == "result" else f"{kind} {name}"  # `file_name` keeps no space: it is no result's
        return locked(
            self.path / LOCKS / f"{file_name(own)}.lock",
            self.path,
            f"Another process is computing the {kind} '{name}' of {self.path}. {', '.join(ways)}.",
        )

    def remove_result(self, name: str) -> None:
        """Remove a result if it exists."""
        if name in self.result_names():
            remove_file(self.path, _result_file(name))

    def save_result(self, name: str, dataset: xr.Dataset, spec: BaseModel, seconds: float) -> xr.Dataset:
        """Save a result and return it with its spec and provenance; `attrs` must have `kind` and `schema_version`.

        Raises:
            UserError: if another result's name differs only in case, which some file systems ignore, or if the result
                could not be read again; an earlier one is unchanged.
        """
        alike = [other for other in self.result_names() if other.lower() == name.lower() and other != name]
        if alike:
            raise UserError(
                f"{self.path} has a result '{alike[0]}'. Give this one another name than '{name}'."
            )
        labelled = dataset.assign_attrs(
            spec=canonical_json(spec.model_dump(mode="json")),
            result_id=self._result_id(dataset.attrs["kind"], spec),
            provenance=canonical_json(
                provenance(
                    **self.model,
                    seed=self.spec.seed,
                    clips=self.spec.n_clips,
                    duration_s=round(seconds, 1),
                )
            ),
        )
        save_result_file(self.path, _result_file(name), labelled)
        return labelled


def _result_file(name: str) -> str:
    return f"results/{name}.nc"


def _write(
    path: Path, spec: StudySpec, clips: pd.DataFrame, model: dict[str, Any], store: str | None, **facts: Any
) -> None:
    """Write a study's clip table and then its `study.json`: a folder without it is not a study.

    `facts` are added to the provenance. The study is trusted, because it was made here.
    """
    with replacing(path / CLIPS) as partial:
        clips.to_parquet(partial, index=False)
    document = {
        "study_version": STUDY_VERSION,
        "spec": spec.model_dump(mode="json"),
        "model": model,
        "store": store,
        "provenance": provenance(seed=spec.seed, **facts),
    }
    content = json.dumps(document, indent=2).encode()
    with replacing(path / DOCUMENT) as partial:
        partial.write_bytes(content)
    with suppress(UserError):
        confirm(content, path)


def _read_document(path: Path) -> "_Document":
    """Read a `study.json`; raise UserError if it is missing, damaged or of another version."""
    try:
        content = read_document(path, DOCUMENT, MAX_DOCUMENT_BYTES) if path.is_dir() else None
    except FileNotFoundError:
        content = None
    except ValueError as error:
        raise _damaged(path) from error
    if content is None:
        raise UserError(f"{path} is not a study (it has no study.json). Make one with `workbench trace`.")
    version = content.get("study_version")
    if type(version) is int and version != STUDY_VERSION:
        raise UserError(
            f"{path} is a study of format {version}, but this version reads format {STUDY_VERSION}. "
            f"{_make_again(path)}"
        )
    if file_size(path, CLIPS) is None:
        raise UserError(f"{path} has no clips.parquet. {_make_again(path)}")
    try:
        return _Document.model_validate(content)
    except (ValidationError, UserError) as error:
        raise _damaged(path) from error


def _read_clips(path: Path, n_clips: int) -> pa.Table:
    """Read a study's clip table; raise UserError if it is damaged or lacks clips or columns."""
    try:
        table = tables.parse(read_file(path, CLIPS, tables.MAX_FILE_BYTES))
    except ValueError as error:
        raise UserError(f"{path / CLIPS} is damaged ({error}). {_make_again(path)}") from error
    if table.num_rows < n_clips:
        raise UserError(
            f"{path / CLIPS} has {table.num_rows} clips, but the study has {n_clips}. {_make_again(path)}"
        )
    if missing := [name for name in CLIP_COLUMNS if name not in table.column_names]:
        raise UserError(f"{path / CLIPS} has no column '{missing[0]}'. {_make_again(path)}")
    # An interrupted extension leaves a table with more clips than the spec.
    return table.slice(0, n_clips)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path / DOCUMENT} is damaged. {_make_again(path)}")


def _make_again(path: Path) -> str:
    """Return what to do about a study that cannot be opened: a trace opens it, too."""
    return (
        "Make the study again with `workbench trace` in another folder, or in this one after deleting "
        f"{path}; or restore it from a copy."
    )


def cache_identity(spec: StudySpec, weights_hash: str) -> dict[str, Any]:
    """Return what identifies the study's cache (`CachePlan.identity`)."""
    return {
        "weights_hash": weights_hash,
        "settings": spec.settings.model_dump(mode="json"),
        # Descriptors are measured in the audio, and change no activation.
        "prompts": spec.prompts.model_dump(mode="json", exclude={"descriptors"}),
        "seed": spec.seed,
        "lyrics": spec.lyrics,
    }


def clip_table(spec: StudySpec, encode: Encode) -> pd.DataFrame:
    """Make the clip table of a study: `CLIP_COLUMNS`, and label_<concept> for each concept.

    Every clip has its own seed. Prompts that are the same tokens to the model have the same `encoding`, even if their
    `prompt_id` differs.
    """
    prompts = spec.prompts.fill(spec.n_prompts, spec.seed)
    return _numbered(pd.concat([_prompt_table(spec, prompts, encode)] * spec.seeds, ignore_index=True), spec)


def more_clips(clips: pd.DataFrame, spec: StudySpec, encode: Encode) -> pd.DataFrame:
    """Append the additional clips of a larger spec to a clip table: new prompts, and more seeds of all prompts.

    Raises:
        UserError: if there are fewer different prompts than in the spec.
    """
    old = clips.drop_duplicates("prompt_id").drop(columns=["clip", "seed"])
    n_new = spec.n_prompts - len(old)
    prompts = spec.prompts.fill(n_new, spec.seed, without=old["prompt"].tolist()) if n_new else []
    whole = pd.concat([old, _prompt_table(spec, prompts, encode, len(old))], ignore_index=True)
    made = clips["prompt_id"].value_counts()
    turns = [whole[whole["prompt_id"].map(made).fillna(0) <= turn] for turn in range(spec.seeds)]
    return _numbered(pd.concat([clips.drop(columns=["clip", "seed"]), *turns], ignore_index=True), spec)


def _prompt_table(spec: StudySpec, prompts: list[Prompt], encode: Encode, first_id: int = 0) -> pd.DataFrame:
    """Return the prompt columns of a clip table, one row per prompt."""
    rows = [
        {
            "prompt": prompt.text,
            "lyrics": spec.lyrics,
            "duration": spec.settings.duration,
            "prompt_id": prompt_id,
            "encoding": encode(prompt.text),
            **{f"label_{concept}": value for concept, value in prompt.labels.items()},
        }
        for prompt_id, prompt in enumerate(prompts, start=first_id)
    ]
    return pd.DataFrame(rows)


def _numbered(table: pd.DataFrame, spec: StudySpec) -> pd.DataFrame:
    """Add the numbers and seeds of clips to a table."""
    table.insert(0, "clip", range(len(table)))
    table.insert(3, "seed", consecutive_seeds(spec.seed, len(table)))
    return table


def _difference(study: Study, spec: StudySpec, model: dict[str, Any]) -> str:
    fields = [name for name in StudySpec.model_fields if getattr(study.spec, name) != getattr(spec, name)]
    fields += _model_differences(study.model, model)
    return f"{', '.join(fields)} {'differ' if len(fields) > 1 or fields == ['weights'] else 'differs'}"


def _model_differences(model: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what two models differ in; clips of one study have the same weights and the same rounding."""
    names = {"weights_hash": "weights", "dtype": "model_dtype"}
    return [name for key, name in names.items() if model[key] != other[key]]


def _is_unfinished(path: Path) -> bool:
    """Whether a folder is empty, or has only what an interrupted creation left."""
    return all(file.name in (LOCKS, CLIPS) or is_partial(file.name) for file in path.iterdir())
