"""Edits of SAE features against their definitions, worked out token by token."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.sae.random_sae import randomised
from workbench.engine.edits import SELF, Edit, Run, edit_features, edit_from_json, patch_reconstruction
from workbench.engine.operators import OPERATORS, Operands, Region
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.gate import Gate, GatedStep, set_gate
from workbench.sae.topk import TopKConfig, TopKSAE

SITE = "tf1.cross_attn"
CHANNELS, FEATURES, K = 4, 10, 3
KINDS = [name for name in ARCHITECTURES if "transcoder" not in name]
MODES = ("pre_activation", "post_activation", "inject")


def random_sae(channels: int = CHANNELS, features: int = FEATURES, seed: int = 0) -> TopKSAE:
    """An SAE with random weights in float64."""
    draw = torch.Generator().manual_seed(seed)
    config = TopKConfig(d_in=channels, d_sae=features, k=K)
    shapes = TopKSAE.shapes(config)
    return TopKSAE(config, {name: torch.randn(s, generator=draw).double() for name, s in shapes.items()})


def sae_of_kind(architecture: str, steps: list[int] | None = None, channels: int = CHANNELS) -> Any:
    """An SAE with random weights in float64, as it is kept after training."""
    objective = ARCHITECTURES[architecture].objective.model_validate(
        {"k": K} if "topk" in architecture else {}
    )
    metadata = {} if steps is None else {"scaled_steps": steps}
    return objective.trained(randomised(objective.new_sae(channels, FEATURES, metadata))).double()


def transcoder(
    read: str = SITE, channels: int = CHANNELS, channels_out: int = CHANNELS, architecture: str = "batchtopk"
) -> Any:
    """A transcoder with random weights in float64."""
    objective = ARCHITECTURES[f"{architecture}_transcoder"].objective.model_validate(
        {"k": K, "d_out": channels_out}
    )
    metadata = {"hook_name": read} if read else {}
    return randomised(objective.new_sae(channels, FEATURES, metadata)).double()


SAE = random_sae()
VALUE = torch.randn((7, CHANNELS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def applied(edit: Edit, value: torch.Tensor = VALUE, step: int = 0) -> torch.Tensor:
    """A row's value under an edit of which it is the source, too, if it has one."""
    region = Region(edit.window.tokens, edit.window.heads, None, head_dim=2)
    operands = Operands(region.read(value), value[None][: len(edit.sources)], region, Site.parse(SITE), step)
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
        if mode == "pre_activation":
            factors[features] = max(0.0, 1 + strength)
            after = features_of(token, factors)
        for feature in features:
            if mode == "post_activation":
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
        for mode in ("post_activation", "pre_activation")
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
    source = VALUE.to(dtype)
    found = applied(patch_reconstruction(SAE, SITE, "positive"), source)
    wide = source.to(torch.promote_types(dtype, torch.float32))
    assert found.dtype == dtype
    assert_close(found, SAE.to(wide.dtype)(wide).to(dtype).detach())


@pytest.mark.parametrize("architecture", KINDS)
def test_every_kind_is_edited_and_written(architecture: str) -> None:
    sae = sae_of_kind(architecture)
    acts, x = sae.encode(VALUE), VALUE
    assert (acts > 0).any()
    off = acts.clone()
    off[:, [3, 5]] = 0.0
    set_ = acts.clone()
    set_[:, 4] = 2.0
    decoder = sae.W_dec
    scaled = edit_features(sae, [3, 5], SITE, -1.0)
    assert_close(applied(scaled), (x + (off - acts) @ decoder).detach())
    injected = edit_features(sae, 4, SITE, 2.0, mode="inject")
    assert_close(applied(injected), (x + (set_ - acts) @ decoder).detach())
    whole = patch_reconstruction(sae, SITE, "positive")
    assert_close(applied(whole), sae(x).detach())
    for edit in (scaled, injected, whole):
        held = {tensor.hash: tensor for tensor in edit.tensors}
        again = edit_from_json(json.loads(json.dumps(edit.to_json())), held.__getitem__)
        assert (again, again.hash) == (edit, edit.hash)


