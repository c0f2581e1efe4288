"""The lab with an organism: clips in the run store, scores, refusals, and code that makes the same clips."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from analyses.lab.code import as_command, as_python
from analyses.lab.facts import FILE
from analyses.lab.folder import lab_study
from analyses.lab.lab import Lab, Rendered, plan
from analyses.lab.request import LabRequest, request_of
from analyses.lab.scores import Scores
from analyses.sae.names import sae_folder
from analyses.steering.caa import caa
from analyses.steering.slider import Factors, Slider, linear_sites
from analyses.steering.study_files import pack_file, slider_file
from analyses.steering.study_packs import save_pack
from analyses.steering.text_embedding import text_embedding
from analyses.steering.vector import load_vector
from cache.errors import UserError
from tests.e2e.cli import Workbench, workbench
from tests.tolerances import AUDIO_STEP, difference
from tests.workbench.sae.random_sae import random_sae
from workbench.audio import read_audio
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.engine.tensors import HashedTensor
from workbench.models.ace_step import AceStep15
from workbench.sae.folder import save_folder
from workbench.sae.gate import Gate, set_gate
from workbench.studies.study import Study

__all__ = ["workbench"]

PROMPT, OTHER = "a slow sad piano song without drums", "a fast happy piano song without drums"
SETTINGS = {"duration": 2.0, "num_steps": 4}
EDITS: list[dict[str, Any]] = [
    {"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": OTHER, "steps": [0, 2], "segments": ["text"]},
    {"kind": "ablate", "sites": ["tf6.mlp"], "method": "mean", "prompt": OTHER, "tokens": [0, 4]},
    {"kind": "steer", "pack": "mood", "strength": 2.0, "steps": [1, 3], "tokens": [0, 9]},
    {"kind": "feature", "sae": "own", "feature": 1, "sites": ["tf1.cross_attn"], "mode": "inject"},
    {"kind": "ablate", "sites": ["tf0.block"], "on": False},
]
OTHERS: list[dict[str, Any]] = [
    {"kind": "slider", "slider": "mood", "strength": 0.5, "steps": [0, 1]},
    {"kind": "prompt", "method": "free-sliders", "positive": OTHER, "negative": PROMPT, "sites": ["tf3.cross_attn"]},
    {"kind": "prompt", "method": "text-embedding", "positive": OTHER, "negative": PROMPT, "strength": 0.5},
    {"kind": "prompt", "method": "pci", "positive": OTHER, "negative": PROMPT, "sites": ["tf4.cross_attn"]},
    {"kind": "steer", "pack": "mood", "sites": ["*.cross_attn"], "passes": "cond_on_both", "operation": "clamp"},
    {"kind": "patch", "sites": ["*.mlp", "tf0.self_attn"], "prompt": OTHER, "target": "output", "steps": [3, 3]},
]  # fmt: skip
GATED = {"kind": "feature", "sae": "gated", "feature": 1, "sites": ["tf1.cross_attn"]}


@pytest.fixture(scope="module")
def study(organism_shared: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of the lab with a vector and two autoencoders, one of which is closed at step 3."""
    study = lab_study(organism_shared, tmp_path_factory.mktemp("lab") / "a study", settings=SETTINGS)
    settings = GenerationSettings(duration=2.0, num_steps=4)
    vector = caa(organism_shared, "mood", "tf4.cross_attn", pairs=2, settings=settings)
    save_pack(study.path, "mood", vector)
    huge = {site: directions * 1e38 for site, directions in vector.directions.items()}
    save_pack(study.path, "huge", replace(vector, directions=huge, raw_norms={}))
    slider_of(organism_shared, settings).save(slider_file(study.path, "mood"), study.path)
    sae = random_sae(d_in=organism_shared.channels(Site.parse("tf1.cross_attn")))
    save_folder(sae, sae_folder(study, "own"))
    sigmas = tuple(organism_shared.sigmas(settings))
    set_gate(sae, Gate(steps=(3,), sigmas=sigmas[3:], explained_variance=(0.1,), loss_recovered=(None,)))
    save_folder(sae, sae_folder(study, "gated"))
    return study


def slider_of(model: AceStep15, settings: GenerationSettings) -> Slider:
    """A small slider of one module's weights."""
    site = Site.parse("tf2.cross_attn.q")
    module = next(name for name, found in linear_sites(model).items() if found == site)
    linear = model.linear(site)
    down, up = np.full((1, linear.in_features), 0.01), np.full((linear.out_features, 1), 0.5)
    return Slider(
        concept="mood",
        positive="happy",
        negative="sad",
        factors={str(site): Factors(module, HashedTensor.of(down), HashedTensor.of(up))},
        alpha=1.0,
        model=model.describe(),
        settings=settings,
        sigmas=tuple(model.sigmas(settings)),
        training={},
    )


