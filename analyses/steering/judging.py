"""Have judges check a vector on prompts that it was not computed from."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analyses.steering.checks import Check, Control, Effect, Sign, sign_verdict
from analyses.steering.effects import compared_arms, pairs_with_both
from analyses.steering.run import Progress, Way, run_steering
from analyses.steering.study_files import find_pack
from analyses.steering.trials import asked_trial
from analyses.steering.vector import PassMode, Vector, load_vector
from analyses.steering_spec import CHECK, LONGEST_NAME
from cache.errors import UserError
from workbench.files import file_name
from workbench.models.base import AudioDiffusionModel
from workbench.studies.study import Study

STRENGTHS = (-1.0, 1.0)
"""Strengths of a check by default: the least that the sign needs."""
WAY = "vector"
"""The name of the vector in a check's result."""
_log = logging.getLogger(__name__)


def judged(
    study: Study,
    model: AudioDiffusionModel,
    vector: Vector,
    name: str,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    *,
    ignore_gate: bool = False,
    **options: Any,
) -> Vector:
    """Return the vector with its `checks`: what each judge says of it on prompts that it was not computed from.

    Prompts with the negative value are steered with `vector.at(strength)`, in the null pass if the vector has no
    direction of the cond pass. The trial is a result of the study, `steering-check-NAME`, and is not repeated.

    Args:
        study: a study of the vector's model, whose prompt set has the vector's concept.
        model: the study's model.
        vector: the vector.
        name: its name, for that of the result.
        progress: called as `progress(done, total)` with numbers of pairs times seeds.
        note: called with each sentence on the limitations of the trial.
        ignore_gate: steer also at steps at which the vector's autoencoders may not be used.
        options: of `SteeringSpec`: pairs, seeds, strengths (`STRENGTHS` by default), scorers, seed.

    Raises:
        UserError: as `run_steering` does, such as for too few other prompts; if the prompt set does not have the
            concept; if no strength is above 0; or if an autoencoder of the vector may not be used at a step.
    """
    asked = {"strengths": STRENGTHS, **options, "name": trial_name(name), "randoms": 0}
    spec = asked_trial(study, [(name, vector)], **asked)
    if max(spec.strengths) <= 0:
        raise UserError("A check needs a strength above 0, whose effect shows the sign.")
    way = Way(WAY, partial(vector.at, passes=_passes(vector), ignore_gate=ignore_gate))
    result = run_steering(study, model, spec, [way], progress, note)
    return replace(vector, checks=checks_of(result))


def judge_pack(
    study: Study,
    model: AudioDiffusionModel,
    name: str,
    progress: Progress | None = None,
    note: Callable[[str], None] = _log.warning,
    **options: Any,
) -> Path:
    """Have a pack of a study judged, write what is found into it, and return its file; see `judged`.

    The pack is replaced as a whole; until then it is as it was.
    """
    file = find_pack(study.path, name)
    vector = load_vector(file, root=study.path)
    return judged(study, model, vector, file.stem, progress, note, **options).save(file, root=study.path)


def checks_of(result: xr.Dataset) -> tuple[Check, ...]:
    """Return what each judge says of the vector in a check's result."""
    judges = json.loads(result.attrs["spec"])["judges"]
    return tuple(
        _check(result.sel(scorer=name), name, judges[name]) for name in result["scorer"].values.tolist()
    )


def _check(one: xr.Dataset, scorer: str, identity: str) -> Check:
    own = one.sel(concept=one.attrs["concept"])
    arms = compared_arms(own, WAY)
    minus, plus = arms
    pairs = pairs_with_both(own["score"], arms.values())
    upward = _interval(own.sel(way=WAY), "upward")
    control = _interval(own, "denominator")
    doses = own.sel(arm=own["role"] == "cell").sortby("strength")
    return Check(
        scorer=scorer,
        identity=identity,
        pairs=own.sizes["pair"],
        effects=[
            Effect(strength=float(strength), **_interval(doses.isel(arm=place), "effect"))
            for place, strength in enumerate(doses["strength"].values)
        ],
        sign=Sign(
            minus=minus,
            plus=plus,
            pairs=pairs,
            verdict=sign_verdict(pairs, upward["low"], upward["high"], control["mean"]),
            **upward,
        ),
        control=Control(pairs=int(own["n_pairs"]), interpretable=bool(own["defined"]), **control),
    )


def _interval(values: xr.Dataset, name: str) -> dict[str, float | None]:
    numbers = (float(values[each]) for each in (name, f"{name}_lo", f"{name}_hi"))
    known = [number if np.isfinite(number) else None for number in numbers]
    return dict(zip(("mean", "low", "high"), known, strict=True))


def trial_name(name: str) -> str:
    """Return the name of the trial of the vector called `name`; names of results are more limited."""
    return CHECK + file_name(name).replace("=", "-")[len(CHECK) - LONGEST_NAME :]


def _passes(vector: Vector) -> PassMode:
    known = next(iter(vector.directions.values()))["pass"].values
    return "null_only" if "null" in known and "cond" not in known else "cond_only"
