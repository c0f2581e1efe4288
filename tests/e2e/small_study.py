"""Helpers for small studies of random models: prompts, audio of arms, and checks that apply to all of them."""

from pathlib import Path

import numpy as np

from dashboards.app import create_app
from dashboards.context import Context
from dashboards.media import audio_url
from dashboards.pages import PAGES
from tests.e2e.cli import Workbench
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
    outcome = workbench("sae", folder, "--site", site, "--expansion", "2", "--k", "8", "--train-steps", "200")
    assert outcome.code == 0, outcome
    result = Study.open(folder).result(f"sae-{site}")
    assert 0 < float(result.final_l0) <= 8
    assert float(result.final_explained_variance) > 0


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
