"""Helpers for small studies of random models: prompts, audio of arms, and checks that apply to all of them."""

from pathlib import Path

import numpy as np
import xarray as xr

from analyses.steering.study_packs import load_packs
from dashboards.app import create_app
from dashboards.context import Context
from dashboards.media import audio_url
from dashboards.pages import PAGES
from tests.e2e.cli import Workbench
from tests.tolerances import AUDIO_STEP, difference
from workbench.audio import read_audio
from workbench.studies.study import Study

PROMPTS = """
templates:
  - "a {tempo} {mood} {instrument} song {drums}"
concepts:
  instrument: {violin: violin, flute: flute, piano: piano}
  tempo: {slow: slow, fast: fast}
  mood: {happy: happy, sad: sad}
  drums: {with drums: with drums, without drums: without drums}
"""


def audio_of(folder: Path, arm: str, name: str = "patching-blocks") -> np.ndarray:
    """An arm's audio (channel, sample) for the first pair in a map of mood."""
    study = Study.open(folder)
    file = study.result(name).audio.sel(concept="mood", arm=arm).isel(pair=0, seed=0).item()
    return read_audio(study.path / str(file))[0]


def check_probe(workbench: Workbench, folder: Path, site: str) -> None:
    """Check that a probe decodes the mood from a cross-attention, where the prompt enters."""
    outcome = workbench("probe", folder, "--concept", "mood", "--folds", "4")
    assert outcome.code == 0, outcome
    accuracy = Study.open(folder).result("probes").accuracy_mean
    assert float(accuracy.sel(concept="mood", site=site).max()) > 0.9, "the prompt's word is in what it reads"


def check_sae(workbench: Workbench, folder: Path, site: str) -> None:
    """Check that a site's autoencoder is trained, sparse, and better than the mean."""
    outcome = workbench(
        "sae", "train", folder, "--site", site, "--expansion", "2", "--k", "8", "--train-steps", "200"
    )
    assert outcome.code == 0, outcome
    result = Study.open(folder).result(f"sae-{site}")
    assert 0 < float(result.final_l0) <= 8
    assert float(result.final_explained_variance) > 0


def check_steering(workbench: Workbench, folder: Path) -> None:
    """Check that a vector of mood is computed, steers new prompts, and is compared with patches of all blocks."""
    of_mood = ("--concept", "mood", "--sites", "all")
    few = ("--pairs", "1", "--random", "1")
    for command in (
        ("fit", folder, *of_mood, "--pairs", "3", "--check-pairs", "0"),
        ("apply", folder, "--pack", "mood", *few, "--strength", "-1", "--strength", "2"),
        ("ladder", folder, *of_mood, "--fit-pairs", "2", *few, "--strength", "1", "--ignore-gate"),
    ):
        outcome = workbench("steer", *command)
        assert outcome.code == 0, outcome
    study = Study.open(folder)
    steered, ladder = study.result("steering-mood"), study.result("steering-ladder-mood")
    prompts = {example.prompt for example in load_packs(folder)["mood"].examples}
    assert len(prompts) == 6 and prompts.isdisjoint(steered.corrupt_prompt.values)
    assert steered.arm.values[2:].tolist() == [
        "mood × -1", "mood × 2", "random 1 (like mood) × -1", "random 1 (like mood) × 2",
    ]  # fmt: skip

    def heard(result: xr.Dataset, arm: str) -> np.ndarray:
        return read_audio(study.path / str(result.audio.sel(arm=arm).values[0, 0]))[0]

    clips = {arm: heard(steered, arm) for arm in steered.arm.values}
    for arm in steered.arm.values[2:]:
        assert difference(clips[arm], clips["corrupt"]) > 2 * AUDIO_STEP, arm
    patched = heard(ladder, "conditioning patch × 1")
    assert difference(patched, heard(ladder, "clean")) < AUDIO_STEP, "all blocks read the other prompt"


def check_dashboard(folder: Path) -> None:
    """Check that every page shows the finished study, without missing results, and that its audio is served."""
    study = Study.open(folder)
    context = Context(study)
    for page in filter(lambda page: page.is_linked(context), PAGES):
        shown = str(page.show(context, {}))
        assert page.sentence in shown
        assert "workbench patch " not in shown, "nothing is missing"
    client = create_app(folder).server.test_client()
    assert client.get("/").status_code == 200
    assert client.get(audio_url("audio/clips/00007.flac")).mimetype == "audio/flac"
