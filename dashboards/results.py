"""A study's results as figures need them: present or not, and by which command they come."""

import shlex
from functools import lru_cache
from pathlib import Path

import xarray as xr

from cache.errors import UserError
from workbench.study import Study

PATCHING_SCHEMA = 2
COMMANDS = {"patching": "patch", "probes": "probe", "sae": "sae"}


def command(study: Study, kind: str) -> str:
    """The command line that makes a result of `kind` for this study."""
    site = f" --site {study.spec.sites[0]}" if kind == "sae" else ""
    return f"workbench {COMMANDS[kind]} {shlex.quote(str(study.path))}{site}"


def has_result(study: Study, name: str) -> bool:
    """Whether the study has the result."""
    return name in study.result_names()


def load_result(study: Study, name: str) -> xr.Dataset:
    """Load a result, once for each version of its file; not to be changed in place.

    Raises UserError naming the command that makes it when there is none.
    """
    if not has_result(study, name):
        have = ", ".join(study.result_names()) or "no results yet"
        kind = name.partition("-")[0]
        raise UserError(
            f"{study.path} has no result '{name}' (it has {have}): make it with `{command(study, kind)}`."
        )
    changed = (study.path / "results" / f"{name}.nc").stat().st_mtime_ns
    return _load(study.path, name, changed)


@lru_cache(maxsize=16)
def _load(study_path: Path, name: str, changed: int) -> xr.Dataset:
    del changed  # part of the key only: a result that was computed anew is read anew
    return Study.open(study_path).result(name)


def sae_sites(study: Study) -> list[str]:
    """Sites that have a trained sparse autoencoder."""
    return [name.removeprefix("sae-") for name in study.result_names() if name.startswith("sae-")]


def patching_names(study: Study) -> list[str]:
    """Names of the study's patching results, without "patching-"; that of the blocks first."""
    names = [name.removeprefix("patching-") for name in study.result_names() if name.startswith("patching-")]
    return sorted(names, key=lambda name: name != "blocks")


def load_patching(study: Study, name: str) -> xr.Dataset:
    """Load a patching result; raises UserError when there is none of that name, or it is of another version."""
    result = load_result(study, name)
    version = int(result.attrs["schema_version"])
    if version != PATCHING_SCHEMA:
        raise UserError(
            f"The result '{name}' of {study.path} has schema version {version}, and this version reads "
            f"{PATCHING_SCHEMA}: make it anew with `{command(study, 'patching')}`."
        )
    return result
