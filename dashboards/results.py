"""A study's results for figures: which are usable, damaged or missing, and the commands that make them."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import xarray as xr

from analyses.steering_spec import CHECK
from cache.errors import UserError
from dashboards.names import shortened
from dashboards.result_commands import COMMANDS, TRIAL, command, remedy
from dashboards.result_shapes import shape_fault
from dashboards.tables import benchmark
from dashboards.tables.features import EFFECTS, EFFECTS_VERSION, MEASURES, NEARNESS, SCORES, STEP_MEASURES
from dashboards.tables.patching import AGREEMENT, CELL_VALUES, CONCEPT_VALUES, TESTS, TEXTS
from dashboards.tables.probes import COLUMNS
from dashboards.tables.steering import ARM_VALUES, CHECKS, DENOMINATOR, IMPACTS
from workbench.files import file_version
from workbench.studies.study import Study

# Kinds of results are called here by what their names begin with, up to the first "-".
SCHEMA_VERSIONS = {
    "patching": 6,
    "probes": 3,
    "sae": 5,
    "steering": 3,
    "benchmark": 3,
    "evaluation": 1,
    "feature": EFFECTS_VERSION,
    "published": 1,
}
WORDS = {
    "patching": "patching",
    "probes": "probes",
    "sae": "autoencoder",
    "steering": "steering",
    "benchmark": "evaluation",
}
"""What screens call the kinds of results that have a page."""
STORED_KINDS = {
    **{kind: kind for kind in COMMANDS},
    "benchmark": "steering-benchmark",
    "evaluation": "sae-evaluation",
    "feature": "feature-effects",
}
"""What results say that they are."""
MOST_TOLD = 4
"""Results of a kind that cannot be shown of which a page tells; the lines above all pages have the others."""
# The variables that pages and figures read from each kind of result, and which must not be empty.
_VARIABLES = {
    "patching": (
        *("score", "audio", "noise_seed", "orientation", "row", "column", "direction", "role"),
        *("block", "null_of", "null_kind"),
        *(*TEXTS, *CELL_VALUES, *TESTS, *CONCEPT_VALUES, *AGREEMENT),
    ),
    "probes": ("accuracy", "control", "fold", *(name for name in COLUMNS if name != "q_value")),
    "sae": (
        *("train_step", "rank", "value", "density", "max_activation", "mean_activation", "alive", "top_clip"),
        *("top_activation", "top_second", "top_step", "hist_edge", "hist_count", "step_profile", "auroc"),
        *("auroc_shuffled", "p_adjusted", "label", "sigma", "gated", "mean_to_spread"),
        *("quantile", "quantile_clip", "quantile_activation", "quantile_second", "quantile_step"),
        *(f"{name}{end}" for name in SCORES for end in ("", "_lo", "_hi")),
        *(f"{by}_{what}" for by, measure in NEARNESS.items() for what in ("neighbour", measure)),
        *(*MEASURES, *(f"final_{name}" for name in MEASURES), *(f"step_{name}" for name in STEP_MEASURES)),
    ),
    "steering": (
        *(
            "score",
            "audio",
            "noise_seed",
            "row",
            "strength",
            "role",
            "null_of",
            "clean_prompt",
            "corrupt_prompt",
        ),
        *(*ARM_VALUES, *CHECKS, *IMPACTS, *DENOMINATOR, "defined", "n", "n_pairs", "way"),
    ),
    "benchmark": tuple(name for names in (benchmark.STRICT | benchmark.PUBLISHED).values() for name in names),
    "feature": ("value", "features", "set", "size", "role", *EFFECTS),
    "published": ("impact", "mean", "metric"),
}
_LABELS = {
    "patching": ("concept", "arm", "scorer", "pair", "seed"),
    "probes": ("concept", "site", "step"),
    "sae": ("feature", "step", "mean_to_spread"),
    "steering": ("concept", "arm", "scorer", "pair", "seed"),
    "benchmark": ("concept", "way", "sign", "scorer", "measure"),
    "feature": ("cell", "scorer", "sae", "factor", "concept"),
    "published": ("concept", "block"),
}
_ATTRIBUTES = {
    "patching": (
        "question",
        "column_label",
        "correction",
        "schema_version",
        "result_id",
        "spec",
        "provenance",
    ),
    "probes": ("result_id", "spec", "provenance"),
    "sae": ("site", "architecture", "explained_variance_convention", "result_id", "spec", "provenance"),
    "steering": ("concept", "positive", "negative", "schema_version", "result_id", "spec", "provenance"),
    "benchmark": ("protocol", "schema_version", "result_id", "spec", "provenance"),
}
LONGEST_FACT = 60  # characters
Identity = tuple[int, int, int]

_NAME = re.compile(r"[\w.+-]{1,120}")
_ADVICE = re.compile(r"(\. Delete it and compute it again)?\.?$")  # replaced by the command


class LostResult(UserError):
    """A result that a page shows, and that is missing or cannot be shown by now; the frame of the page says so."""


def has_result(study: Study, name: str) -> bool:
    """Whether the study has the result, usable or not."""
    return name in study.result_names()


def load_result(study: Study, name: str) -> xr.Dataset:
    """Load a result, once per version of its file; do not change it in place.

    Raises:
        LostResult: it is missing or damaged; the message names the command that makes it.
    """
    if not has_result(study, name):
        have = ", ".join(study.result_names()) or "no results yet"
        kind, _, site = name.partition("-")
        made = f": make it with `{command(study, kind, site)}`" if kind in COMMANDS else ""
        raise LostResult(f"{study.path} has no result '{name}' (it has {have}){made}.")
    fault = problem(study, name)
    if fault is not None:
        raise LostResult(fault)
    return _load(study.path, name, file_version(_file(study.path, name)))


def result_identity(study: Study, name: str) -> Identity:
    """Identify the version of a result.

    Raises:
        UserError: as `load_result`.
    """
    load_result(study, name)
    return file_version(_file(study.path, name))


def problem(study: Study, name: str) -> str | None:
    """Why an existing result cannot be used, and what to do; None if it can be used."""
    try:
        return _problem(study.path, name, file_version(_file(study.path, name)))
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(_file(study.path, name), error)


def _unreadable(file: Path, error: OSError) -> str:
    """A sentence on a file that the system does not let us read; not remembered, as the file stays the same."""
    if isinstance(error, PermissionError):
        allowed = f"`chmod u+r {shlex.quote(str(file))}`"
        return f"The result {file} cannot be read, as its permissions forbid it: allow it with {allowed}."
    return f"The result {file} cannot be read ({error.strerror}): check the disk."


def problems(study: Study) -> list[str]:
    """One sentence for each result that cannot be used."""
    sentences = [problem(study, name) for name in study.result_names()]
    return [sentence for sentence in sentences if sentence is not None]


def unfinished(study: Study) -> list[str]:
    """A sentence if the study is only partly traced; results can be shown without its cache."""
    with suppress(UserError):
        return [sentence for sentence in [study.unfinished()] if sentence]
    return []


def outdated(study: Study) -> list[str]:
    """One sentence for each result that was not computed from the study in its current state."""
    return [sentence for name in usable_names(study) if (sentence := outdated_result(study, name))]


def outdated_result(study: Study, name: str) -> str:
    """A sentence if a result was not computed from the study in its current state; "" otherwise."""
    kind, _, site = name.partition("-")
    origin = other_origin(study, name)
    if not origin:
        return ""
    return f"results/{name}.nc {origin}: run `{command(study, kind, site)}` to compute it again, or delete the file."


def other_origin(study: Study, name: str) -> str:
    """What a result was computed from, if not from the study in its current state, to follow "The result"; or ""."""
    kind = name.partition("-")[0]
    if kind not in COMMANDS or kind == "published":  # which is of a paper's study
        return ""
    attributes = _attributes(study.path, name, file_version(_file(study.path, name)))
    if study.made(attributes):
        return ""
    if study.made_before_extension(attributes):
        return "was computed before the study was extended"
    return f"was not computed from this study as it is now ({_difference(study, attributes)})"


def _difference(study: Study, attributes: dict[str, Any]) -> str:
    """What differs between the study that a result was computed from and this one, as far as the result tells."""
    made, own = json.loads(attributes["provenance"]), study.model
    facts = {
        "model": (made.get("model"), own["model"]),
        "weights": (made.get("weights_hash"), own["weights_hash"]),
        "precision": (made.get("dtype"), own["dtype"]),
        "first seed": (made.get("seed"), study.spec.seed),
        "number of clips": (made.get("clips"), study.spec.n_clips),
    }
    for name, (there, here) in facts.items():
        if there not in (None, here):
            return f"{name} {shortened(str(there), LONGEST_FACT)} instead of {here}"
    return "other prompts, settings or number of clips, or made by an earlier version of the workbench"


def usable_names(study: Study, kind: str = "") -> list[str]:
    """Names of the results that can be shown, all or those of a kind."""
    names = _names_of(study, kind) if kind else study.result_names()
    return [name for name in names if problem(study, name) is None]


def is_usable(study: Study, name: str) -> bool:
    """Whether the study has the result and it can be shown."""
    return has_result(study, name) and problem(study, name) is None


def remove_unusable(study: Study, names: Iterable[str]) -> None:
    """Remove those of the results that cannot be shown, so that they are computed again."""
    for name in names:
        if not is_usable(study, name):
            study.remove_result(name)


def _file(study_path: Path, name: str) -> Path:
    return study_path / "results" / f"{name}.nc"


@lru_cache(maxsize=16)
def _load(study_path: Path, name: str, version: Identity) -> xr.Dataset:
    del version  # only part of the cache key: a changed result is read again
    return Study.open(study_path).result(name)


@lru_cache(maxsize=1024)
def _attributes(study_path: Path, name: str, version: Identity) -> dict[str, Any]:
    del version  # only part of the cache key: a changed result is read again
    return Study.open(study_path).result_attributes(name)


@lru_cache(maxsize=1024)
def _problem(study_path: Path, name: str, version: Identity) -> str | None:
    kind, _, site = name.partition("-")
    try:
        if version[2] == 0:
            fault = "is empty (it has 0 bytes)"
        else:
            result, study = _load(study_path, name, version), Study.open(study_path)
            fault = _fault(result, kind) or shape_fault(result, kind, len(study.clips))
    except UserError as error:
        fault = _ADVICE.sub("", str(error))
    else:
        fault = f"The result {_file(study_path, name)} {fault}" if fault else ""
    if not fault:
        return None
    return f"{fault}: {remedy(Study.open(study_path), kind, site)}."


def _fault(result: xr.Dataset, kind: str) -> str:
    """Why a result of `kind` cannot be shown; "" if it can."""
    if fault := _format_fault(result.attrs, kind):
        return fault
    variables = _VARIABLES.get(kind, ())
    if kind == "benchmark" and result.attrs.get("protocol") == "published":
        variables = tuple(name for names in benchmark.PUBLISHED.values() for name in names)
    needed = {name: name in result.variables for name in (*variables, *_LABELS.get(kind, ()))}
    needed |= {
        name: name == "schema_version" or isinstance(result.attrs.get(name), str)
        for name in _ATTRIBUTES.get(kind, ())
    }
    missing = [name for name, present in needed.items() if not present]
    if missing:
        return f"is incomplete (it has no {', '.join(missing[:6])}{' …' if len(missing) > 6 else ''})"
    empty = [name for name in _LABELS.get(kind, ()) if result[name].size == 0]
    if empty:
        return f"is empty (it has no {', '.join(empty)})"
    return ""


def _format_fault(attributes: Mapping[str, Any], kind: str) -> str:
    """Why a result with these attributes is not one of `kind` in the format that is read here; "" if it is."""
    stored, expected = str(attributes["kind"]), STORED_KINDS.get(kind)
    if expected not in (None, stored):
        return f"is of the kind '{shortened(stored, LONGEST_FACT)}', not '{expected}'"
    version, read = attributes["schema_version"], SCHEMA_VERSIONS.get(kind)
    if read not in (None, version):
        other = "an older" if version < read else "a newer"
        return f"is of {other} version of the workbench (schema version {version}; this one reads {read})"
    return ""


def sae_names(study: Study) -> list[str]:
    """Names of the sparse autoencoders whose results can be shown, without "sae-"."""
    return names_of_kind(study, "sae")


def sae_site(study: Study, name: str) -> str:
    """The site of a sparse autoencoder whose result can be shown, by its name without "sae-"."""
    full = f"sae-{name}"
    return str(_attributes(study.path, full, file_version(_file(study.path, full)))["site"])


def patching_names(study: Study) -> list[str]:
    """Names of the patching results that can be shown, without "patching-"; "blocks" first."""
    return names_of_kind(study, "patching")


def steering_names(study: Study) -> list[str]:
    """Names of the steering results that say of themselves that they can be shown, without "steering-".

    An evaluation has dozens of them. Reading all of them to list them would take seconds; what is wrong with the
    numbers of one is told where it is shown.
    """
    return _of_kind("steering", [name for name in _names_of(study, "steering") if _is_readable(study, name)])


def _is_readable(study: Study, name: str) -> bool:
    """Whether the attributes of a result can be read, and are of the format that is read here."""
    try:
        attributes = _attributes(study.path, name, file_version(_file(study.path, name)))
    except (UserError, OSError):
        return False
    return not _format_fault(attributes, name.partition("-")[0])


def benchmark_names(study: Study) -> list[str]:
    """Names of the evaluations that can be shown, without "benchmark-"."""
    return names_of_kind(study, "benchmark")


def trial_name(study: Study, result: xr.Dataset, concept: str, direction: str) -> str:
    """The trial that an evaluation reports of a concept and direction, without "steering-"; "" if there is none."""
    trials = json.loads(result.attrs["spec"])["trials"]
    for name in steering_names(study):
        if name.startswith(TRIAL):
            full = f"steering-{name}"
            made = _attributes(study.path, full, file_version(_file(study.path, full)))
            if trials.get(made["result_id"]) == f"{concept}-{direction}-report":
                return name
    return ""


def lost_trials(study: Study, concept: str, direction: str) -> list[str]:
    """Why trials that evaluations reported of a concept and direction, by their names, cannot be shown."""
    ending = f"-{concept}-{direction}-report"
    names = [name for name in _names_of(study, "steering") if name.startswith(f"steering-{TRIAL}")]
    return [fault for name in names if name.endswith(ending) and (fault := problem(study, name)) is not None]


def names_of_kind(study: Study, kind: str) -> list[str]:
    """The results of a kind that can be shown, without "kind-", in the order of `_of_kind`."""
    return _of_kind(kind, usable_names(study, kind))


def shown_name(study: Study, kind: str, asked: str = "") -> str:
    """The result that is asked for, or the first that can be shown if it cannot, without "kind-"; "" if none can."""
    names = _of_kind(kind, _names_of(study, kind))
    first = [asked] if asked in names else []
    return next((name for name in first + names if problem(study, f"{kind}-{name}") is None), "")


def name_to_show(study: Study, kind: str, asked: str = "") -> str:
    """As `shown_name`, for callbacks of a page that was laid out while there was such a result.

    Raises:
        LostResult: there is none any more; the message names the command that makes it.
    """
    name = shown_name(study, kind, asked)
    if not name:
        raise LostResult(" ".join(lost_results(study, kind)))
    return name


def faults_of_kind(study: Study, kind: str) -> list[str]:
    """Why some of a study's results of a kind cannot be shown, a sentence for each of them."""
    return [fault for name in _names_of(study, kind) if (fault := problem(study, name)) is not None]


