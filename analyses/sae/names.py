"""The sparse autoencoders of a study, by name: the folder `sae/<name>/` and the result `sae-<name>`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from pydantic import BaseModel

from analyses.sae.spec import FOLDER, MADE_WITH, TrainSettings
from cache.errors import UserError
from cache.opening import checked_folder
from workbench.files import file_name
from workbench.sae.base import SAE
from workbench.sae.folder import CONFIG_FILE, load_folder
from workbench.sae.transcoder import Transcoder
from workbench.studies.study import Study

PREFIX = "sae-"


def sae_names(study: Study, site: str | None = None) -> list[str]:
    """Return the names of a study's autoencoders; with `site`, of those of a site.

    One that is called like its site comes first, as it is the first that was trained there.
    """
    names = [name for name in study.files(FOLDER, "") if has_sae(study, name)]
    found = [name for name in names if site in (None, _site(study, name))]
    return sorted(found, key=lambda name: (name != site, name))


def _site(study: Study, name: str) -> str:
    """Return the site of an autoencoder; without a result that says so, it is called like its site."""
    with suppress(UserError):
        return str(study.result_attributes(PREFIX + name).get("site", name))
    return name


def saes_of_sites(study: Study, sites: Sequence[str]) -> dict[str, tuple[str, SAE]]:
    """Return name and autoencoder of each site that has one, of several the one called like the site, else the first.

    Transcoders, which reconstruct another site, are left out.
    """
    found = {}
    for site in sites:
        loaded = ((name, load_sae(study, name)) for name in sae_names(study, site))
        first = next((each for each in loaded if not isinstance(each[1], Transcoder)), None)
        if first is not None:
            found[site] = first
    return found


def has_sae(study: Study, name: str) -> bool:
    """Whether the study has an autoencoder of this name."""
    return (sae_folder(study, name) / CONFIG_FILE).is_file()


def check_has(study: Study, name: str) -> None:
    """Raise UserError if the study has no autoencoder of this name."""
    if name not in study.files(FOLDER, ""):
        raise UserError(has_none(study, f"named '{name}'"))


def load_sae(study: Study, name: str) -> SAE:
    """Load an autoencoder.

    Raises:
        UserError: if the study has none of this name, or it is damaged.
    """
    folder = checked_folder(study.path, Path(FOLDER, name))
    if not folder.is_dir():
        raise UserError(has_none(study, f"named '{name}'"))
    return load_folder(folder, study.path)


def sae_folder(study: Study, name: str) -> Path:
    """Return the folder of an autoencoder."""
    return study.path / FOLDER / name


def chosen_name(study: Study, spec: BaseModel, site: str, name: str = "") -> str:
    """Return the name to keep an autoencoder by: that of one of the same spec, else the given or next free one.

    Without a given name, the first of a site is called like the site, the next `<site>-2`, and so on.

    Raises:
        UserError: if the study has another autoencoder of the given name, or one whose result is damaged.
    """
    taken = study.files(FOLDER, "")
    if not name:
        same = [each for each in taken if _is_complete(study, each, spec)]
        return same[0] if same else _free_name(study, spec, site, taken)
    _check_name(name)
    if name in taken and not _is_of(study, name, spec):
        raise UserError(
            f"{study.path} has an autoencoder '{name}' already, made with other options, which "
            f"{FOLDER}/{name}/{CONFIG_FILE} names as {MADE_WITH}. Give these options or another name."
        )
    return name


def chosen_names(study: Study, specs: Sequence[TrainSettings], name: str = "") -> list[str]:
    """Return the names to keep several by, as `chosen_name`; with a given name, `<name>`, `<name>-2`, and so on."""
    if len(specs) == 1:
        return [chosen_name(study, specs[0], specs[0].site, name)]
    if name:
        _check_name(name)
    taken, names = study.files(FOLDER, ""), list[str]()
    for spec in specs:
        own = [each for each in taken if each not in names and _is_complete(study, each, spec)]
        names.append(own[0] if own else _free_name(study, spec, name or spec.site, taken, names))
    return names


def _free_name(
    study: Study, spec: BaseModel, base: str, taken: Sequence[str], given: Sequence[str] = ()
) -> str:
    """Return the first name that no autoencoder has, or one without a result that may be replaced."""
    finished = study.result_names()
    return next(
        each
        for each in _names(base)
        if each not in given
        and (each not in taken or (PREFIX + each not in finished and _may_be_replaced(study, each, spec)))
    )


def _check_name(name: str) -> None:
    if file_name(name) != name:
        raise UserError(f"The name must be a file name, such as {file_name(name)}; got '{name}'.")
    if "+" in name:
        raise UserError(f"The name must not contain '+', which joins the names of several; got '{name}'.")


def _names(site: str) -> Iterator[str]:
    yield site
    for number in count(2):
        yield f"{site}-{number}"


def _is_of(study: Study, name: str, spec: BaseModel) -> bool:
    """Whether an autoencoder was made with this spec, or has no result and may be replaced.

    Raises:
        UserError: if its result is damaged, so that nobody knows what would be replaced.
    """
    if PREFIX + name not in study.result_names():
        return _may_be_replaced(study, name, spec)
    return bool(json.loads(study.result_attributes(PREFIX + name)["spec"]) == spec.model_dump(mode="json"))


def _may_be_replaced(study: Study, name: str, spec: BaseModel) -> bool:
    """Whether an autoencoder was not finished or is damaged, or would be trained to the same weights again."""
    try:
        made_with = load_sae(study, name).config.metadata.get(MADE_WITH)
    except UserError:
        return True
    return bool(made_with == spec.model_dump(mode="json"))


def _is_complete(study: Study, name: str, spec: BaseModel) -> bool:
    """Whether an autoencoder was made with this spec and has a result that can be read."""
    with suppress(UserError):
        return PREFIX + name in study.result_names() and _is_of(study, name, spec)
    return False


def has_none(study: Study, which: str) -> str:
    """Return the sentence that a study lacks an autoencoder; `which` says which one."""
    trained = ", ".join(study.files(FOLDER, "")) or "none yet"
    return f"{study.path} has no sparse autoencoder {which} (it has {trained}). Train one first."
