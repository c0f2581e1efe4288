"""What the small studies of random models share: prompts, and how their arms sound."""

from pathlib import Path

import numpy as np

from dashboards.app import create_app
from dashboards.media import audio_url
from dashboards.shell import PAGES
from workbench.audio import read_audio
from workbench.study import Study

STEP = 2**-15  # of 16-bit audio
PROMPTS = """
templates:
  - "a {tempo} {mood} {instrument} song {drums}"
concepts:
  instrument: {violin: violin, flute: flute, piano: piano}
  tempo: {slow: slow, fast: fast}
  mood: {happy: happy, sad: sad}
  drums: {with drums: with drums, without drums: without drums}
"""


def heard(folder: Path, arm: str, name: str = "patching-blocks") -> np.ndarray:
    """An arm's audio (channel, sample) in a map of mood, of the first pair."""
    study = Study.open(folder)
    file = study.result(name).audio.sel(concept="mood", arm=arm).isel(pair=0, seed=0).item()
    return read_audio(study.path / str(file))[0]


def check_dashboard(folder: Path) -> None:
    """Every page shows the finished study, with nothing left to be run, and its audio is served."""
    study = Study.open(folder)
    for page in PAGES:
        shown = str(page.layout(study, {}))
        assert page.SENTENCE in shown
        assert "workbench patch " not in shown, "nothing is missing"
    client = create_app(folder).server.test_client()
    assert client.get("/").status_code == 200
    assert client.get(audio_url("audio/clips/00007.flac")).mimetype == "audio/flac"
