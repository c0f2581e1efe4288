"""Trials as users ask for them: what results call ways of steering, and vectors that are refused."""

from dataclasses import replace
from typing import Any

import pytest

from analyses.steering import asking
from analyses.steering.asking import fit_vector
from analyses.steering.trials import asked_trial, ways_of_trial
from analyses.steering.used_saes import ClosedStep, UsedSAE
from analyses.steering.vector import Vector
from cache.errors import UserError
from tests.analyses.steering.test_run import SITES, study, vector
from workbench.models.ace_step import AceStep15
from workbench.sae.gate import GatedStep
from workbench.studies.study import Study

__all__ = ["study", "vector"]


@pytest.mark.parametrize(
    ("course", "how", "name"),
    [
        ({"schedule": "constant", "over": "steps", "start_step": 0}, {"operation": "add"}, "mine"),
        ({}, {"operation": "steer_back", "unit": "difference"}, "mine (steer back)"),
        (
            {"schedule": "early", "over": "sigmas", "start_step": 1},
            {"unit": "norm", "keep_norm": True},
            "mine (early, over sigmas, from step 1, unit norm, norms kept)",
        ),
    ],
)
def test_names_of_ways_say_how_they_steer(
    study: Study, vector: Vector, course: dict[str, Any], how: dict[str, Any], name: str
) -> None:
    spec = asked_trial(study, [("mine", vector.over_time())], pairs=1, randoms=1)
    way, random = ways_of_trial([("mine", vector.over_time())], spec, print, course, **how)
    assert (way.name, random.null_of) == (name, name)


def test_steps_that_a_gate_closes_are_not_steered(study: Study, vector: Vector) -> None:
    closed = (ClosedStep(step=2, reason="it fails"),)
    sae = UsedSAE(site=SITES[0], name=SITES[0], weights="ab", closed=closed)
    gated = replace(vector.over_time(), saes=(sae,))
    spec = asked_trial(study, [("mine", gated)], pairs=1, randoms=0)
    (refused,), (ignoring,), (early,) = (
        ways_of_trial([("mine", gated)], spec, print, course, ignore)
        for course, ignore in (({}, False), ({}, True), ({"schedule": [1.0, 1.0, 0.0]}, False))
    )
    with pytest.raises(GatedStep, match="may not be used at step 2"):
        refused.at(1.0)
    assert ignoring.at(1.0) == vector.over_time().at(1.0)
    assert early.at(1.0)


def test_a_vector_of_no_difference_is_refused(
    study: Study, tiny: AceStep15, vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = {site: array * 0 for site, array in vector.directions.items()}
    monkeypatch.setattr(asking, "fit", lambda *_, **__: [replace(vector, directions=none, raw_norms={})])
    with pytest.raises(UserError, match=f"no difference at {', '.join(SITES)}.*--pass"):
        fit_vector(study, tiny, "caa", "tempo", "all")
