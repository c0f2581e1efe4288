"""Ridge probes against planted linear functions, unrelated values, and closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import Ridge

from analyses.probes import ridge, run
from analyses.probes.ridge import (
    PENALTIES,
    RidgeTask,
    fitted_ridge,
    measured_values,
    ridge_scores,
    ridge_task,
)
from analyses.probes.run import asked_probes, run_probes
from analyses.probes.spec import ProbeSpec
from analyses.statistics import MIN_P
from cache.errors import UserError
from tests.analyses.planted_study import PLANTED
from tests.tolerances import FLOAT64, difference
from workbench.audio import write_flac
from workbench.studies.study import Study

SPEC = ProbeSpec(folds=4)
PROMPTS, SEEDS, CHANNELS = 40, 2, 12
GROUPS = np.repeat(np.arange(PROMPTS), SEEDS)


def activations(seed: int = 0) -> np.ndarray:
    """Noise, of which half is the prompt's: its clips are alike."""
    rng = np.random.default_rng(seed)
    shape = (len(GROUPS), CHANNELS)
    return rng.normal(size=(PROMPTS, CHANNELS))[GROUPS] + rng.normal(size=shape)


def task(values: np.ndarray) -> RidgeTask:
    return ridge_task(values, GROUPS, SPEC)


def test_a_linear_function_of_the_activations_is_predicted() -> None:
    acts = activations()
    values = acts @ np.arange(CHANNELS) + 100.0
    probed = task(values)
    found = ridge_scores(acts, probed, probed.shuffled(30))
    assert found.r2 > 0.999
    assert found.r2_lo > 0.999
    assert (found.r2_fold > 0.99).all()
    assert found.shuffled.max() < 0.4
    assert abs(found.shuffled.mean()) < 0.1


def test_half_of_the_variance_is_half_of_r2() -> None:
    acts = activations()
    signal = acts[:, 0]
    values = signal + signal.std() * np.random.default_rng(3).normal(size=len(signal))
    found = ridge_scores(acts, task(values), np.empty((0, len(values))))
    assert found.r2_lo < 0.5 < found.r2_hi
    assert found.r2 == pytest.approx(0.5, abs=0.2)


def test_unrelated_values_are_not_predicted_better_than_by_their_mean() -> None:
    unrelated = [activations(seed)[:, 0] for seed in range(1, 6)]
    found = [ridge_scores(activations(), task(values), np.empty((0, len(GROUPS)))).r2 for values in unrelated]
    assert np.mean(found) <= 0
    assert max(found) < 0.1


def test_values_without_a_site_that_varies_have_no_r2() -> None:
    still = ridge_scores(np.ones((len(GROUPS), 3)), task(activations()[:, 0]), np.empty((0, len(GROUPS))))
    assert still.r2 == pytest.approx(0, abs=1e-9)


def test_predictions_are_those_of_scikit_learn_with_the_best_penalty_for_left_out_prompts() -> None:
    x, groups = activations()[:60], GROUPS[:60]
    y = np.column_stack([x[:, 0] + np.random.default_rng(1).normal(size=60), activations(5)[:60, 1]])
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    predicted = fitted_ridge(x, y, groups)(x)
    for target, of_target in zip(y.T, predicted.T, strict=True):
        errors = [
            sum(
                ((Ridge(penalty).fit(standard[groups != group], target[groups != group])
                  .predict(standard[groups == group]) - target[groups == group]) ** 2).sum()
                for group in np.unique(groups)
            )
            for penalty in PENALTIES
        ]  # fmt: skip
        best = PENALTIES[int(np.argmin(errors))]
        assert difference(of_target, Ridge(best).fit(standard, target).predict(standard)) < 1e3 * FLOAT64


def test_prompts_are_held_out_whole_and_every_clip_once() -> None:
    probed = task(activations()[:, 0])
    tested = np.concatenate([test for _, test in probed.splits])
    assert sorted(tested) == list(range(len(GROUPS)))
    for train, test in probed.splits:
        assert not set(probed.groups[train]) & set(probed.groups[test])


