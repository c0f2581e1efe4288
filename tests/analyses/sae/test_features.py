"""The table of features against the same metrics from all activations at once, and the result of a whole run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score

from analyses.sae.activity import BINS
from analyses.sae.auroc import auroc, chance_aurocs, concept_aurocs
from analyses.sae.codes import Axes
from analyses.sae.concept_scores import SCORED
from analyses.sae.encoding import encode_clip
from analyses.sae.features import TOP_CLIPS, feature_table
from analyses.sae.metrics import Reconstruction
from analyses.sae.names import load_sae
from analyses.sae.run import run_sae
from analyses.sae.trace import feature_trace
from analyses.sae.train import train_spec
from cache.errors import UserError
from tests.analyses.planted_study import CHANNELS, CONCEPTS, PLANTED, SIGMAS, STEPS, TOKEN_SECONDS, TOKENS
from tests.tolerances import assert_close
from workbench.sae.folder import load_folder
from workbench.sae.topk import TopKConfig, TopKSAE
from workbench.studies.study import Study

SITE, PLANTED_STEP, _ = PLANTED
SPEC = train_spec(site=SITE, k=2, train_steps=150, batch_size=256, held_out_fraction=0.2)
D_SAE = 4 * CHANNELS


@pytest.fixture(scope="module")
def result(planted_folder: Path) -> xr.Dataset:
    return run_sae(Study.open(planted_folder), SPEC)


@pytest.fixture
def acts(planted_study: Study, result: xr.Dataset) -> np.ndarray:
    """Feature activations of the whole study, (clip, step, token, feature)."""
    x = planted_study.cache.read(SITE, passes=["cond"])[:, :, 0]
    with torch.no_grad():
        return load_sae(planted_study, SITE).encode(torch.from_numpy(x)).numpy()


def test_activity(result: xr.Dataset, acts: np.ndarray) -> None:
    flat = acts.reshape(-1, D_SAE)
    np.testing.assert_allclose(result.density, (flat > 0).mean(axis=0))
    np.testing.assert_array_equal(result.alive, (flat > 0).any(axis=0))
    assert_close(result.max_activation, flat.max(axis=0))
    for feature in result.feature[result.alive.values].values:
        active = flat[flat[:, feature] > 0, feature]
        assert_close(result.mean_activation[feature], active.mean(), feature)
    assert_close(result.step_profile, acts.mean(axis=(0, 2)).T)


def test_top_clips(result: xr.Dataset, acts: np.ndarray) -> None:
    assert result.sizes["rank"] == TOP_CLIPS
    for feature in range(D_SAE):
        peak = acts[..., feature].max(axis=(1, 2))
        best = np.sort(peak)[::-1][:TOP_CLIPS]
        row = result.sel(feature=feature)
        fires = best > 0
        assert_close(row.top_activation[fires], best[fires])
        assert np.isnan(row.top_activation[~fires]).all()
        clips = row.top_clip.values[fires]
        assert len(set(clips)) == len(clips)
        assert_close(peak[clips], best[fires])
        assert (row.top_clip.values[~fires] == -1).all()
        for rank in np.flatnonzero(fires):
            step = STEPS.index(row.top_step[rank].item())
            token = round(row.top_second[rank].item() / TOKEN_SECONDS)
            assert acts[clips[rank], step, token, feature] == best[rank]


def test_histograms(result: xr.Dataset, acts: np.ndarray) -> None:
    flat = acts.reshape(-1, D_SAE)
    np.testing.assert_array_equal(result.hist_count.sum("bin"), (flat > 0).sum(axis=0))
    for feature in result.feature[result.alive.values].values:
        values = flat[flat[:, feature] > 0, feature].astype(np.float64)
        edges = np.append(result.hist_edge[feature], result.max_activation[feature])
        np.testing.assert_allclose(np.diff(edges), edges[-1] / BINS)
        # Counts up to an edge, but for values within rounding of it.
        below = np.searchsorted(np.sort(values), edges[1:-1])
        assert np.abs(np.cumsum(result.hist_count[feature])[:-1].values - below).max() <= 1


def test_aurocs_are_those_of_scikit_learn(planted_study: Study, result: xr.Dataset, acts: np.ndarray) -> None:
    clip_mean = acts.mean(axis=(1, 2), dtype=np.float64)
    names = [f"{concept}={value}" for concept, values in CONCEPTS.items() for value in sorted(values)]
    assert list(result.value.values) == names
    for name in names:
        concept, value = name.split("=")
        has_value = planted_study.clips[f"label_{concept}"] == value
        for feature in result.feature[result.alive.values].values:
            expected = roc_auc_score(has_value, clip_mean[:, feature])
            assert result.auroc.sel(feature=feature, value=name).item() == pytest.approx(expected)
    assert result.auroc[~result.alive.values].isnull().all()


def test_a_feature_carries_the_planted_concept(result: xr.Dataset) -> None:
    best = result.auroc.sel(value="tempo=fast").argmax("feature").item()
    assert result.auroc.sel(value="tempo=fast")[best] > 0.99
    threshold = result.auroc_shuffled
    assert result.auroc.sel(value="tempo=fast")[best] > threshold.sel(value="tempo=fast") + 0.1
    assert result.auroc.sel(value="mood=happy").max() < threshold.sel(value="mood=happy")
    profile = result.step_profile[best]
    assert profile.sel(step=PLANTED_STEP) > 2 * profile.sel(step=STEPS[0])


def test_final_metrics_are_those_of_the_held_out_clips(planted_study: Study, result: xr.Dataset) -> None:
    held_out = [int(clip) for clip in result.attrs["held_out_clips"]]
    assert planted_study.clips.encoding[held_out].nunique() == 8
    assert len(held_out) == 16
    x = torch.from_numpy(planted_study.cache.read(SITE, clips=held_out, passes=["cond"])).reshape(
        -1, CHANNELS
    )
    sae = load_sae(planted_study, SITE)
    metrics = Reconstruction(CHANNELS, D_SAE)
    with torch.no_grad():
        metrics.add(x, sae(x), sae.encode(x))
    for name in ("explained_variance", "normalised_error", "l0", "dead_fraction"):
        assert result[f"final_{name}"].item() == pytest.approx(getattr(metrics, name))
    trained = [clip for clip in planted_study.clips["clip"] if clip not in held_out]
    variance = (
        planted_study.cache.read(SITE, clips=trained, passes=["cond"]).reshape(-1, CHANNELS).var(axis=0)
    )
    assert result.final_loss.item() == pytest.approx(metrics.squared_error / variance.mean(), rel=1e-5)


def test_the_result_has_its_schema(result: xr.Dataset) -> None:
    by_feature = dict.fromkeys(("density", "max_activation", "mean_activation", "alive"), ("feature",))
    top = dict.fromkeys(("top_clip", "top_activation", "top_second", "top_step"), ("feature", "rank"))
    curves = dict.fromkeys(("loss", "explained_variance", "l0", "dead_fraction"), ("train_step",))
    metrics = ("explained_variance", "normalised_error", "l0", "dead_fraction", "dense_fraction")
    scores = [f"{name}{end}" for name in SCORED for end in ("", "_lo", "_hi")] + ["p_adjusted"]
    nearest = ("decoder_neighbour", "decoder_cosine", "coactive_neighbour", "coactive_jaccard")
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        **curves,
        "mean_to_spread": ("scaled",),
        "final_loss": (),
        **{f"final_{name}": () for name in metrics},
        **{f"step_{name}": ("step",) for name in metrics},
        "gated": ("step",),
        **by_feature,
        **top,
        "hist_count": ("feature", "bin"),
        "hist_edge": ("feature", "bin"),
        "step_profile": ("feature", "step"),
        "auroc_shuffled": ("value",),
        "label": ("feature",),
        **dict.fromkeys(scores, ("feature", "value")),
        **dict.fromkeys(nearest, ("feature", "neighbour")),
        **{name.replace("top", "quantile"): ("feature", "quantile") for name in top},
    }
    expected = {
        "kind": "sae",
        "schema_version": 5,
        "site": SITE,
        "pass": "cond",
        "architecture": "topk",
        "k": 2,
        "d_sae": D_SAE,
    }
    assert {name: result.attrs[name] for name in expected} == expected
    assert result.attrs["explained_variance_convention"].startswith(
        "1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2"
    )
    assert result.alive.dtype == bool


def test_the_result_is_saved(planted_study: Study, result: xr.Dataset) -> None:
    xr.testing.assert_identical(planted_study.result(f"sae-{SITE}"), result)
    assert planted_study.is_done(f"sae-{SITE}", SPEC)


def test_the_table_is_that_of_the_activations(
    planted_study: Study, result: xr.Dataset, acts: np.ndarray
) -> None:
    """Quantiles, neighbours and labels of a whole run; each is compared in a test of its own."""
    flat = acts.reshape(-1, D_SAE)
    best = result.auroc.sel(value="tempo=fast").argmax("feature").item()
    assert result.label[best] == "tempo=fast"
    assert set(result.label.values.tolist()) <= {"", "tempo=fast", "tempo=slow"}
    row = result.sel(feature=best)
    positive = flat[flat[:, best] > 0, best]
    assert_close(row.quantile_activation, np.quantile(positive, row["quantile"], method="inverted_cdf"))
    for clip, second, step, value in zip(
        row.quantile_clip, row.quantile_second, row.quantile_step, row.quantile_activation, strict=True
    ):
        token = round(second.item() / TOKEN_SECONDS)
        assert acts[clip.item(), STEPS.index(step.item()), token, best] == value
    w_dec = load_sae(planted_study, SITE).W_dec.numpy(force=True)
    nearest = row.decoder_neighbour[0].item()
    assert_close(row.decoder_cosine[0], w_dec[best] @ w_dec[nearest])
    active, other = flat[:, best] > 0, flat[:, row.coactive_neighbour[0].item()] > 0
    assert row.coactive_jaccard[0] == pytest.approx((active & other).sum() / (active | other).sum())


def test_the_folder_has_configuration_weights_and_codes(planted_study: Study, result: xr.Dataset) -> None:
    folder = planted_study.path / "sae" / SITE
    assert result.sizes["feature"] == D_SAE
    names = {file.relative_to(folder).parts[0] for file in folder.rglob("*")}
    assert names == {"cfg.json", "sae_weights.safetensors", "codes"}
    assert len(list((folder / "codes").iterdir())) == len(planted_study.clips)


def test_a_trace_is_the_encoding_of_the_cached_clip(planted_study: Study, acts: np.ndarray) -> None:
    trace = feature_trace(planted_study, SITE, feature=5, clip=33)
    assert trace.dims == ("step", "token")
    assert_close(trace, acts[33, :, :, 5])
    assert list(trace.step.values) == list(STEPS)
    assert tuple(trace.sigma.values) == SIGMAS
    np.testing.assert_allclose(trace.seconds, np.arange(TOKENS) * TOKEN_SECONDS)


def test_a_trace_reads_the_pass_of_the_training(planted_study: Study) -> None:
    site = "tf0.cross_attn"
    run_sae(planted_study, train_spec(site=site, pass_name="null", k=2, train_steps=3, batch_size=64))
    x = torch.from_numpy(planted_study.cache.read(site, clips=[1], passes=["null"])[0, :, 0])
    expected = load_folder(planted_study.path / "sae" / site).encode(x)
    traces = [feature_trace(planted_study, site, feature, 1).values for feature in range(D_SAE)]
    assert_close(np.stack(traces, axis=-1), expected)


def test_dead_features_and_clips_in_which_a_feature_is_silent(planted_study: Study) -> None:
    sae = TopKSAE(TopKConfig(d_in=1, d_sae=2, k=2))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0]]))
        sae.b_enc.copy_(torch.tensor([0.0, -1.0]))
    clips = pd.DataFrame(
        {"clip": range(4), "label_tempo": ["slow", "fast", "fast", "slow"], "encoding": range(4)}
    )
    acts = np.zeros((4, len(STEPS), TOKENS, 1), dtype=np.float32)
    acts[1, 1, 2] = 4.0
    axes = Axes.of_plan(planted_study.cache.plan)
    codes = [encode_clip(sae, of_clip, axes.steps) for of_clip in acts]
    table = feature_table(codes, axes, sae.W_dec.numpy(force=True), clips)
    assert table.top_clip.values.tolist() == [[1, -1, -1, -1], [-1] * 4]
    np.testing.assert_array_equal(table.top_activation, [[4, np.nan, np.nan, np.nan], [np.nan] * 4])
    np.testing.assert_array_equal(table.top_second[0], [2 * TOKEN_SECONDS, np.nan, np.nan, np.nan])
    assert table.top_step.values.tolist() == [[STEPS[1], -1, -1, -1], [-1] * 4]
    assert table.alive.values.tolist() == [True, False]
    np.testing.assert_allclose(table.density, [1 / acts.size, 0])
    np.testing.assert_allclose(table.mean_activation, [4, 0])
    assert table.hist_count.values.tolist() == [[0] * (BINS - 1) + [1], [0] * BINS]
    np.testing.assert_array_equal(table.auroc, [[0.75, 0.25], [np.nan, np.nan]])


def test_on_noise_few_features_are_above_shuffled_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 200 features of 24 prompts the best one separates any value well; in some 5 % of draws it is above."""
    monkeypatch.setattr("analyses.sae.auroc.SHUFFLES", 200)
    labels = np.repeat(["fast", "slow"], 12)
    clips = pd.DataFrame({"encoding": np.arange(24).repeat(2), "label_tempo": labels.repeat(2)})
    above = []
    for draw in range(200):
        noise = np.random.default_rng(draw).normal(size=(24, 200)).repeat(2, axis=0)
        _, areas = concept_aurocs(noise, clips)
        above.append(bool((areas.max(axis=0) > chance_aurocs(noise, clips, seed=draw).auroc).any()))
    assert areas.max() > 0.75
    assert 0.01 < np.mean(above) < 0.12, "two values, mirror images of each other"


