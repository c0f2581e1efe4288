"""A feature's causal effects, on its card: what changing it did to scores."""

import json
import shlex
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import dash_mantine_components as dmc
import pandas as pd
import xarray as xr
from dash import html
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.components.text import text_table, with_code
from dashboards.figures.feature import FeatureSpec
from dashboards.numbers import fixed, p_value, span
from dashboards.result_commands import EFFECTS_PREFIX
from dashboards.results import Identity, has_result, load_result, problem, result_identity
from dashboards.tables.features import effects_frame
from dashboards.wording import interval
from workbench.studies.feature_notes import left_out_of_sets
from workbench.studies.study import Study

TITLE = "Causal effects: change of the score when the feature is changed [95 % interval]"
HEADS = ["prompts with", "changed", "factor", "change", "random", "p, adjusted", "other concepts"]


def effects(study: Study, spec: FeatureSpec) -> Component:
    """What turning the feature off, or doubling it, did to scores; the command that measures it if nothing has."""
    try:
        found, said = measured(study, spec)
    except UserError as error:
        found, said = pd.DataFrame(), [str(error)]
    table = [] if found.empty else [text_table(HEADS, [_line(row) for _, row in found.iterrows()])]
    sentences = [
        dmc.Text(with_code(each), size="xs", c="dimmed", style={"overflowWrap": "anywhere"}) for each in said
    ]
    return html.Div([dmc.Title(TITLE, order=6, mt="sm", mb=4), *table, *sentences])


def measured(study: Study, spec: FeatureSpec) -> tuple[pd.DataFrame, list[str]]:
    """A row for each effect of the feature (see `effects_frame`), and sentences on what is not among them.

    Raises:
        UserError: if the autoencoder's weights cannot be read.
    """
    names = [name for name in study.result_names() if name.startswith(EFFECTS_PREFIX)]
    faults = {name: fault for name in names if (fault := problem(study, name)) is not None}
    known = [load_result(study, name) for name in names if name not in faults]
    frames = [(result, effects_frame(result, spec.name, spec.feature)) for result in known]
    frames = [(result, frame) for result, frame in frames if not frame.empty]
    now = _weights(study.path, spec.name, result_identity(study, spec.result_name)) if frames else ""
    own = [frame for result, frame in frames if _weights_then(result, spec.name) == now]
    asked = f"workbench sae effects {shlex.quote(str(study.path))} {shlex.quote(spec.name)}"
    said = [fault for name, fault in faults.items() if _may_be_of(study, name, spec.name)]
    if len(own) < len(frames):
        said.append(
            f"Not shown: what was measured of an earlier autoencoder {spec.name}, which had other weights and features."
        )
    if not own and said:
        return pd.DataFrame(), said
    if not own:
        lacking = "Not measured for this feature" if known else "Not measured yet"
        said.append(
            f"{lacking}: `{asked}` measures the effects of the best features of each value, and with `--set` also of a "
            "set, such as one of this feature alone."
        )
        return pd.DataFrame(), said
    found = pd.concat(own, ignore_index=True)
    with suppress(UserError):  # the editor of notes says why
        said += left_out_of_sets(study.path, spec.name, found["set"])
    return found, said


def _may_be_of(study: Study, result: str, sae: str) -> bool:
    """Whether a result that cannot be read may have effects of an autoencoder, by its name, which can be shortened."""
    named = result.removeprefix(EFFECTS_PREFIX).split("+")
    return sae in named or not all(has_result(study, f"sae-{name}") for name in named)


def changed(row: pd.Series) -> str:
    """What was changed: the feature alone, or with which others."""
    if row["set"]:
        return f"all {row['changed']} of the set {row['set']}"
    return "alone" if row["changed"] == 1 else f"among the {row['changed']} best"


def _line(row: pd.Series) -> list[str]:
    return [
        row["value"],
        changed(row),
        f"× {row['factor']:g}",
        interval(row, "effect"),
        span(row["null_lo"], row["null_hi"]),
        p_value(row["p_adjusted"]),
        ", ".join(f"{name} {fixed(change)}" for name, change in row["others"].items()),
    ]


def _weights_then(result: xr.Dataset, name: str) -> str:
    """The hash of the weights that an autoencoder had when its effects were measured; "" if the result has none."""
    with suppress(KeyError, TypeError, ValueError):
        return str(json.loads(result.attrs["spec"])["weights"][name])
    return ""


@lru_cache(maxsize=8)
def _weights(study_path: Path, name: str, version: Identity) -> str:
    """The hash of the weights that an autoencoder has now."""
    del version  # only part of the cache key: a changed autoencoder is read again
    from analyses.sae.names import load_sae  # imports torch
    from workbench.sae.identity import weights_hash

    return weights_hash(load_sae(Study.open(study_path), name))
