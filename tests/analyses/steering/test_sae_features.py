"""Directions of SAE features against their definition."""

from typing import Any

import numpy as np
import pytest
import torch

from analyses.steering.capture import PairCapture, capture_of_pairs
from analyses.steering.sae_features import SAEFeatures, sae_features
from analyses.steering.vector import Vector
from cache.errors import UserError
from tests.analyses.steering.pair_values import Outputs, give, random_outputs
from tests.tolerances import assert_close
from tests.workbench.engine.test_feature_edits import random_sae, sae_of_kind, transcoder
from tests.workbench.sae.random_sae import sae_of_steps
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.sae.topk import TopKSAE

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
K = 3


@pytest.fixture(scope="module")
def captured(tiny64: AceStep15) -> PairCapture:
    return capture_of_pairs(tiny64, "mood", SITES, pairs=5, settings=SETTINGS, passes=("cond", "null"))


@pytest.fixture(scope="module")
def saes(captured: PairCapture) -> dict[str, TopKSAE]:
    channels = map(captured.model.channels, captured.capture.sites)
    sizes = zip(SITES, channels, range(2), strict=True)
    return {site: random_sae(width, 40 + place, seed=place) for site, width, place in sizes}


def fitted(captured: PairCapture, saes: dict[str, TopKSAE], outputs: Outputs, **options: Any) -> Vector:
    fit = SAEFeatures(saes=saes, **{"k": K, **options}).start(captured)
    give(fit, outputs)
    return fit.vector()


def widths(saes: dict[str, TopKSAE]) -> list[int]:
    return [sae.config.d_in for sae in saes.values()]


