"""What a figure must be told before it can be drawn, with an example from the study's own results."""

import shlex
from typing import Any

import pandas as pd

from dashboards.results import load_patching, load_result
from dashboards.specs import (
    FeatureClipSpec,
    FeatureSpec,
    FigureSpec,
    PatchingPairsSpec,
    ProbeFoldsSpec,
)
from dashboards.tables.features import examples_frame, features_frame
from dashboards.tables.patching import cells_frame
from dashboards.tables.probes import probes_frame
from workbench.studies.study import Study


def required(kind: type[FigureSpec]) -> list[str]:
    """The options that a figure has no default for; `make_spec` finds some of them itself."""
    return [name for name, field in kind.model_fields.items() if field.is_required()]


def example(study: Study, kind: type[FigureSpec], given: dict[str, Any]) -> str:
    """Options for what is missing in `given`, as one writes them in a command line."""
    told = _example(study, kind, given)
    missing = [name for name in required(kind) if name not in given]
    return " ".join(f"--option {shlex.quote(f'{name}={told[name]}')}" for name in missing if name in told)


def _example(study: Study, kind: type[FigureSpec], given: dict[str, Any]) -> dict[str, Any]:
    """A cell, probe or feature that has something to show, by the options that name it."""
    if issubclass(kind, PatchingPairsSpec):
        cells = cells_frame(load_patching(study, f"patching-{given['name']}"))
        return _best(cells[cells["group"] == "cell"], "impact", given)[["concept", "arm"]].to_dict()
    if issubclass(kind, ProbeFoldsSpec):
        probe = _best(probes_frame(load_result(study, "probes")), "accuracy", given)
        return probe[["concept", "site", "step"]].to_dict()
    if issubclass(kind, FeatureSpec):
        result = load_result(study, f"sae-{given['site']}")
        feature = int(given.get("feature", _best(features_frame(result), "best_auroc", {})["feature"]))
        known = issubclass(kind, FeatureClipSpec) and feature in result["feature"].values
        clips = examples_frame(result, feature)["clip"] if known else pd.Series(dtype=int)
        return {"feature": feature, "clip": int(clips.iloc[0]) if len(clips) else 0}
    return {}


def _best(frame: pd.DataFrame, name: str, given: dict[str, Any]) -> pd.Series:
    """The row with the highest `name` among those that have what was given, or among all where none has."""
    asked = [frame[option].astype(str) == str(given[option]) for option in given if option in frame]
    some = frame[pd.concat(asked, axis=1).all(axis=1)] if asked else frame
    return (some if len(some) else frame).sort_values(name, ascending=False, kind="stable").iloc[0]
