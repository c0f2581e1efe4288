"""A folder of studies: which there are, what each is, and where its dashboard is."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from cache.errors import UserError
from cache.opening import UnsafeFile, checked_folder
from dashboards.results import Identity
from dashboards.versions import OWN_FILES, own_version
from workbench.studies.study import DOCUMENT, Study

STUDY_PATH = "study"
"""The part of the URL below which the studies are."""
KINDS = {
    "patching": "patching",
    "probes": "probes",
    "sae": "autoencoders",
    "steering": "steering",
    "benchmark": "evaluation",
}


@dataclass(frozen=True)
class Listed:
    """A line of the list: a study's name, its model, its clips, how many results of which kind, and when they changed
    last; or a fault.
    """

    name: str
    model: str = ""
    clips: int = 0
    results: dict[str, int] = field(default_factory=dict)
    changed: str = ""
    fault: str = ""


@dataclass(frozen=True)
class StudiesFolder:
    """A folder whose sub-folders are studies. Links are not followed."""

    path: Path
    url_prefix: str = "/"

    def names(self) -> list[str]:
        """Names of the sub-folders with a study, damaged or not, in alphabetical order."""
        try:
            names = [entry.name for entry in self.path.iterdir() if (entry / DOCUMENT).is_file()]
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}.") from error
        return sorted(names, key=lambda name: (name.casefold(), name))

    def fault(self) -> str:
        """A sentence as long as the folder cannot be read, or ""."""
        try:
            self.names()
        except UserError as error:
            return str(error)
        return ""

    def study_path(self, name: str) -> Path:
        """The folder of a study; raise UserError if there is none, or it is a link."""
        if name not in self.names():
            raise UserError(f"There is no study '{name}' in {self.path}.")
        try:
            return checked_folder(self.path, name)
        except UnsafeFile as error:
            raise UserError(
                f"{self.path / name} is a link, which is not followed: copy the study here."
            ) from error

    def url(self, name: str) -> str:
        """The path of a study's dashboard, as browsers see it."""
        return f"{self.url_prefix}{STUDY_PATH}/{quote(name, safe='')}/"

    def listed(self) -> list[Listed]:
        """A line for each study."""
        return [self._listed(name) for name in self.names()]

    def version(self) -> str:
        """A text that changes whenever the list does."""
        return sha256(repr(self.listed()).encode()).hexdigest()[:16]

    def _listed(self, name: str) -> Listed:
        try:
            path = self.study_path(name)
            model, clips = _described(path, own_version(path))
            files = [path / file for file in OWN_FILES] + list((path / "results").glob("*.nc"))
            changed = max(file.stat().st_mtime for file in files)
        except UserError as error:
            return Listed(name, fault=str(error))
        except OSError as error:  # removed meanwhile
            return Listed(name, fault=f"{self.path / name} cannot be read: {error.strerror}.")
        kinds = Counter(file.stem.partition("-")[0] for file in files[len(OWN_FILES) :])
        results = {kind: kinds[kind] for kind in KINDS if kinds[kind]}
        when = datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return Listed(name, model, clips, results, when)


@lru_cache(maxsize=1024)
def _described(path: Path, version: tuple[Identity | None, ...]) -> tuple[str, int]:
    """A study's model and number of clips, read once per version of its files."""
    del version
    study = Study.open(path)
    return str(study.model.get("model", study.spec.model)), len(study.clips)


def is_folder_of_studies(path: Path) -> bool:
    """Whether a folder is no study, but has studies in it."""
    return path.is_dir() and not (path / DOCUMENT).exists() and bool(StudiesFolder(path).names())