@pytest.fixture(scope="module")
def lab(organism_shared: AceStep15) -> Lab:
    return Lab(model=organism_shared)


def asked(*edits: dict[str, Any]) -> LabRequest:
    return request_of({"prompt": PROMPT, "seed": 5, "edits": edits})


def render(lab: Lab, study: Study, request: LabRequest) -> tuple[Rendered, list[str]]:
    told: list[str] = []
    return lab.render(study, request, lambda message, _: told.append(message)), told


@pytest.fixture(scope="module")
def rendered(lab: Lab, study: Study) -> tuple[Rendered, list[str]]:
    return render(lab, study, asked(*EDITS))


def audio(study: Study, file: str) -> np.ndarray:
    return read_audio(study.path / file)[0]


def test_clips_are_runs_of_the_study_and_are_made_once(
    lab: Lab, study: Study, rendered: tuple[Rendered, list[str]]
) -> None:
    clips, told = rendered
    assert told == [f"Denoising, step {step} of 4" for step in (1, 2, 3, 4)]
    store, runs = plan(study, asked(*EDITS))
    assert [record.audio for record in store.records(runs) if record] == [clips.unedited, clips.edited]
    assert difference(audio(study, clips.edited), audio(study, clips.unedited)) > 0.01
    assert render(lab, study, asked(*EDITS)) == (clips, [])
    plain, told = render(lab, study, asked(EDITS[-1]))
    assert (plain.edited, told) == (clips.unedited, []), "an edit that is off is none"


def test_clips_that_the_study_has_are_found_without_a_model(
    lab: Lab, study: Study, rendered: tuple[Rendered, list[str]]
) -> None:
    other = Lab()
    assert other.held(study, asked(*EDITS)) == rendered[0]
    assert other.held(study, asked(EDITS[0])) is None, "was not made"
    assert other.held(study, asked({"kind": "ablate", "sites": ["door"]})) is None


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "ablate", "sites": ["*.self_attn.q"], "tokens": [0, 0], "steps": [3, 3]},
        {"kind": "prompt", "method": "pci", "positive": OTHER, "negative": PROMPT},
        {"kind": "steer", "pack": "mood", "resample": True},
    ],
    ids=["at every block", "through the prompt", "at the nearest sigmas"],
)
def test_clips_that_depend_on_the_model_are_found_by_what_was_recorded_with_them(
    lab: Lab, study: Study, edit: dict[str, Any]
) -> None:
    request = asked(edit).model_copy(update={"seed": 6})
    made, _ = render(lab, study, request)
    assert Lab().held(study, request) == made
    (study.path / made.unedited).with_name(FILE).write_text('{"n_blocks": 7, "sigmas": [1.0]}')
    assert Lab().held(study, request) is None, "other edits"
    (study.path / made.unedited).with_name(FILE).write_text("{")
    assert (Lab().held(study, request), lab.held(study, request)) == (None, made), "unknown without the model"
    (study.path / made.unedited).with_name(FILE).unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"duration": 100.0}, "duration must be at most"),
        (
            {"edits": [{"kind": "ablate", "sites": ["tf3.mlp"], "steps": [3, 2]}]},
            "the lower one first; got 3 to 2",
        ),
        ({"edits": [{**OTHERS[2], "steps": [2, 9]}]}, "from 0 to 3, the lower one first; got 2 to 9"),
        ({"edits": [{"kind": "ablate", "sites": ["tf3.mlp"], "tokens": [5, 2]}]}, "[Tt]okens"),
        ({"edits": [{"kind": "ablate", "sites": ["door"]}]}, "'door' is not a site"),
        ({"edits": [{"kind": "ablate", "sites": ["*.*"]}]}, "stands for every block"),
        ({"edits": [{"kind": "ablate", "sites": ["*"]}]}, "stands for every block"),
        ({"edits": [{"kind": "steer", "pack": "none"}]}, "no steering vector 'none'"),
    ],
)
def test_what_is_impossible_is_refused_without_the_model(
    lab: Lab, study: Study, change: dict[str, Any], said: str
) -> None:
    request = request_of({"prompt": PROMPT, "seed": 8, **change})
    for each in (Lab(), lab):
        with pytest.raises(UserError, match=said):
            each.check(study, request)


