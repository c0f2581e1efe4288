"""Edits of SAE features against their definitions, worked out token by token."""

from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.sae.random_sae import sae_of_steps
from workbench.engine.edits import Edit, Run, edit_features, patch_reconstruction
from workbench.engine.operators import OPERATORS, Operands, Region
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.sae.gate import Gate, GatedStep, set_gate
from workbench.sae.topk import TopKConfig, TopKSAE

SITE = "tf1.cross_attn"
CHANNELS, FEATURES, K = 4, 10, 3
MODES = ("pre_topk", "post_topk", "inject")


def random_sae(channels: int = CHANNELS, features: int = FEATURES, seed: int = 0) -> TopKSAE:
    """An SAE with random weights in float64."""
    draw = torch.Generator().manual_seed(seed)
    config = TopKConfig(d_in=channels, d_sae=features, k=K)
    shapes = TopKSAE.shapes(config)
    return TopKSAE(config, {name: torch.randn(s, generator=draw).double() for name, s in shapes.items()})


SAE = random_sae()
VALUE = torch.randn((7, CHANNELS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def applied(edit: Edit, value: torch.Tensor = VALUE) -> torch.Tensor:
    region = Region(edit.window.tokens, edit.window.heads, None, head_dim=2)
    operands = Operands(region.read(value), value[None][:0], region, Site.parse(SITE))
    return OPERATORS[edit.operator].function(operands, edit.parameters)


def features_of(token: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Features of one token, whose activations are multiplied before the K largest are kept."""
    weights = {name: value.detach().numpy() for name, value in SAE.state_dict().items()}
    acts = np.maximum((token - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0) * factors
    kept = sorted(range(FEATURES), key=lambda feature: -acts[feature])[:K]
    return np.array([acts[feature] if feature in kept else 0.0 for feature in range(FEATURES)])


def by_hand(features: list[int], strength: float, mode: str) -> np.ndarray:
    decoder, rows = SAE.W_dec.detach().numpy(), []
    for token in VALUE.numpy():
        factors = np.ones(FEATURES)
        before = features_of(token, factors)
        after = before.copy()
        if mode == "pre_topk":
            factors[features] = max(0.0, 1 + strength)
            after = features_of(token, factors)
        for feature in features:
            if mode == "post_topk":
                after[feature] = before[feature] * (1 + strength)
            if mode == "inject":
                after[feature] = strength
        error = token - (before @ decoder + SAE.b_dec.detach().numpy())
        rows.append(after @ decoder + SAE.b_dec.detach().numpy() + error)
    return np.stack(rows)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strength", [2.0, 0.5, -0.5, -1.0, -3.0])
def test_each_mode_is_its_formula(mode: str, strength: float) -> None:
    features = [1, 8, 4]
    found = applied(edit_features(SAE, features, SITE, strength, mode=mode))
    assert_close(found, by_hand(features, strength, mode))


def test_boosted_features_push_others_out_only_before_topk() -> None:
    every = SAE.pre_activations(VALUE).relu()
    acts = SAE.encode(VALUE)
    token, feature = next(map(tuple, ((every > 0) & (acts == 0)).nonzero().tolist()))
    before, after = (
        applied(edit_features(SAE, feature, SITE, 1e6, mode=mode))[token]
        for mode in ("post_topk", "pre_topk")
    )
    assert_close(before, VALUE[token], "a feature that is not active")
    assert (after - VALUE[token]).norm() > 1e3


def test_the_reconstruction_error_is_kept() -> None:
    """Where no edited feature is active, nothing changes, though the reconstruction is poor."""
    assert (SAE(VALUE) - VALUE).norm() > 1
    acts = SAE.encode(VALUE)
    feature = int((acts > 0).sum(dim=0).argmin())
    idle = acts[:, feature] == 0
    assert idle.any()
    found = applied(edit_features(SAE, feature, SITE, 5.0))
    assert torch.equal(found[idle], VALUE[idle])


def test_features_are_computed_in_single_precision_at_least() -> None:
    half = VALUE.to(torch.bfloat16)
    found = applied(edit_features(SAE, 2, SITE, 4.0, mode="inject"), half)
    assert found.dtype == torch.bfloat16
    wide = applied(edit_features(SAE, 2, SITE, 4.0, mode="inject"), half.float())
    assert_close(found, wide.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_patch_through_the_autoencoder_is_its_reconstruction_of_the_source(dtype: torch.dtype) -> None:
    edit, source = patch_reconstruction(SAE, SITE, "positive"), VALUE.to(dtype)
    operands = Operands(torch.zeros_like(source), source[None], Region(None, None, None, 2), Site.parse(SITE))
    found = OPERATORS[edit.operator].function(operands, edit.parameters)
    wide = source.to(torch.promote_types(dtype, torch.float32))
    assert found.dtype == dtype
    assert_close(found, SAE.to(wide.dtype)(wide).to(dtype).detach())


@pytest.mark.parametrize("mode", MODES)
def test_a_strength_beyond_single_precision_is_infinite(mode: str) -> None:
    edit = edit_features(SAE, list(range(FEATURES)), SITE, 1e39, mode=mode)
    assert not torch.isfinite(applied(edit, VALUE.float())).all()


@pytest.mark.parametrize("mode", MODES)
def test_strength_0_is_the_unedited_row(model64: AudioDiffusionModel, mode: str) -> None:
    clip, settings = Clip("a sad song", 3), GenerationSettings(duration=1.0, num_steps=2)
    sae = random_sae(model64.channels(Site.parse(SITE)))
    edits = [edit_features(sae, [0, 1], SITE, strength, mode=mode) for strength in (0.0, 2.0)]
    found = model64.generate_batch([clip, *(Run(clip, (edit,)) for edit in edits)], settings)
    assert found.shared_with == (0, 0, 2)
    assert torch.equal(found.latents[0], found.latents[1])
    assert (found.latents[2] - found.latents[0]).abs().max() > 1e-6


def test_a_site_gets_the_edited_value(model64: AudioDiffusionModel) -> None:
    clip, settings = Clip("a sad song", 3), GenerationSettings(duration=1.0, num_steps=2)
    sae = random_sae(model64.channels(Site.parse(SITE)))
    edit = edit_features(sae, 5, SITE, 3.0, mode="inject", steps=(1, 1), passes=("cond",))
    plain, edited = (
        model64.generate(clip, settings, edits=edits, capture=SITE)
        .activations[SITE][0]
        .transpose("step", "pass", ...)
        for edits in ((), edit)
    )
    before = torch.from_numpy(plain.sel({"step": 1, "pass": "cond"}).values.astype(float))
    acts = sae.encode(before)
    expected = before + (3.0 - acts[:, 5:6]) * sae.W_dec[5]
    assert_close(edited.sel({"step": 1, "pass": "cond"}).values, expected.detach().numpy().astype(np.float32))
    assert_close(
        edited.sel({"pass": "cond", "step": 0}).values, plain.sel({"pass": "cond", "step": 0}).values
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"features": [FEATURES]}, "features 0 to 9; got 10"),
        ({"features": [-1]}, "features 0 to 9; got -1"),
        ({"features": [1, 1]}, "each given once"),
        ({"features": []}, "at least one"),
        ({"features": 1.5}, "features"),
        ({"features": True}, "features"),
        ({"strength": float("nan")}, "strength"),
        ({"mode": "scale"}, "mode must be"),
        ({"sae": None}, "must be a TopK one"),
        ({"sae": sae_of_steps(4, [0, 1])}, "scaled per step"),
    ],
)
def test_what_cannot_be_edited(changed: dict[str, Any], words: str) -> None:
    given = {"sae": SAE, "features": [1], "sites": SITE, "strength": 1.0, "mode": "inject", **changed}
    with pytest.raises(UserError, match=words):
        edit_features.__wrapped__(**given)


def test_an_autoencoder_of_another_width_is_refused(tiny64: AudioDiffusionModel) -> None:
    with pytest.raises(UserError, match=r"must have 32 channels, those of tf1.cross_attn; it has 4"):
        tiny64.generate(
            Clip("a sad song", 3),
            GenerationSettings(duration=1.0, num_steps=1),
            edits=edit_features(SAE, 1, SITE),
        )


def test_steps_that_the_gate_closes_are_refused_unless_it_is_ignored() -> None:
    sae = random_sae()
    gate = Gate(steps=(0, 1), sigmas=(1.0, 0.5), explained_variance=(0.9, -0.2), loss_recovered=(None, None))
    set_gate(sae, gate)
    for window in ({"steps": (0, 0)}, {"sigmas": (0.5, 1.0)}):
        edit_features(sae, 1, SITE, **window)
    for window in ({}, {"steps": (1, 1)}, {"sigmas": (0.1, 0.5)}):
        with pytest.raises(GatedStep, match=r"step 1 \(sigma 0.5\): its explained variance there is -0.20"):
            edit_features(sae, 1, SITE, **window)
        edit_features(sae, 1, SITE, ignore_gate=True, **window)
