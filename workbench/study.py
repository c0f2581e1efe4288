"""A study: a folder with everything of one investigation (plan, activations, audio, results, provenance)."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache import ActivationCache
from cache.errors import UserError
from cache.opening import is_partial
from cache.plan import TokenReduction
from cache.protocol import Dtype, canonical_json
from workbench.files import replacing
from workbench.interventions import Pass
from workbench.models import model_source
from workbench.models.protocol import GenerationSettings
from workbench.prompts import PromptSet
from workbench.provenance import content_hash, provenance

STUDY_VERSION = 2


class StudySpec(BaseModel):
    """What a study investigates: the model, its prompts and clips, and what is kept of each run.

    `n_prompts` prompts times `seeds` seeds give the clips, all with the same `lyrics`; `sites`, `steps`, `passes` and
    `tokens` give the activations, stored as `cache_dtype` or, for the sites named there, as `site_dtypes` says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompts: PromptSet
    settings: GenerationSettings
    n_prompts: int = Field(ge=1)
    seeds: int = Field(ge=1)
    seed: int = 0
    lyrics: str = ""
    sites: tuple[str, ...]
    steps: tuple[int, ...]
    passes: tuple[Pass, ...]
    tokens: TokenReduction = TokenReduction()
    cache_dtype: Dtype = "float16"
    site_dtypes: dict[str, Dtype] = {}
    zstd_level: int = Field(0, ge=0, le=22)
    clips_per_shard: int = Field(16, ge=1)