def tfidf(sae: TopKSAE, clean: np.ndarray, corrupt: np.ndarray) -> np.ndarray:
    """The scores from outputs (pair, token, channel)."""
    weights = {name: value.detach().numpy() for name, value in sae.state_dict().items()}
    means = [
        np.maximum((values - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0).mean(axis=(0, 1))
        for values in (clean, corrupt)
    ]
    return means[0] * np.log(1 + 1 / (means[1] + 1e-6))


@pytest.mark.parametrize("contrastive", [False, True])
def test_it_is_the_sum_of_the_decoder_rows_of_the_most_specific_features(
    captured: PairCapture, saes: dict[str, TopKSAE], contrastive: bool
) -> None:
    outputs = random_outputs(captured, widths(saes))
    vector = fitted(captured, saes, outputs, contrastive=contrastive)
    assert (vector.method, vector.unit) == (
        "sae_features",
        "the sum of the decoder rows of the chosen features",
    )
    for site, sae in saes.items():
        rows = sae.W_dec.detach().numpy()
        for acting, step in np.ndindex(2, 2):
            clean, corrupt = (outputs[site][:, side, acting, step] for side in (0, 1))
            expected = sum(rows[feature] for feature in np.argsort(-tfidf(sae, clean, corrupt))[:K])
            if contrastive:
                expected = expected - sum(
                    rows[feature] for feature in np.argsort(-tfidf(sae, corrupt, clean))[:K]
                )
            assert_close(vector.directions[site].values[acting, step], expected, (site, acting, step))


@pytest.mark.parametrize("architecture", ["batchtopk", "gated", "standard"])
def test_inputs_scaled_per_step_are_encoded_with_the_scale_of_their_step(
    captured: PairCapture, architecture: str
) -> None:
    """Features without the choice by threshold, and those of open gates."""
    sae = sae_of_kind(architecture, steps=[0, 1], channels=32)
    outputs = random_outputs(captured, [32, 32])
    vector = fitted(captured, {SITES[0]: sae}, outputs, score="mean_pos", k=2)
    for acting, step in np.ndindex(2, 2):
        own = sae.at(step)
        clean = torch.from_numpy(outputs[SITES[0]][:, 0, acting, step])
        acts = own.encode(clean) if architecture == "gated" else own.pre_activations(clean).relu()
        best = acts.mean(dim=(0, 1)).topk(2).indices
        assert_close(vector.directions[SITES[0]].values[acting, step], sae.W_dec[best].sum(dim=0).detach())


@pytest.mark.parametrize("score", ["diff", "cohens_d", "mean_pos", "logistic"])
def test_a_planted_feature_is_found(captured: PairCapture, saes: dict[str, TopKSAE], score: str) -> None:
    """The encoder of feature 7 is the only one that sees the concept.

    Without `ratio`, which is largest for features that are hardly active on negative prompts.
    """
    outputs = {site: values / 10 for site, values in random_outputs(captured, widths(saes)).items()}
    sighted = {}
    for site, sae in saes.items():
        sighted[site] = random_sae(*sae.W_enc.shape, seed=3)
        with torch.no_grad():
            sighted[site].W_enc[0] = 0.0
            sighted[site].W_enc[0, 7] = 1.0
        outputs[site][:, 0, ..., 0] += 20.0
    vector = fitted(captured, sighted, outputs, score=score, k=1)
    for site, sae in sighted.items():
        expected = np.broadcast_to(sae.W_dec[7].detach().numpy(), vector.directions[site].shape)
        assert_close(vector.directions[site].values, expected, site)
    split = vector.reliability.split_half
    assert split.isnull().all() if score == "logistic" else split.min() == pytest.approx(1.0)


def test_it_is_that_of_the_model_s_own_outputs(tiny64: AceStep15, saes: dict[str, TopKSAE]) -> None:
    site = SITES[1]
    vector = sae_features(tiny64, "mood", {site: saes[site]}, k=K, pairs=3, seed=7, settings=SETTINGS)
    assert list(vector.directions) == [site]
    clips = [Clip(example.prompt, example.seed) for example in vector.examples]
    values = tiny64.generate(clips, SETTINGS, capture=site).activations[site]
    for step in range(2):
        at_step = values.sel({"pass": "cond", "step": step}).values.astype(float)
        order = np.argsort(-tfidf(saes[site], at_step[::2], at_step[1::2]))[:K]
        expected = saes[site].W_dec[order.copy()].sum(dim=0).detach().numpy()
        assert_close(vector.directions[site].values[0, step], expected)


def test_the_given_autoencoder_stays_as_it_is(captured: PairCapture, saes: dict[str, TopKSAE]) -> None:
    before = {name: value.clone() for name, value in saes[SITES[0]].state_dict().items()}
    fitted(captured, saes, random_outputs(captured, widths(saes)))
    for name, value in saes[SITES[0]].state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"saes": {}}, "at least one site"),
        ({"saes": {"tf9.cross_attn": random_sae(32)}}, "tf0 to tf1"),
        ({"saes": {SITES[0]: random_sae(5)}}, "must have 32 channels, those of tf0.cross_attn; it has 5"),
        (
            {"saes": {SITES[0]: sae_of_steps(32, [0, 2])}},
            "trained on steps 0, 2; it cannot be used at step 1",
        ),
        ({"saes": {SITES[0]: transcoder(channels=32)}}, "features of a transcoder are not those of one site"),
        ({"saes": {SITES[0]: random_sae(32)}, "k": 11}, "k must be at most 10"),
        ({"saes": {SITES[0]: random_sae(32)}, "k": 0}, "k must be at least 1"),
        ({"saes": {SITES[0]: "sae"}}, "saes.*SAE"),
        ({"saes": random_sae(32)}, "must be given by site"),
        ({"saes": {SITES[0]: random_sae(32)}, "score": "tf-idf"}, "score must be"),
    ],
)
def test_what_there_is_not(tiny64: AceStep15, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sae_features.__wrapped__(tiny64, "mood", **{"k": 1, "pairs": 1, "settings": SETTINGS, **changed})


def test_only_sites_with_an_autoencoder_get_directions(
    captured: PairCapture, saes: dict[str, TopKSAE]
) -> None:
    outputs = random_outputs(captured, widths(saes))
    some = fitted(captured, {SITES[1]: saes[SITES[1]]}, outputs)
    assert list(some.directions) == list(some.reliability.site.values) == [SITES[1]]
    every = fitted(captured, saes, outputs)
    assert_close(some.directions[SITES[1]].values, every.directions[SITES[1]].values)
    with pytest.raises(UserError, match=r"tf0.cross_attn or tf1.cross_attn, only for tf0.mlp"):
        SAEFeatures(saes={"tf0.mlp": saes[SITES[0]]}, k=1).start(captured)
