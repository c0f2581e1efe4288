"""Evaluating an autoencoder of a tiny study: what its result has, by hand where it can be, and its gate."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from analyses.evaluation import feature_effects
from analyses.evaluation import sae as evaluation
from analyses.evaluation.feature_effects import Used, asked_effects
from analyses.evaluation.feature_sets import FeatureSet
from analyses.evaluation.sae import asked_evaluation, evaluate_sae, step_means
from analyses.patching.contexts import prompt_set_contexts, with_noise
from analyses.sae.names import load_sae
from analyses.sae.replacements import replacements
from analyses.sae.run import asked_trainings, run_sae
from cache.errors import UserError
from dashboards.numbers import fixed, percent
from dashboards.summaries import evaluation_summary, kept_summary, stability_summary
from tests.analyses.evaluation.conftest import NAME, OTHER, SITE, WRITTEN, heard
from tests.tolerances import SCORE, assert_close
from workbench.engine.edits import SELF, Edit, Run, patch_reconstruction
from workbench.engine.runs import Clip
from workbench.models.ace_step import AceStep15
from workbench.sae.gate import gate_of
from workbench.studies.result_files import DamagedResult, result_bytes
from workbench.studies.study import Study

OPTIONS = {"pairs": 2, "against": [OTHER], "clips": 3}


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "load_scorer", heard)


@pytest.fixture(scope="module")
def study(evaluated_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("copy") / "study"
    shutil.copytree(evaluated_study.path, folder)
    return Study.open(folder)


@pytest.fixture(scope="module")
def result(study: Study, tiny: AceStep15) -> xr.Dataset:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation, "load_scorer", heard)
        return evaluate_sae(study, tiny, asked_evaluation(study, NAME, **OPTIONS), note=lambda _: None)


def test_it_has_its_schema_and_is_saved(study: Study, result: xr.Dataset) -> None:
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        **{f"final_{name}": () for name in evaluation.MEASURES},
        **{f"step_{name}": ("step",) for name in evaluation.MEASURES},
        "gated": ("step",),
        "velocity_error": ("replacement", "step"),
        "velocity_square": ("step",),
        **{f"loss_recovered{end}": ("ablation", "step") for end in ("", "_lo", "_hi")},
        **{f"loss_recovered_all{end}": ("ablation",) for end in ("", "_lo", "_hi")},
        **{f"score_kept{end}": ("concept", "replacement", "scorer") for end in ("", "_lo", "_hi")},
        **{f"contrast{end}": ("concept", "scorer") for end in ("", "_lo", "_hi")},
        "pairs": ("concept", "scorer"),
        "matched_cosine": ("other", "feature"),
        "matched_feature": ("other", "feature"),
        "matched_share": ("other", "threshold"),
    }
    assert (result.attrs["kind"], result.attrs["sae"], result.attrs["site"]) == ("sae-evaluation", NAME, SITE)
    assert (result.attrs["held_out"], result.attrs["held_out_prompts"]) == (3, 3)
    assert study.result(f"evaluation-{NAME}").identical(result)
    trained = study.result(f"sae-{NAME}")
    assert result["step_explained_variance"].equals(trained["step_explained_variance"])


def test_the_gate_is_kept_with_the_autoencoder(study: Study, result: xr.Dataset) -> None:
    gate = gate_of(load_sae(study, NAME))
    assert gate is not None
    recovered = result["loss_recovered"].sel(ablation="mean").values
    assert gate.loss_recovered == tuple(recovered.tolist())
    assert gate.explained_variance == tuple(result["step_explained_variance"].values.tolist())
    assert [step for step, _, _ in gate.closed] == result["step"].values[result["gated"].values].tolist()


def test_an_autoencoder_that_was_trained_again_gets_its_gate_back(
    study: Study, tiny: AceStep15, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation is done, as its weights are the same, but training does not know the loss recovered."""
    gate, sae = gate_of(load_sae(study, NAME)), load_sae(study, NAME)
    assert gate is not None
    unknown = gate.model_copy(update={"loss_recovered": (None,) * len(gate.loss_recovered)})
    evaluation._keep_gate(study, NAME, sae, result.assign(loss_recovered=result["loss_recovered"] * np.nan))
    assert gate_of(load_sae(study, NAME)) == unknown
    monkeypatch.setattr(evaluation, "load_scorer", heard)
    evaluate_sae(study, tiny, asked_evaluation(study, NAME, **OPTIONS))
    assert gate_of(load_sae(study, NAME)) == gate