def test_a_block_that_there_is_not_is_refused_as_soon_as_the_model_is_loaded(lab: Lab, study: Study) -> None:
    request = asked({"kind": "ablate", "sites": ["tf99.mlp"]}).model_copy(update={"seed": 8})
    with pytest.raises(UserError, match="tf99 does not exist; this model has tf0 to tf"):
        lab.check(study, request)
    Lab().check(study, request)  # not known yet
    lab.check(study, asked(*EDITS))


@pytest.mark.parametrize("edit", [EDITS[1], EDITS[2], EDITS[3]], ids=lambda edit: edit["kind"])
def test_tokens_that_the_clip_does_not_have_are_refused_as_soon_as_the_model_is_loaded(
    lab: Lab, study: Study, edit: dict[str, Any]
) -> None:
    last = 24
    lab.check(study, asked({**edit, "tokens": [5, last]}))
    with pytest.raises(UserError, match=f"must have tokens from 0 to {last}, as .*; got 5 to {last + 1}"):
        lab.check(study, asked({**edit, "tokens": [5, last + 1]}))


def test_a_prompt_is_switched_for_the_last_steps(study: Study, organism_shared: AceStep15) -> None:
    for strength, prompt, steps in ((3.0, OTHER, (1, 3)), (-1.0, PROMPT, (3, 3))):
        _, (_, run) = plan(study, asked({**OTHERS[3], "strength": strength}), organism_shared)
        (edit,) = run.edits
        assert (edit.sources, edit.window.steps) == ((Run(Clip(prompt, 5)),), steps)


def test_a_trial_finds_the_runs_of_prompt_edits(lab: Lab, study: Study, organism_shared: AceStep15) -> None:
    method = text_embedding(organism_shared, "mood", settings=study.spec.settings)
    _, runs = plan(study, asked(OTHERS[2]), organism_shared)
    assert runs[1].edits == method.at(0.5, positive=Clip(OTHER, 5), negative=Clip(PROMPT, 5))