class Study:
    """An existing study folder: `Study.create` makes one, `Study.open` opens one."""

    def __init__(self, path: Path, spec: StudySpec, model: dict[str, Any], store: str | None = None) -> None:
        self.path = path
        self.spec = spec
        self.model = model
        self.store = store
        self.clips = pd.read_parquet(path / "clips.parquet")

    @classmethod
    def create(cls, path: Path, spec: StudySpec, model: dict[str, Any], store: str | None = None) -> "Study":
        """Create the folder, or reopen it when it holds the same spec and model.

        `model` is the adapter's `describe()`; `store` is the URL of the activation cache where it does not lie in the
        folder. Raises UserError when the folder holds another study or other files.
        """
        if (path / "study.json").exists():
            study = cls.open(path)
            if study.spec != spec or study.model["weights_hash"] != model["weights_hash"]:
                raise UserError(
                    f"{path} already holds another study ({_difference(study, spec)} differs): "
                    "give another folder, or delete that one."
                )
            if study.store != store:
                raise UserError(
                    f"{path} keeps its activations in {study.cache_location}, not in {store or 'its folder'}: "
                    "give the same store, or another folder."
                )
            return study
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not _only_clip_table(path))):
            raise UserError(f"{path} exists and is not a study: give a new or an empty folder.")
        clips = clip_table(spec)
        with replacing(path / "clips.parquet") as partial:
            clips.to_parquet(partial, index=False)
        document = {
            "study_version": STUDY_VERSION,
            "spec": spec.model_dump(mode="json"),
            "model": model,
            "store": store,
            "provenance": provenance(seed=spec.seed),
        }
        with replacing(path / "study.json") as partial:  # last: a folder without it is no study
            partial.write_text(json.dumps(document, indent=2), encoding="utf-8")
        return cls(path, spec, model, store)

    @classmethod
    def open(cls, path: Path) -> "Study":
        """Open a study folder; raises UserError when it is missing, half-written or of another version."""
        file = path / "study.json"
        if not file.is_file():
            raise UserError(f"{path} is not a study (it has no study.json): make one with `workbench trace`.")
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            version = document["study_version"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged: make the study anew with `workbench trace`.") from error
        if version != STUDY_VERSION:
            raise UserError(
                f"{path} is a study of format {version}, and this version reads format {STUDY_VERSION}: "
                "make it anew with `workbench trace`."
            )
        if not (path / "clips.parquet").is_file():
            raise UserError(f"{path} has no clips.parquet: make the study anew with `workbench trace`.")
        try:
            spec = StudySpec.model_validate(document["spec"])
            return cls(path, spec, document["model"], document["store"])
        except (ValidationError, KeyError) as error:
            raise UserError(f"{file} is damaged: make the study anew with `workbench trace`.") from error

    @property
    def cache(self) -> ActivationCache:
        """The activation cache; raises UserError while tracing has not finished."""
        return ActivationCache(self.cache_location)

    @property
    def cache_location(self) -> Path | str:
        """Folder or URL of the activation cache."""
        return self.store or self.path / "activations.zarr"

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the model's blocks, where they have others than "tf0", "tf1" …; else empty."""
        return tuple(self.model.get("block_names", ()))

    def audio_path(self, clip: int) -> Path:
        """FLAC file of a clip."""
        return self.path / "audio" / "clips" / f"{clip:05d}.flac"

    def truth_card(self) -> dict[str, Any] | None:
        """The planted truth of the study's model, where it has one. For tests and display; analyses never read it."""
        try:
            file = Path(model_source(self.spec.model)) / "truth.json"
        except UserError:  # the study came from elsewhere, its model is not on this machine
            return None
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def result_names(self) -> list[str]:
        """Names of the results that exist."""
        files = (self.path / "results").glob("*.nc")
        return sorted(file.stem for file in files if not is_partial(file.name))

    def result(self, name: str) -> xr.Dataset:
        """Load a result into memory; raises UserError when there is none of that name or its file is damaged."""
        file = self.path / "results" / f"{name}.nc"
        if not file.is_file():
            have = ", ".join(self.result_names()) or "no results yet"
            raise UserError(f"{self.path} has no result '{name}' (it has {have}).")
        try:
            return xr.load_dataset(file, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise UserError(f"The result {file} is damaged: compute it again.") from error

    def is_done(self, name: str, spec: BaseModel) -> bool:
        """Whether the result exists and was computed with this very spec."""
        return name in self.result_names() and self.result(name).attrs["spec"] == canonical_json(
            spec.model_dump(mode="json")
        )

    def save_result(self, name: str, dataset: xr.Dataset, spec: BaseModel, seconds: float) -> Path:
        """Save a result with its spec and provenance; `dataset.attrs` must have `kind` and `schema_version`."""
        spec_json = spec.model_dump(mode="json")
        identity = {
            "kind": dataset.attrs["kind"],
            "spec": spec_json,
            "study": self.spec.model_dump(mode="json"),
            "model": self.model,
        }
        labelled = dataset.assign_attrs(
            spec=canonical_json(spec_json),
            result_id=content_hash(identity),
            provenance=canonical_json(
                provenance(**self.model, seed=self.spec.seed, duration_s=round(seconds, 1))
            ),
        )
        file = self.path / "results" / f"{name}.nc"
        with replacing(file, self.path) as partial:
            labelled.to_netcdf(partial, engine="h5netcdf")
        return file


def clip_table(spec: StudySpec) -> pd.DataFrame:
    """The clips of a study, one row each: clip, prompt, lyrics, seed, duration (s), prompt_id, label_<concept>.

    Every clip has its own seed.
    """
    prompts = spec.prompts.fill(spec.n_prompts, spec.seed)
    rows = [
        {
            "prompt": prompt.text,
            "lyrics": spec.lyrics,
            "duration": spec.settings.duration,
            "prompt_id": prompt_id,
            **{f"label_{concept}": value for concept, value in prompt.labels.items()},
        }
        for _ in range(spec.seeds)
        for prompt_id, prompt in enumerate(prompts)
    ]
    table = pd.DataFrame(rows)
    table.insert(0, "clip", range(len(table)))
    table.insert(3, "seed", spec.seed + table["clip"])
    return table


def _difference(study: Study, spec: StudySpec) -> str:
    fields = [name for name in StudySpec.model_fields if getattr(study.spec, name) != getattr(spec, name)]
    return ", ".join(fields) or "weights"


def _only_clip_table(path: Path) -> bool:
    """What a creation that was interrupted leaves behind."""
    return all(file.name == "clips.parquet" or is_partial(file.name) for file in path.iterdir())