def test_the_velocities_are_those_of_held_out_clips(
    study: Study, tiny: AceStep15, result: xr.Dataset
) -> None:
    held_out = study.result(f"sae-{NAME}").attrs["held_out_clips"][:3]
    sae, errors = load_sae(study, NAME), []
    for row in study.clips.set_index("clip").loc[held_out].itertuples():
        clip = Clip(row.prompt, int(row.seed))
        edit = patch_reconstruction(sae, SITE, SELF, passes=("cond",))
        runs = [Run(clip), Run(clip, (edit,), follows=Run(clip))]
        made = tiny.generate_batch(runs, study.spec.settings, velocity_steps=(0, 1, 2))
        errors.append(
            [float((made.velocities[s][1] - made.velocities[s][0]).square().mean()) for s in (0, 1, 2)]
        )
    found = result["velocity_error"].sel(replacement="reconstruction").values
    assert found == pytest.approx(np.mean(errors, axis=0), rel=1e-3)


def assert_kept_by_hand(study: Study, tiny: AceStep15, result: xr.Dataset, edit: Edit) -> None:
    """Compare what is kept of the drums with the audio of runs that are generated here, one by one.

    They are the concept that the judge tells apart.
    """
    of_drums = result.sel(concept="drums", scorer="embedded")
    drawn = {"drums": prompt_set_contexts(study.spec.prompts, "drums", 2, 0)}
    gains, wholes = [], []
    for context in with_noise(drawn, (study.spec.seed, 0), 1)["drums"]:
        clean, corrupt = (
            Clip(prompt.text, context.seeds[0]) for prompt in (context.pair.clean, context.pair.corrupt)
        )
        made = tiny.generate_batch([Run(clean), Run(corrupt), Run(clean, (edit,))], study.spec.settings)
        audio = tiny.decode(made.latents, study.spec.settings.duration).float().cpu().numpy()
        scores = heard("").score(audio, tiny.sample_rate, [context.pair.text])[:, 0]
        wholes.append(scores[0] - scores[1])
        gains.append(scores[2] - scores[1])
    assert of_drums["contrast"].item() == pytest.approx(np.mean(wholes), rel=SCORE, abs=SCORE * 1e-2)
    kept = of_drums["score_kept"].sel(replacement="reconstruction").item()
    assert kept == pytest.approx(np.sum(gains) / np.sum(wholes), rel=1e-2)


def test_scores_kept_by_hand(study: Study, tiny: AceStep15, result: xr.Dataset) -> None:
    edit = patch_reconstruction(load_sae(study, NAME), SITE, SELF, passes=("cond",))
    assert_kept_by_hand(study, tiny, result, edit)


def test_the_same_evaluation_is_not_repeated(
    study: Study, tiny: AceStep15, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "loss_recovered", None)
    assert evaluate_sae(study, tiny, asked_evaluation(study, NAME, **OPTIONS)).identical(result)


def test_a_damaged_evaluation_is_repeated(study: Study, tiny: AceStep15, result: xr.Dataset) -> None:
    """Also where what it was computed with can still be read."""
    spec = asked_evaluation(study, NAME, **OPTIONS)
    file = study.path / "results" / f"{spec.result_name}.nc"
    file.write_bytes(result_bytes(result.assign_coords(step=[0] * result.sizes["step"])))
    with pytest.raises(DamagedResult):
        study.result(spec.result_name)
    assert evaluate_sae(study, tiny, spec, note=lambda _: None).equals(result)