def test_labels_are_shuffled_between_prompts() -> None:
    """A feature of one prompt in five clips is no better than that prompt alone."""
    prompts = np.arange(6).repeat([5, 1, 1, 1, 1, 1])
    clips = pd.DataFrame({"encoding": prompts, "label_mood": np.where(prompts < 3, "happy", "sad")})
    feature = (prompts == 0)[:, None].astype(float)
    happy, sad = chance_aurocs(feature, clips).auroc
    # The prompt is happy in half of all shuffles: 5 of 7 happy clips are active, and none of 3 sad ones.
    assert happy == pytest.approx((5 + 2 / 2) / 7)
    assert sad == pytest.approx((5 + 2 / 2) / 7)
    assert np.isnan(chance_aurocs(feature[:, :0], clips).auroc).all()


def test_auroc_by_hand() -> None:
    scores = np.array([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0], [3.0, 0.0, 2.0]])
    # Third column: of the two (positive, negative) pairs one is won and one tied.
    np.testing.assert_allclose(auroc(scores, np.array([False, False, True])), [1.0, 0.5, 0.75])
    assert np.isnan(auroc(scores, np.ones(3, dtype=bool))).all()


def test_clips_without_a_value_do_not_count() -> None:
    clips = pd.DataFrame(
        {
            "label_tempo": ["slow", "fast", "", "fast", "slow"],
            "label_mood": ["", "", "", "", ""],
            "encoding": range(5),
        }
    )
    names, aurocs = concept_aurocs(np.array([[1.0], [2.0], [0.0], [3.0], [1.0]]), clips)
    assert names == ["tempo=fast", "tempo=slow"]
    np.testing.assert_allclose(aurocs, [[1.0, 0.0]])


