"""The commands that make results, and what to do about one that is damaged."""

import re
import shlex
from contextlib import suppress
from typing import Any

from analyses.patching.spec import DEFAULT_QUESTION, QUESTIONS
from analyses.sae.spec import MADE_WITH
from analyses.steering.study_files import pack_files
from analyses.steering_spec import CHECK
from cache.errors import UserError
from workbench.documents import read_document
from workbench.studies.study import Study

COMMANDS = {
    "patching": "patch",
    "probes": "probe",
    "sae": "sae train",
    "steering": "steer apply",
    "benchmark": "steer evaluate",
    "evaluation": "sae evaluate",
    "feature": "sae effects",
    "published": "import localisation",
}
"""The command of each kind of result, by what its name begins with, up to the first "-"."""
PROTOCOLS = ("strict", "published")
EFFECTS_PREFIX = "feature-effects-"  # with which the names of results of features' effects begin
LADDER = "ladder-"  # with which the names of ladders begin, unless they were named
TRIAL = "benchmark-"  # with which the names of the trials of an evaluation begin
_SITE, _NUMBER = re.compile(r"tf\d+\.[a-z_.]+(-\d+)?"), re.compile(r"-\d+$")
MOST_CONFIG_BYTES = 2**20


def command(study: Study, kind: str, name: str = "") -> str:
    """The command line that makes a result of `kind` for this study; `name` is what its name says after the kind."""
    folder = shlex.quote(str(study.path))
    if kind == "steering" and name.startswith(LADDER):
        return f"workbench steer ladder {folder} --concept {shlex.quote(name.removeprefix(LADDER))}"
    if kind == "steering" and name.startswith(CHECK):
        return f"workbench steer check {folder} {shlex.quote(name.removeprefix(CHECK))}"
    if kind == "steering" and name.startswith(TRIAL):
        return f"workbench steer evaluate {folder}"
    if kind == "benchmark":
        protocol = name in PROTOCOLS[1:]
        option = f" --{'protocol' if protocol else 'name'} {shlex.quote(name)}"
        return f"workbench steer evaluate {folder}{'' if name in ('', PROTOCOLS[0]) else option}"
    if kind == "published":
        return f"workbench import localisation SOURCE --study {folder} --model {shlex.quote(name)}"
    return f"workbench {COMMANDS[kind]} {folder}{_OPTIONS.get(kind, _no_options)(study, name)}"


def _no_options(study: Study, name: str) -> str:
    del study, name
    return ""


def _sae_options(study: Study, name: str) -> str:
    site = _site_of_sae(study, name)
    return f" --site {shlex.quote(site)}" + ("" if name in ("", site) else f" --name {shlex.quote(name)}")


def _patching_options(study: Study, name: str) -> str:
    del study
    if name in ("", DEFAULT_QUESTION):
        return ""
    return f" --question {name}" if name in QUESTIONS else f" --name {shlex.quote(name)}"


def _steering_options(study: Study, name: str) -> str:
    with suppress(UserError):
        if name in {file.stem for file in pack_files(study.path)}:
            return f" --pack {shlex.quote(name)}"
    return " --pack NAME"


def _evaluation_options(study: Study, name: str) -> str:
    del study
    return f" {shlex.quote(name)}"


def _effects_options(study: Study, name: str) -> str:
    """The autoencoders, whose names the result's has with "+" between, unless that would be too long."""
    names = name.removeprefix(EFFECTS_PREFIX.removeprefix("feature-")).split("+")
    is_known = all(f"sae-{each}" in study.result_names() for each in names)
    return f" {shlex.join(names)}" if is_known else " NAME"


_OPTIONS = {
    "sae": _sae_options,
    "patching": _patching_options,
    "steering": _steering_options,
    "evaluation": _evaluation_options,
    "feature": _effects_options,
}


def _site_of_sae(study: Study, name: str) -> str:
    """The site that an autoencoder says it is of, or its name if it is called like a site, or the study's first."""
    site = _sae_metadata(study, name).get("hook_name")
    if isinstance(site, str) and _SITE.fullmatch(site):
        return site
    # The first autoencoder of a site is called like it, the next <site>-2.
    return _NUMBER.sub("", name) if _SITE.fullmatch(name) else study.spec.sites[0]


def _sae_metadata(study: Study, name: str) -> dict[str, Any]:
    """The metadata in an autoencoder's configuration; none if it cannot be read."""
    with suppress(UserError, OSError, ValueError):
        metadata = read_document(study.path, f"sae/{name}/cfg.json", MOST_CONFIG_BYTES).get("metadata")
        return metadata if isinstance(metadata, dict) else {}
    return {}


def remedy(study: Study, kind: str, name: str) -> str:
    """What to do about a result that cannot be shown, to follow a colon."""
    if kind not in COMMANDS:
        return "delete it, as no command makes a result of this name"
    made = f"`{command(study, kind, name)}`"
    if kind == "published":
        return f"import it again with {made}, where SOURCE is its table"
    # An autoencoder whose result is damaged is never replaced: nobody knows what that would be.
    how = "delete it, and compute it again with" if kind == "sae" else "compute it again with"
    return f"{how} {made} and the options that it had{_where_options_are(study, kind, name)}"


def _where_options_are(study: Study, kind: str, name: str) -> str:
    """Where the options of an autoencoder are kept besides its result, to follow "options that it had"; or ""."""
    if kind == "sae" and MADE_WITH in _sae_metadata(study, name):
        return f", which sae/{name}/cfg.json names as {MADE_WITH}"
    return ""