def test_a_transcoder_is_judged_by_the_site_that_it_reconstructs(
    evaluated_study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    """Its output is put at that site, read in the same call; features are edited there, too."""
    study = Study.open(Path(shutil.copytree(evaluated_study.path, tmp_path / "study")))
    options = {"train_steps": 30, "batch_size": 16, "held_out_fraction": 0.5, "target_site": WRITTEN}
    (spec,) = asked_trainings(study, [SITE], "batchtopk_transcoder", **options)
    run_sae(study, spec, name="across")
    result = evaluate_sae(
        study, tiny, asked_evaluation(study, "across", pairs=2, clips=2), note=lambda _: None
    )
    sae, trained = load_sae(study, "across"), study.result("sae-across")
    held_out = trained.attrs["held_out_clips"].tolist()
    mean = torch.from_numpy(study.cache.read(WRITTEN, clips=held_out, passes=["cond"])[:, 1]).mean((0, 1, 2))
    errors = []
    for row in study.clips.set_index("clip").loc[held_out[:2]].itertuples():
        clip = Clip(row.prompt, int(row.seed))
        edits = [
            patch_reconstruction(sae, WRITTEN, SELF, passes=("cond",)),
            replacements(sae, WRITTEN, "cond", {1: mean})["mean"][0],
        ]
        runs = [Run(clip), *(Run(clip, (edit,), follows=Run(clip)) for edit in edits)]
        v, *others = tiny.generate_batch(runs, study.spec.settings, velocity_steps=(1,)).velocities[1]
        errors.append([float((other - v).square().mean()) for other in others])
    found = result["velocity_error"].sel(replacement=["reconstruction", "mean"], step=1).values
    assert found == pytest.approx(np.mean(errors, axis=0), rel=1e-3)
    assert_kept_by_hand(study, tiny, result, patch_reconstruction(sae, WRITTEN, SELF, passes=("cond",)))
    chosen = {"mood=sad": [FeatureSet(((3,),))]}
    effects = asked_effects(study, "across", ignore_gate=True)
    (arm, _) = feature_effects._arms([Used("across", sae, trained)], chosen, effects)["mood=sad"]
    assert {edit.sites for edit in arm.edits} == {(WRITTEN,)}


def test_the_mean_is_that_of_all_clips_and_tokens() -> None:
    acts = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    means = step_means(list(acts), [0, 7])
    assert list(means) == [0, 7]
    assert_close(means[7], torch.from_numpy(acts[:, 1].reshape(-1, 4).mean(axis=0)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("none", {}, "no sparse autoencoder named 'none'"),
        (NAME, {"against": ["none"]}, "no sparse autoencoder named 'none'"),
        (NAME, {"against": [NAME]}, f"'{NAME}' has the decoder of '{NAME}'"),
        (NAME, {"pairs": -1}, "pairs must be at least 0"),
        (NAME, {"sampels": 1}, "sampels"),
    ],
)
def test_what_cannot_be_asked_for(
    evaluated_study: Study, name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        asked_evaluation(evaluated_study, name, **options)


def test_the_tables_say_what_the_result_has(result: xr.Dataset) -> None:
    steps = evaluation_summary(result)
    assert steps["step"].tolist() == ["0", "1", "2"]
    assert steps["gate"].tolist() == ["closed" if closed else "open" for closed in result["gated"].values]
    recovered = result["loss_recovered"].sel(ablation="zero", step=1).item()
    assert steps["loss recovered, zero"][1].startswith(fixed(recovered))
    kept = kept_summary(result)
    assert kept["concept"].tolist() == list(result["concept"].values)
    shared = stability_summary(result)
    assert shared["autoencoder"].tolist() == [OTHER]
    assert shared["cosine above 0.7"][0] == percent(result["matched_share"].sel(threshold=0.7).item())
    assert not len(kept_summary(result.drop_vars("score_kept")))
    assert not len(stability_summary(result.drop_vars("matched_share")))