def test_prompts_that_are_the_same_tokens_count_as_one() -> None:
    """Six spellings of two prompts with each value, two of them the same tokens: 4 units, with only 6 labellings."""
    spelling = np.arange(24) % 6
    tempo = np.where(np.arange(24) < 12, "slow", "fast")
    read = np.array([f"{pace}{which == 5}" for pace, which in zip(tempo, spelling, strict=True)])
    clips = pd.DataFrame({"encoding": read, "prompt_id": np.arange(24) // 2, "label_tempo": tempo})
    feature = (tempo == "slow")[:, None].astype(float)
    np.testing.assert_array_equal(concept_aurocs(feature, clips)[1], [[0, 1]])
    np.testing.assert_array_equal(chance_aurocs(feature, clips).auroc, [1, 1])


def test_a_value_of_several_spellings_of_one_prompt_has_no_auroc() -> None:
    clips = pd.DataFrame(
        {
            "encoding": ["a", "a", "b", "b", "b", "c"],
            "prompt_id": range(6),
            "label_tempo": ["slow", "slow", "fast", "fast", "fast", "fast"],
        }
    )
    names, aurocs = concept_aurocs(np.arange(6.0)[:, None], clips)
    assert names == ["tempo=fast", "tempo=slow"]
    assert np.isnan(aurocs).all()
    assert np.isnan(chance_aurocs(np.arange(6.0)[:, None], clips).auroc).all()


def test_values_that_are_the_same_tokens_have_no_auroc() -> None:
    """The model knows neither "oboe" nor "zither"; it knows violins."""
    instruments = ["oboe", "zither", "violin", "oboe", "zither", "violin"]
    clips = pd.DataFrame({"encoding": ["?1", "?1", "v1", "?2", "?2", "v2"], "label_instrument": instruments})
    names, aurocs = concept_aurocs(np.array([[0.0, 1, 5, 2, 3, 4]]).T, clips)
    assert names == ["instrument=oboe", "instrument=violin", "instrument=zither"]
    np.testing.assert_array_equal(aurocs, [[np.nan, 1, np.nan]])
    np.testing.assert_array_equal(np.isnan(chance_aurocs(np.zeros((6, 1)), clips).auroc), [True, False, True])


@pytest.mark.parametrize("prompts", [[0, 0, 1, 2], [0, 1, 2, 2], [0, 0, 1, 1]])
def test_a_value_of_a_single_prompt_has_no_auroc(prompts: list[int]) -> None:
    clips = pd.DataFrame({"label_tempo": ["slow", "slow", "fast", "fast"], "encoding": prompts})
    _, aurocs = concept_aurocs(np.array([[1.0], [2.0], [0.0], [3.0]]), clips)
    assert np.isnan(aurocs).all()


def test_what_there_is_not_is_told(planted_study: Study, result: xr.Dataset) -> None:
    assert "density" in result
    with pytest.raises(UserError, match=r"no sparse autoencoder named 'tf9\.mlp' \(it has .*tf1\.cross_attn"):
        load_sae(planted_study, "tf9.mlp")
    with pytest.raises(UserError, match=f"features 0 to {D_SAE - 1}; got {D_SAE}"):
        feature_trace(planted_study, SITE, D_SAE, 0)
    with pytest.raises(UserError, match="no clip 999"):
        feature_trace(planted_study, SITE, 0, 999)
    with pytest.raises(UserError, match="no site 'tf9"):
        run_sae(planted_study, train_spec(site="tf9.mlp"))
    with pytest.raises(UserError, match="no pass 'uncond'"):
        run_sae(planted_study, train_spec(site=SITE, pass_name="uncond"))
