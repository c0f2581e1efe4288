"""What the page of an evaluation shows: the result, and what is chosen of it by the URL."""

from typing import Any

import xarray as xr

from dashboards.components.selects import Choice
from dashboards.figures.method_ranking import ALL
from dashboards.pages.page import Query
from dashboards.results import (
    benchmark_names,
    load_result,
    name_to_show,
    trial_name,
)
from dashboards.tables.benchmark import DIRECTIONS, methods
from dashboards.tables.patching import scorers
from workbench.studies.study import Study

EVERY = "all"

FIELDS = ("concept", "direction", "scorer", "measure", "method")


def _name(study: Study, query: Query) -> str:
    return name_to_show(study, "benchmark", query.get("result", ""))


def result_of(study: Study, query: Query) -> xr.Dataset:
    """The evaluation that the URL asks for, or the first."""
    return load_result(study, f"benchmark-{_name(study, query)}")


def is_published(result: xr.Dataset) -> bool:
    """Whether an evaluation follows the published protocol, which has no intervals."""
    return str(result.attrs["protocol"]) == "published"


def choices_of(result: xr.Dataset) -> dict[str, Choice]:
    """The choices that depend on the result, with the default as the value."""
    concepts = [str(name) for name in result["concept"].values]
    several = [{"value": EVERY, "label": ALL}] if len(concepts) > 1 else []
    every_method: list[Any] = [{"value": EVERY, "label": "all methods"}, *methods(result)]
    measures = [str(name) for name in result["measure"].values]
    return {
        "concept": Choice("concept", [*concepts, *several], concepts[0]),
        "direction": Choice("direction", list(DIRECTIONS.values()), "towards"),
        "scorer": Choice("judge", scorers(result), _hearing(result)),
        "measure": Choice("distance", measures, measures[0]),
        "method": Choice("curves and leakage of", every_method, EVERY),
    }


def _hearing(result: xr.Dataset) -> str:
    """The judge to begin with: the first of those that tell the real prompts apart in most cases."""
    if is_published(result):
        return scorers(result)[0]
    return min(scorers(result), key=lambda name: int((result["reason"].sel(scorer=name) != "").sum()))


def values_of(choices: list[Any]) -> list[str]:
    """The values of a select's choices."""
    return [one["value"] if isinstance(one, dict) else one for one in choices]


def view(study: Study, query: Query) -> dict[str, str]:
    """What the URL selects, by the names of its parts; unknown values are the defaults.

    Raises:
        UserError: the study has no evaluation (any more).
    """
    found = {"result": _name(study, query)}
    for field, choice in choices_of(result_of(study, query)).items():
        found[field] = query[field] if query.get(field) in values_of(choice.data) else str(choice.value)
    return found


def trial_of(study: Study, query: Query) -> tuple[str, str, str, str] | None:
    """The trial, arm, concept and judge of the clips that the URL asks for; None if there are none."""
    if not benchmark_names(study):
        return None
    now, result, arm = view(study, query), result_of(study, query), query.get("arm", "")
    if is_published(result) or arm not in arms_of(result):
        return None
    concept = str(result["concept"].values[0]) if now["concept"] == EVERY else now["concept"]
    name = trial_name(study, result, concept, now["direction"])
    if not name:
        return None
    trial = load_result(study, f"steering-{name}")
    has_all = arm in trial["arm"].values and now["scorer"] in trial["scorer"].values
    return (name, arm, concept, now["scorer"]) if has_all else None


def arms_of(result: xr.Dataset) -> list[str]:
    """The arms of an evaluation that steer."""
    return [str(arm) for arm in result["arm"].values[result["role"].values == "cell"]]