def test_every_judge_hears_both_clips(
    lab: Lab, study: Study, rendered: tuple[Rendered, list[str]], monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "analyses.lab.scores.ALWAYS", ("embedded",)
    )  # the others have tests of their own, and are slow
    told: list[str] = []
    heard = lab.score(study, asked(*EDITS), lambda message, _: told.append(message))
    assert told == ["Scoring"], "one judge"
    places = {(each.reading.judge, each.reading.concept, each.reading.value) for each in heard.scores}
    assert {("embedded", "mood", "happy"), ("embedded", "tempo", "fast")} <= places
    assert {judge for judge, *_ in places} == {"embedded"}
    of_mood = [each for each in heard.scores if each.reading.concept == "mood"]
    assert sum(each.edited or 0 for each in of_mood) == pytest.approx(1)
    assert all(each.change is not None and abs(each.change) > 0 for each in of_mood)
    assert heard.distance is not None and heard.distance > 0
    unedited = lab.score(study, asked(), lambda *_: None)
    assert isinstance(unedited, Scores) and unedited.distance == 0
    assert {each.change for each in unedited.scores} == {0}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"kind": "ablate", "sites": ["tf99.mlp"]}, "Block tf99 does not exist"),
        ({"kind": "ablate", "sites": ["door"]}, "'door' is not a site"),
        ({"kind": "ablate", "sites": []}, "must have at least one site"),
        (
            {"kind": "ablate", "sites": ["tf1.mlp"], "tokens": [9000, 9001]},
            "at tf1.mlp must have tokens from 0 to 24",
        ),
        (
            {"kind": "ablate", "sites": ["tf3.cross_attn.k"], "tokens": [0, 999]},
            r"must have tokens from 0 to \d\d?, .*; got 0 to 999",
        ),
        ({"kind": "ablate", "sites": ["tf1.mlp"], "method": "mean"}, "Give that prompt"),
        ({**EDITS[0], "segments": ["door"]}, "Unknown conditioning segment 'door'"),
        ({"kind": "steer", "pack": "../door"}, r"has no steering vector '../door' \(it has huge, mood\)"),
        ({"kind": "steer", "pack": "mood", "sites": ["tf1.mlp"]}, "no direction at tf1.mlp"),
        ({"kind": "steer", "pack": "mood", "steps": [0, 4]}, "steps of 'mood' must be from 0 to 3"),
        (
            {"kind": "ablate", "sites": ["tf3.mlp"], "steps": [3, 99]},
            "steps of 'ablate' must be from 0 to 3",
        ),
        ({"kind": "slider", "slider": "../mood"}, r"has no concept slider '../mood' \(it has mood\)"),
        ({"kind": "slider", "slider": "mood", "steps": [0, 4]}, "steps of 'mood' must be from 0 to 3"),
        ({**OTHERS[3], "strength": 0.5}, "whole number of steps"),
        ({**OTHERS[3], "steps": [0, 1]}, "number of last steps"),
        ({**OTHERS[1], "sites": ["tf3.mlp"]}, "must be cross-attentions"),
        ({"kind": "ablate", "sites": ["*.door"]}, r"'\*\.door' is not a site"),
        ({**EDITS[3], "sae": "../door"}, "no sparse autoencoder named '../door'"),
        ({**EDITS[3], "feature": 20}, "20"),
        (GATED, "may not be used at step 3"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(
    lab: Lab, study: Study, edit: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        render(lab, study, asked(edit))


def test_a_closed_gate_is_ignored_if_asked_for(lab: Lab, study: Study) -> None:
    assert render(lab, study, asked({**GATED, "ignore_gate": True}))[0].edited
    assert render(lab, study, asked({**GATED, "steps": [0, 2]}))[0].edited, "the gate is open there"


def test_settings_and_numbers_that_overflow_are_told(lab: Lab, study: Study) -> None:
    with pytest.raises(UserError, match="at most 4 s, twice that of the study's clips; got 5"):
        render(lab, study, asked().model_copy(update={"duration": 5.0}))
    for _ in range(2):  # also when it is in the store
        with pytest.raises(UserError, match="became NaN or infinite"):
            render(lab, study, asked({"kind": "steer", "pack": "huge", "strength": 1000}))


def test_a_vector_is_fitted_to_other_steps(lab: Lab, study: Study, organism_shared: AceStep15) -> None:
    edit = {"kind": "steer", "pack": "mood", "resample": True}
    longer = asked(edit).model_copy(update={"steps": 5})
    with pytest.raises(UserError, match="steps"):
        render(lab, study, asked({**edit, "resample": False}).model_copy(update={"steps": 5}))
    _, (_, run) = plan(study, longer, organism_shared)
    sigmas = organism_shared.sigmas(longer.settings(study.spec.settings))
    assert run.edits == load_vector(pack_file(study.path, "mood")).resampled(sigmas).at(1.0)
    assert ".resampled(model.sigmas(settings)).at(1.0)" in as_python(study, longer)


@pytest.mark.parametrize("edits", [EDITS, OTHERS], ids=["first", "others"])
def test_command_and_python_make_the_same_clip(
    lab: Lab,
    study: Study,
    edits: list[dict[str, Any]],
    workbench: Workbench,
    monkeypatch: MonkeyPatch,
    tmp_path: Path,
) -> None:
    expected = audio(study, render(lab, study, asked(*edits))[0].edited)
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(as_command(study, asked(*edits)))
    outcome = workbench(*arguments)
    assert (name, outcome.code) == ("workbench", 0), outcome
    by_command = read_audio(tmp_path / "clip.flac")[0]
    assert difference(by_command, expected) <= 2 * AUDIO_STEP / np.abs(expected).max()
    (tmp_path / "clip.flac").unlink()
    exec(as_python(study, asked(*edits)), {})
    by_python = read_audio(tmp_path / "clip.flac")[0]
    assert difference(by_python, expected) <= 2 * AUDIO_STEP / np.abs(expected).max()


def test_the_command_refuses_what_it_would_ignore(
    study: Study,
    workbench: Workbench,
    tmp_path: Path,
) -> None:
    outcome = workbench("lab", "organism-shared", "--out", study.path, "--duration", "3")
    assert outcome.code == 2 and "has its own prompts and settings" in outcome.err
    outcome = workbench("lab", "nonsense", "--out", tmp_path / "new")
    assert outcome.code == 2 and "Unknown model 'nonsense'" in outcome.err
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_model_or_with_wrong_settings_is_refused(
    organism_shared: AceStep15, organism_split: AceStep15, study: Study, tmp_path: Path
) -> None:
    assert lab_study(organism_shared, study.path).spec == study.spec
    with pytest.raises(UserError, match="is of organism-shared, not of organism-split"):
        lab_study(organism_split, study.path)
    with pytest.raises(UserError, match="num_steps must be at least 1"):
        lab_study(organism_shared, tmp_path / "new", settings={"num_steps": 0})
    assert not (tmp_path / "new").exists()
