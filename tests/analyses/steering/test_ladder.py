"""The recovery ladder: its rungs, with and without sparse autoencoders, and what is asked of it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.sae.names import sae_folder
from analyses.steering import run
from analyses.steering.ladder import as_long_as, ladder
from analyses.steering.run import run_steering
from analyses.steering.slider import Slider
from analyses.steering.trials import asked_ladder, rungs_of_ladder
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering.test_run import SITES, SPEC, Heard, study, vector
from tests.tolerances import SCORE, assert_close, difference
from tests.workbench.engine.test_feature_edits import random_sae
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.models.ace_step import AceStep15
from workbench.sae.folder import save_folder
from workbench.sae.gate import Gate, GatedStep, set_gate
from workbench.sae.topk import TopKSAE
from workbench.studies.study import Study

__all__ = ["study", "vector"]

LADDER = {"positive": "fast", "fit_pairs": 1, "pairs": 1, "randoms": 0, "strengths": (1.0,)}


@pytest.fixture(scope="module")
def sae() -> TopKSAE:
    return random_sae(32, 40).float()


def names(rungs: list[run.Way]) -> list[str]:
    return [rung.name for rung in rungs]


def test_it_goes_from_the_patch_to_random_vectors(study: Study, tiny: AceStep15, vector: Vector) -> None:
    rungs = ladder(vector, randoms=3)
    result = run_steering(study, tiny, SPEC, rungs).isel(scorer=0)
    assert list(dict.fromkeys(result.row.values[2:].tolist())) == [
        "conditioning patch", "output patch", "same-pair difference", "same-pair mean over time", "vector by token",
        "vector", "random 1 (like vector)", "random 2 (like vector)", "random 3 (like vector)",
    ]  # fmt: skip
    nulls = result.sel(arm=result.role == "null")
    assert set(nulls.null_of.values) == {"vector × -1", "vector × 1"}
    assert result.null_lo.sel(concept="tempo", arm="vector × 1").notnull()
    score = result.score
    for arm in ("conditioning patch × 1", "output patch × 1"):
        assert difference(score.sel(arm=arm), score.sel(arm="clean")) < SCORE, (
            "all cross-attentions of the model"
        )


def test_differences_of_prompts_at_the_same_latents_have_rungs_of_their_own(
    study: Study, tiny: AceStep15, vector: Vector
) -> None:
    rungs = ladder(vector, randoms=0, same=vector)
    assert names(rungs)[2:6] == [
        "same-pair difference (same latents)", "same-pair mean over time (same latents)",
        "vector by token (same latents)", "vector (same latents)",
    ]  # fmt: skip
    (own,), (same,) = (rung.at(2.0) for rung in (rungs[6], rungs[2]))
    assert [run.follows for run in own.sources] == [None, None]
    assert [run.follows for run in same.sources] == [None, Run("positive")]
    positive, negative = (Run(Clip(f"a {tempo} song", 0)) for tempo in ("fast", "slow"))
    bound = same.bound({"positive": [positive], "negative": [negative]})
    assert bound.sources == (positive, Run(negative.clip, follows=positive))
    run_steering(study, tiny, SPEC, rungs[2:3])


def test_a_constant_vector_has_one_random_band_and_no_rung_by_token(vector: Vector) -> None:
    constant = vector.over_time()
    rungs = names(ladder(constant, randoms=1))
    assert "vector by token" not in rungs and rungs[-2:] == ["vector", "random 1 (like vector)"]
    for site, directions in constant.directions.items():
        np.testing.assert_allclose(directions, vector.directions[site].mean("token"))
    np.testing.assert_allclose(constant.raw_norms[SITES[0]], constant.norms[SITES[0]])


def test_features_have_a_rung_and_outputs_one_through_the_autoencoder(vector: Vector, sae: TopKSAE) -> None:
    """At the sites that have an autoencoder, which their names say if others do not."""
    every = ladder(vector, dict.fromkeys(SITES, sae), vector.over_time(), [("signs", vector)], randoms=0)
    assert names(every)[1:3] == ["output patch", "SAE reconstruction"]
    assert names(every)[-3:] == ["vector", "SAE features", "pack signs"]
    assert [edit.operator for edit in every[2].at(1.0)] == ["patch_reconstruction"] * 2

    some = ladder(vector, {SITES[1]: sae}, vector.only(SITES[1]).over_time(), randoms=0)
    assert [names(some)[2], names(some)[-1]] == ["SAE reconstruction at tf1", "SAE features at tf1"]
    assert [(edit.operator, *edit.sites) for edit in some[2].at(1.0)] == [
        ("patch", SITES[0]),
        ("patch_reconstruction", SITES[1]),
    ]


def test_the_rung_of_features_is_as_long_as_the_vector(vector: Vector) -> None:
    constant = vector.over_time()
    values = np.random.default_rng(0).normal(0, 9, constant.directions[SITES[1]].shape)
    values[0, 1] = 0.0
    own = replace(
        constant.only(SITES[1]),
        directions={SITES[1]: constant.directions[SITES[1]].copy(data=values)},
        raw_norms={},
    )
    found = as_long_as(own, constant).directions[SITES[1]].values
    assert not found[0, 1].any()
    for step in (0, 2):
        length = np.linalg.norm(constant.directions[SITES[1]].values[0, step])
        expected = values[0, step] / np.linalg.norm(values[0, step]) * length
        assert_close(found[0, step], expected)


def test_the_study_s_autoencoders_are_used(
    study: Study, tiny: AceStep15, sae: TopKSAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, notes = asked_ladder(study, "tempo", **LADDER), []
    assert (spec.result_name, len(spec.without)) == ("steering-ladder-tempo", 2)
    without = rungs_of_ladder(study, tiny, spec, notes.append, "all", fit_pairs=1)
    assert names(without)[-1] == "vector"
    (said,) = notes
    assert f"workbench sae train {study.path} --site {SITES[0]}" in said, "the study records tf0.cross_attn"

    gated, sigmas = deepcopy(sae), tuple(tiny.sigmas(study.spec.settings))
    none = (None,) * len(sigmas)
    set_gate(
        gated,
        Gate(
            steps=range(len(sigmas)), sigmas=sigmas, explained_variance=(0.1, *none[1:]), loss_recovered=none
        ),
    )
    save_folder(gated, sae_folder(study, SITES[1]), study.path)
    with pytest.raises(GatedStep, match=rf"{SITES[1]} may not be used at step 0"):
        rungs_of_ladder(study, tiny, spec, notes.append, "all", fit_pairs=1)
    rungs = rungs_of_ladder(study, tiny, spec, notes.append, "all", fit_pairs=1, ignore_gate=True)
    assert len(notes) == 1 and names(rungs)[-1] == "SAE features at tf1"
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": Heard())
    result = run_steering(study, tiny, spec, rungs)
    assert not set(result.corrupt_prompt.values) & set(spec.without)
    effect = result.effect.sel(concept="tempo").isel(scorer=0)
    assert (effect.sel(arm=["SAE reconstruction at tf1 × 1", "SAE features at tf1 × 1"]) != 0).all()


def test_what_others_were_computed_from_is_not_tried(study: Study, vector: Vector, tmp_path: Path) -> None:
    pack = load_vector(vector.save(tmp_path / "tempo.safetensors"))
    spec = asked_ladder(study, "tempo", others=[("tempo", pack)], **LADDER)
    own = {example.prompt for example in vector.examples}
    assert set(spec.without) == own | set(asked_ladder(study, "tempo", **LADDER).without)


def slider(concept: str = "mood") -> Callable[[Vector], Slider]:
    def made(vector: Vector) -> Slider:
        return Slider(
            concept=concept,
            positive="fast",
            negative="slow",
            factors={},
            alpha=1.0,
            model=None,
            settings=vector.settings,
            sigmas=vector.sigmas,
            training={},
        )

    return made


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"strengths": (1.0, -1.0)}, r"above 0.*patches lead towards fast; got -1"),
        ({"strengths": (0.0,)}, "above 0.*got 0"),
        ({"strengths": (float("inf"),)}, "finite.*got inf"),
        ({"strengths": (float("nan"),)}, "finite.*got nan"),
        ({"strengths": ()}, "strengths"),
        ({"fit_pairs": "two"}, "whole number"),
        ({"pairs": 99}, "other prompts than"),
        (
            {"positive": "slow", "others": lambda vector: vector},
            r"tempo \(towards slow\); got tempo \(towards fast\)",
        ),
        ({"others": slider()}, r"got mood \(towards fast\)"),
    ],
)
def test_what_cannot_be_a_ladder_is_refused_before_anything_runs(
    study: Study, vector: Vector, asked: dict[str, Any], words: str
) -> None:
    options = {**LADDER, **asked}
    if "others" in options:
        options["others"] = [("other", options["others"](vector))]
    with pytest.raises(UserError, match=words):
        asked_ladder.__wrapped__(study, "tempo", **options)


def test_a_vector_of_other_steps_is_refused_before_pairs_are_generated(
    study: Study, tiny: AceStep15, vector: Vector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyses.steering.trials.fit", lambda *_, **__: pytest.fail("pairs were generated"))
    other = [("short", vector.over_time().resampled([1.0, 0.5]))]
    spec = asked_ladder(study, "tempo", others=other, **LADDER)
    with pytest.raises(UserError, match="resample the vector"):
        rungs_of_ladder(study, tiny, spec, print, "all", 1, other)
