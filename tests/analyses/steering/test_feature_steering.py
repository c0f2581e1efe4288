"""Changing the activations of chosen features while a model runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyses.steering.closed_steps import used_saes
from analyses.steering.demon import write_demon
from analyses.steering.feature_steering import FeatureSteering, feature_steering
from analyses.steering.nulls import random_vectors
from analyses.steering.pack_summary import pack_facts
from analyses.steering.sae_features import sae_features
from analyses.steering.stacking import stack
from analyses.steering.vector import load_vector
from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.engine.test_feature_edits import random_sae
from workbench.engine.edits import Run, edit_features, edit_from_json
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.sae.gate import Gate, GatedStep, set_gate
from workbench.sae.identity import weights_hash
from workbench.sae.topk import TopKSAE

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
SETTINGS = GenerationSettings(duration=1.0, num_steps=3)
OPTIONS: dict[str, Any] = {"k": 4, "pairs": 3, "seed": 7, "settings": SETTINGS, "passes": ("cond", "null")}


@pytest.fixture(scope="module")
def saes() -> dict[str, TopKSAE]:
    return {site: random_sae(32, 50, seed=place) for place, site in enumerate(SITES)}


@pytest.fixture(scope="module")
def steering(tiny64: AceStep15, saes: dict[str, TopKSAE]) -> FeatureSteering:
    return feature_steering(tiny64, "mood", saes, **OPTIONS)


def test_its_features_are_those_of_the_vector(
    tiny64: AceStep15, saes: dict[str, TopKSAE], steering: FeatureSteering
) -> None:
    vector = sae_features(tiny64, "mood", saes, **OPTIONS)
    assert (steering.concept, steering.positive, steering.negative) == ("mood", "happy", "sad")
    for site, sae in saes.items():
        sums = steering.features[site].values.astype(float) @ sae.W_dec.detach().numpy()
        assert_close(sums, vector.directions[site].values)


@pytest.mark.parametrize("mode", ["pre_activation", "post_activation", "inject"])
def test_every_site_and_step_has_an_edit_of_its_features(
    saes: dict[str, TopKSAE], steering: FeatureSteering, mode: str
) -> None:
    edits = steering.at(2.0, mode=mode, passes="separate", schedule=[1.0, 0.0, 0.5])
    places = [(edit.sites, edit.window.steps, edit.window.passes) for edit in edits]
    assert sorted(places) == sorted(
        ((site,), (step, step), (acting,)) for site in SITES for step in (0, 2) for acting in ("cond", "null")
    )
    for edit in edits:
        (site,), (step, _), (acting,) = edit.sites, edit.window.steps, edit.window.passes
        chosen = np.flatnonzero(steering.features[site].sel({"step": step, "pass": acting}).values)
        expected = edit_features(saes[site], chosen.tolist(), site, 2.0 if step == 0 else 1.0, mode=mode)
        assert edit.parameters == expected.parameters
        assert edit.made_on == (steering.model["model"], steering.model["weights_hash"])
        assert (
            edit_from_json(edit.to_json(), {tensor.hash: tensor for tensor in edit.tensors}.__getitem__)
            == edit
        )


def test_the_null_pass_may_get_the_features_of_the_cond_pass(steering: FeatureSteering) -> None:
    one, other = (steering.at(1.0, passes=mode) for mode in ("cond_on_both", "separate"))
    assert [edit.window for edit in one] == [edit.window for edit in other]
    features = [
        {edit.window.steps: edit.parameters.features for edit in edits if edit.window.passes == ("null",)}
        for edits in (one, other)
    ]
    assert features[0] != features[1]


def test_strength_0_is_the_unedited_row(tiny64: AceStep15, steering: FeatureSteering) -> None:
    clip = Clip("a sad song", 3)
    assert steering.at(0.0) == ()
    found = tiny64.generate_batch([clip, *(Run(clip, steering.at(s)) for s in (0.0, -1.0))], SETTINGS)
    assert torch.equal(found.latents[0], found.latents[1])
    assert not torch.equal(found.latents[0], found.latents[2])


def test_another_model_refuses_it(tiny_turbo: AceStep15, steering: FeatureSteering) -> None:
    with pytest.raises(UserError, match="was made on"):
        tiny_turbo.generate(Clip("a sad song", 3), SETTINGS, edits=steering.at(1.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "scale"}, "mode must be"),
        ({"passes": "both"}, "passes must be"),
        ({"strength": float("nan")}, "strength"),
        ({"start_step": 3}, "from 0 to 2"),
    ],
)
def test_what_cannot_be_asked_for(steering: FeatureSteering, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        FeatureSteering.at.__wrapped__(steering, **{"strength": 1.0, **options})


def test_a_pass_without_features_is_named(tiny64: AceStep15, saes: dict[str, TopKSAE]) -> None:
    of_cond = feature_steering(tiny64, "mood", saes, **{**OPTIONS, "passes": ("cond",), "pairs": 1})
    with pytest.raises(UserError, match="no features of the null pass"):
        of_cond.at(1.0, passes="separate")


def gated(saes: dict[str, TopKSAE], tiny64: AceStep15) -> dict[str, TopKSAE]:
    """The same autoencoders, of which that of the second site may not be used at the last step."""
    site, sae = SITES[1], random_sae(32, 50, seed=1)
    sigmas = tuple(tiny64.sigmas(SETTINGS))
    set_gate(
        sae,
        Gate(
            steps=(0, 2),
            sigmas=(sigmas[0], sigmas[2]),
            explained_variance=(0.9, 0.1),
            loss_recovered=(None, None),
        ),
    )
    return {**saes, site: sae}


def test_steps_that_a_gate_closes_are_steered_only_if_it_is_ignored(
    tiny64: AceStep15, saes: dict[str, TopKSAE], steering: FeatureSteering
) -> None:
    closed = replace(steering, saes=used_saes(gated(saes, tiny64), steering.sigmas))
    with pytest.raises(GatedStep, match="may not be used at step 2"):
        closed.at(1.0)
    assert closed.at(1.0, schedule=[1.0, 1.0, 0.0]) == steering.at(1.0, schedule=[1.0, 1.0, 0.0])
    assert closed.at(1.0, ignore_gate=True) == steering.at(1.0)


def test_a_vector_of_features_is_refused_where_a_gate_is_closed(
    tiny64: AceStep15, saes: dict[str, TopKSAE], tmp_path: Path
) -> None:
    """When it is made, and when it steers, also after it was written, resampled or stacked."""
    own, one = gated(saes, tiny64), {**OPTIONS, "pairs": 1}
    with pytest.raises(GatedStep, match="may not be used at step 2"):
        sae_features(tiny64, "mood", own, **OPTIONS)
    of_run = feature_steering(tiny64, "mood", own, **one)
    made = sae_features(tiny64, "mood", own, ignore_gate=True, **one)
    assert of_run.saes == made.saes
    assert [(sae.site, sae.weights) for sae in made.saes] == [(s, weights_hash(own[s])) for s in SITES]
    assert [[each.step for each in sae.closed] for sae in made.saes] == [[], [2]]
    open_one = sae_features(tiny64, "mood", saes, **one)
    assert_close(made.directions[SITES[1]].values, open_one.directions[SITES[1]].values)
    vector = load_vector(made.save(tmp_path / "v.safetensors"))
    assert vector.saes == made.saes
    assert pack_facts(vector)[f"autoencoder of {SITES[1]}"].endswith("closed steps: 2)")
    sentence = r"tf1.cross_attn may not be used at step 2 .*weight of 0 in a schedule.*--ignore-gate"
    for operation in ("add", "clamp", "steer_back"):
        with pytest.raises(GatedStep, match=sentence):
            vector.at(1.0, operation=operation)
    assert vector.at(1.0, ignore_gate=True) == vector.ignoring_gate().at(1.0) == open_one.at(1.0)
    assert vector.at(1.0, schedule=[1.0, 1.0, 0.0]) == open_one.at(1.0, schedule=[1.0, 1.0, 0.0])
    assert vector.at(0.0) and vector.only(SITES[0]).at(1.0)
    late = vector.resampled([vector.sigmas[0], *np.linspace(vector.sigmas[2], 0.01, 3).tolist()])
    assert [each.step for each in late.saes[1].closed] == [1, 2, 3]
    for stacked in (stack([vector, vector.ignoring_gate()]), stack([vector.ignoring_gate(), vector])):
        assert {each.site: each for each in stacked.saes} == {each.site: each for each in vector.saes}
    assert random_vectors(vector, 1)[0].saes == ()
    with pytest.raises(GatedStep, match="may not be used at step 2"):
        write_demon(vector, tmp_path / "demon")