def unusable(study: Study, kind: str) -> list[str]:
    """Why a study's results of a kind cannot be shown, a sentence for each, of at most `MOST_TOLD`; none if one can."""
    faults = faults_of_kind(study, kind)
    if len(faults) < len(_names_of(study, kind)):
        return []
    if (others := len(faults) - MOST_TOLD) > 0:
        more = f"{others} other {WORDS[kind]} results cannot be shown either: the overview has the list."
        return [*faults[:MOST_TOLD], more]
    return faults


def lost_results(study: Study, kind: str) -> list[str]:
    """As `unusable`; if there are no results of the kind, a sentence on how to make one."""
    if not _names_of(study, kind):
        folder = study.path / "results"
        return [f"{folder} has no {WORDS[kind]} result any more: make one with `{command(study, kind)}`."]
    return unusable(study, kind)


def lost_result(study: Study, kind: str, name: str) -> str:
    """Why a result that is asked for by its name cannot be shown; "" if it can, or no result can have such a name."""
    full = f"{kind}-{name}"
    if has_result(study, full):
        return problem(study, full) or ""
    if not _NAME.fullmatch(name):
        return ""
    have = ", ".join(names_of_kind(study, kind)[:MOST_TOLD])
    made = command(study, kind, name)
    return f"There is no result '{name}' here ({_file(study.path, full)}; there are {have}): make it with `{made}`."


