"""A whole small study of an ACE-Step v1 folder through the command line, up to the dashboard's pages."""

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.cli import Workbench, without, workbench
from tests.e2e.small_study import audio_of, check_dashboard, check_probe, check_sae, check_steering
from tests.tiny_ace_step_v1 import save_tiny_v1
from tests.tolerances import AUDIO_STEP
from tests.workbench.models.ace_step_v1.tiny_lyrics import write_vocabulary
from workbench.audio import read_audio
from workbench.studies.study import Study

__all__ = ["workbench"]

SITE = "tf1.cross_attn"
FRAMES = 26  # of 2.5 s: whole ones only


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_v1(tmp_path_factory.mktemp("v1") / "ace-step-v1")
    write_vocabulary(folder / "lyric_tokenizer" / "vocab.json")
    return folder


@pytest.fixture
def traced(model: Path, folder: Path, prompts: Path) -> tuple[object, ...]:
    """The command that makes the study, with double guidance in the middle of the steps."""
    return (
        "trace", model, "--out", folder, "--prompts", prompts, "--n-prompts", "16", "--seeds", "1",
        "--site", SITE, "--site", "tf0.block", "--num-steps", "4", "--steps", "1,2", "--passes", "cond,text,null",
        "--duration", "2.5", "--guidance", "5", "--lyrics", "oh the end", "--dtype", "float32",
        "--option", "guidance_scale_text=5", "--option", "guidance_scale_lyric=1.5",
    )  # fmt: skip


def test_trace(workbench: Workbench, traced: tuple[object, ...], folder: Path) -> None:
    outcome = workbench(*traced)
    assert outcome.code == 0, outcome
    study = Study.open(folder)
    assert study.cache.read(SITE).shape == (16, 2, 3, FRAMES, 32)
    assert study.cache.plan.passes == ("cond", "text", "null")
    assert study.cache.plan.token_seconds == pytest.approx(4096 / 44100)
    audio, rate = read_audio(study.audio_path(7))
    assert rate == 48000
    assert audio.shape == (2, round(FRAMES * 4096 * 48000 / 44100))
    assert 0.01 < np.abs(audio).max() <= 1
    assert np.abs(audio[0] - audio[1]).max() > 0.01, "stereo"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--option", "omega=loud"), "omega must be a number, not 'loud'"),
        (("--option", "negative_prompt=noise"), "ACE-Step v1 has no option negative_prompt"),
        (
            ("--option", "cfg_interval_end=0.5"),
            "ACE-Step v1 has no option cfg_interval_end. Options: shift",
        ),
        (("--steps", "0,1"), "Step 0 runs only the cond pass"),
    ],
)
def test_settings_that_cannot_be(
    workbench: Workbench, traced: tuple[object, ...], tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    outcome = workbench(*without(traced, "--out", "--steps"), "--out", tmp_path / "none", *change)
    assert outcome.code == 2
    assert sentence in " ".join(outcome.err.split())
    assert not (tmp_path / "none").exists()


def test_patch(workbench: Workbench, folder: Path) -> None:
    """Both blocks together bring back the clean run, to the last sample; one alone does not."""
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--concept", "tempo", "--pairs", "2", "--set", "tf0+tf1",
        "--null", "random",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert Study.open(folder).result("patching-blocks").score.notnull().all()
    clean = audio_of(folder, "clean")
    assert np.abs(audio_of(folder, "tf0+tf1") - clean).max() <= AUDIO_STEP
    for other in ("corrupt", "tf1"):
        assert np.abs(audio_of(folder, other) - clean).max() > 10 * AUDIO_STEP


def test_patch_segments(workbench: Workbench, folder: Path) -> None:
    """The speaker is nobody in both runs; the text differs."""
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--pairs", "1", "--question", "conditioning",
        "--segment", "text", "--segment", "speaker", "--segment", "lyrics",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    corrupt, name = audio_of(folder, "corrupt"), "patching-conditioning"
    assert np.abs(audio_of(folder, "tf1 speaker", name) - corrupt).max() <= AUDIO_STEP
    assert np.abs(audio_of(folder, "tf1 lyrics", name) - corrupt).max() <= AUDIO_STEP
    assert np.abs(audio_of(folder, "tf1 text", name) - corrupt).max() > 10 * AUDIO_STEP


def test_steer(workbench: Workbench, folder: Path) -> None:
    check_steering(workbench, folder)


def test_probe(workbench: Workbench, folder: Path) -> None:
    check_probe(workbench, folder, SITE)


def test_sae(workbench: Workbench, folder: Path) -> None:
    check_sae(workbench, folder, SITE)


def test_the_dashboard_opens_the_study(folder: Path) -> None:
    check_dashboard(folder)