def test_thresholds_are_passed_before_the_activation_function() -> None:
    sae = sae_of_kind("batchtopk")
    pre = sae.pre_activations(VALUE)
    below = (pre > 0) & (sae.encode(VALUE) == 0)
    feature = int(below.sum(dim=0).argmax())
    changed = pre.clone()
    changed[:, feature] *= 100.0
    expected = VALUE + (sae.activate(changed) - sae.activate(pre)) @ sae.W_dec
    found = applied(edit_features(sae, feature, SITE, 99.0, mode="pre_activation"))
    assert_close(found, expected.detach())
    assert (found - VALUE)[below[:, feature]].abs().min() > 0


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "gated", "standard"])
def test_inputs_scaled_per_step_are_those_of_the_step(tiny64: AudioDiffusionModel, architecture: str) -> None:
    sae = sae_of_kind(architecture, steps=[0, 2])
    whole, off = patch_reconstruction(sae, SITE, "positive"), edit_features(sae, 4, SITE, -1.0)
    for step in (0, 2):
        own = sae.at(step)
        assert_close(applied(whole, step=step), own(VALUE).detach())
        assert torch.equal(applied(off, step=step), applied(edit_features(own, 4, SITE, -1.0)))
    assert (applied(whole, step=0) - applied(whole, step=2)).abs().max() > 1e-3
    clip, settings = Clip("a sad song", 3), GenerationSettings(duration=1.0, num_steps=3)
    with pytest.raises(UserError, match="trained on steps 0, 2; it cannot be used at step 1"):
        tiny64.generate(clip, settings, edits=edit_features(sae, 1, SITE))


def test_a_transcoder_reads_one_site_and_changes_another(tiny64: AudioDiffusionModel) -> None:
    """Each row's own values of the call, and a source's before it is edited, as of any other patch."""
    clip, settings = Clip("a sad song", 3), GenerationSettings(duration=1.0, num_steps=2)
    read, changed = "tf1.self_attn", "tf1.mlp"
    sae = transcoder(read, tiny64.channels(Site.parse(read)), tiny64.channels(Site.parse(changed)))
    first = edit_features(random_sae(sae.config.d_in), 1, read, 3.0, mode="inject")
    edits = {
        "patched": (patch_reconstruction(sae, changed, SELF),),
        "after another": (first, patch_reconstruction(sae, changed, SELF)),
        "steered": (first, edit_features(sae, 5, changed, 3.0, mode="inject", steps=(1, 1))),
        "first": (first,),
    }

    def values(name: str, site: str) -> torch.Tensor:
        found = tiny64.generate(clip, settings, edits=list(edits[name]), capture=[read, changed]).activations
        return torch.from_numpy(found[site][0].sel({"step": 1, "pass": "cond"}).values).float()

    def reconstructed(name: str) -> torch.Tensor:
        return sae(values(name, read).double()).detach().float()

    assert_close(values("patched", changed), reconstructed("patched"))
    own = values("after another", read)
    assert (own - values("patched", read)).abs().max() > 1e-3
    assert (values("after another", changed) - reconstructed("after another")).abs().max() > 1e-3
    acts = sae.encode(values("steered", read).double())
    expected = values("first", changed) + (3.0 - acts[:, 5:6]) * sae.W_dec[5]
    assert_close(values("steered", changed), expected.detach().float())


def test_a_transcoder_of_another_width_is_refused(tiny64: AudioDiffusionModel) -> None:
    edit = edit_features(transcoder("tf1.self_attn", 4, 32), 1, SITE)
    with pytest.raises(UserError, match=r"must have 32 channels, those of tf1.self_attn; it has 4"):
        tiny64.generate(Clip("a sad song", 3), GenerationSettings(duration=1.0, num_steps=1), edits=edit)


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
        ({"sae": None}, "must be an SAE"),
        ({"sae": sae_of_kind("gated"), "mode": "pre_activation"}, "not in a gated one"),
        ({"sae": sae_of_kind("standard"), "mode": "pre_activation"}, "not in a standard one"),
        ({"sae": transcoder()}, "tf1.cross_attn cannot be reconstructed from tf1.cross_attn"),
        ({"sae": transcoder(), "sites": "tf1.cross_attn.v"}, "cannot be reconstructed from"),
        ({"sae": transcoder("")}, "must say which site it reads"),
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