def _names_of(study: Study, kind: str) -> list[str]:
    """The names of a study's results of a kind, usable or not; those of trials last."""
    names = [name for name in study.result_names() if name.partition("-")[0] == kind]
    return sorted(names, key=lambda name: name.removeprefix(f"{kind}-").startswith((CHECK, TRIAL)))


def default_of_kind(study: Study, kind: str) -> str | None:
    """The result of a kind that a figure shows by default, without "kind-", usable or not; None if there is none."""
    return next(iter(_of_kind(kind, study.result_names())), None)


def _of_kind(kind: str, names: list[str]) -> list[str]:
    """The results of a kind, without "kind-"; "blocks" first, and trials of vectors' checks and evaluations last."""
    found = [name.removeprefix(f"{kind}-") for name in names if name.startswith(f"{kind}-")]
    return sorted(found, key=lambda name: (name != "blocks", name.startswith((CHECK, TRIAL))))


def result_origin(study: Study, name: str) -> dict[str, Any]:
    """Provenance of a result."""
    attributes = study.result_attributes(name)
    return {
        "name": name,
        "kind": attributes["kind"],
        "schema_version": int(attributes["schema_version"]),
        "result_id": attributes["result_id"],
        "spec": json.loads(attributes["spec"]),
        "provenance": json.loads(attributes["provenance"]),
    }