def test_values_are_shuffled_between_prompts_of_as_many_clips() -> None:
    values = activations()[:, 0]
    values[[0, 5]] = np.nan  # two prompts have one clip
    probed = task(values)
    drawn = probed.shuffled(5, "tf0.mlp", 3)
    assert (np.sort(drawn, axis=1) == np.sort(probed.values)).all()
    kept = {frozenset(probed.values[probed.groups == group]) for group in range(probed.n_prompts)}
    for shuffle in drawn:
        assert {frozenset(shuffle[probed.groups == group]) for group in range(probed.n_prompts)} == kept
        assert (shuffle != probed.values).any()
    assert (probed.shuffled(5, "tf0.mlp", 4) != drawn).any()


def test_clips_without_a_value_are_left_out_and_too_few_or_equal_ones_refused() -> None:
    values = activations()[:, 0]
    values[:10] = np.nan
    assert task(values).clips.tolist() == list(range(10, len(GROUPS)))
    assert task(values).n_prompts == PROMPTS - 5
    with pytest.raises(UserError, match="have 3 prompts, of at least 4"):
        task(np.where(GROUPS < 3, 1.0 * GROUPS, np.nan))
    with pytest.raises(UserError, match="it is 2 in all clips"):
        task(np.full(len(GROUPS), 2.0))


def test_the_result_has_descriptors_beside_concepts(
    planted_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The activations at the planted site are faster where the descriptor is higher; one has no value anywhere."""
    fast = (planted_study.clips["label_tempo"] == "fast").to_numpy(float)
    made = {
        "onset_rate": fast + 0.1 * np.random.default_rng(0).normal(size=len(fast)),
        "pitch": np.full(len(fast), np.nan),
    }
    monkeypatch.setattr(ridge, "measured_values", lambda _, names: {name: made[name] for name in names})
    monkeypatch.setattr(run, "shuffles_per_probe", lambda *_: 8)
    spec = asked_probes(planted_study, concepts="tempo", folds=4, descriptors=("onset_rate", "pitch"))
    notes: list[str] = []
    result = run_probes(planted_study, spec, note=notes.append)
    assert any(
        note.startswith("Descriptor 'pitch' cannot be probed: its clips with a value have 0")
        for note in notes
    )
    assert "pitch" in json.loads(result.attrs["skipped"])
    assert result.descriptor.values.tolist() == ["onset_rate"]
    site, step, _ = PLANTED
    r2 = result.r2.sel(descriptor="onset_rate")
    assert r2.dims == ("site", "step")
    assert r2.sel(site=site, step=step) > 0.7
    assert r2.where((result.site != site) | (result.step != step)).max() < 0.1
    assert result.r2_p.sel(descriptor="onset_rate", site=site, step=step) == MIN_P
    assert result.r2_fold.dims == ("descriptor", "site", "step", "fold")
    assert (result.r2_control < 0.2).all()
    assert (result.descriptor_n.item(), result.descriptor_groups.item()) == (80, 40)
    assert (result.r2_lo <= result.r2).all()
    xr.testing.assert_identical(result, planted_study.result("probes"))


def test_descriptors_are_measured_in_the_studys_recordings(
    planted_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted_study, "path", tmp_path)
    planted_study.clips = planted_study.clips.iloc[:2]
    time = np.arange(16_000) / 16_000
    for clip, hz in enumerate((500, 2000)):
        file = planted_study.audio_path(clip)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_flac(file, 0.3 * np.sin(2 * np.pi * hz * time)[None], 16_000)
    found = measured_values(planted_study, ["brightness", "level"])
    np.testing.assert_allclose(found["brightness"], [500, 2000], rtol=0.05)
    assert found["level"] == pytest.approx([20 * np.log10(0.3 / np.sqrt(2))] * 2, abs=0.01)
    assert measured_values(planted_study, []) == {}
    planted_study.audio_path(1).unlink()
    with pytest.raises(UserError, match="no recording"):
        measured_values(planted_study, ["level"])
