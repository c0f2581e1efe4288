"""A whole small study of an ACE-Step v1 folder through the command line, up to the dashboard's pages."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.steering.study_files import pack_file
from analyses.steering.vector import load_vector
from tests.e2e.cli import Workbench, without, workbench
from tests.e2e.small_study import audio_of, check_dashboard, check_probe, check_sae, check_steering
from tests.tiny_ace_step_v1 import save_tiny_v1
from tests.tolerances import AUDIO_STEP, difference
from tests.workbench.artefacts.builders import write_sae
from tests.workbench.models.ace_step_v1.tiny_lyrics import write_vocabulary
from workbench.artefacts.sae_folder import read_sae
from workbench.audio import read_audio
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.sae.folder import save_folder
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


def test_a_published_autoencoder_is_judged_shown_and_steered(
    workbench: Workbench, folder: Path, tmp_path: Path
) -> None:
    """One in the layout of TADA's for this model: a feature for either sign of each channel, so that nothing is lost.

    The same with SAELens' layout and a poor decoder is closed by its gate.
    """
    both = torch.cat([torch.eye(32), -torch.eye(32)])
    weights = {
        "encoder.weight": both, "encoder.bias": torch.zeros(64), "W_dec": both.clone(), "b_dec": torch.zeros(32),
    }  # fmt: skip
    published = write_sae(
        tmp_path / "ace-step-sae-tf1-cross-attn", weights, k=32, d_in=32, expansion_factor=2
    )
    poor = read_sae(str(published)).sae
    poor.W_dec.data.mul_(-1)
    save_folder(poor, tmp_path / "saelens")
    study = Path(shutil.copytree(folder, tmp_path / "study"))
    for made in ("sae", "packs"):  # by the tests above
        shutil.rmtree(study / made, ignore_errors=True)

    def run(*command: object, code: int = 0) -> str:
        outcome = workbench(*command)
        assert outcome.code == code, outcome
        return " ".join((outcome.out if code == 0 else outcome.err).split())

    run("sae", "import", published, "--study", study)
    run("sae", "import", tmp_path / "saelens", "--study", study, "--site", SITE, "--name", "poor")
    run("sae", "evaluate", study, SITE, "--pairs", "0", "--clips", "2")
    recovered = Study.open(study).result(f"evaluation-{SITE}").loss_recovered.sel(ablation="mean")
    assert recovered.values == pytest.approx(np.ones(2), abs=1e-3)
    assert "mood" in run("sae", "features", study, SITE)
    fit = (
        "steer",
        "fit",
        study,
        "--concept",
        "mood",
        "--method",
        "sae-features",
        "--sites",
        "tf1",
        "--k",
        "2",
    )
    run(*fit, "--pairs", "2", "--check-pairs", "0")
    vector = load_vector(pack_file(study, "mood"))
    assert [(sae.name, sae.closed) for sae in vector.saes] == [(SITE, ())]
    rows = np.abs(vector.directions[SITE].values).sum(axis=-1)
    assert rows.max() <= 2 and (rows > 0).any(), "a sum of up to two decoder rows"
    (study / "sae" / SITE).rename(tmp_path / "good")
    again = (*fit, "--name", "other", "--pairs", "2", "--check-pairs", "0")
    assert "may not be used at step 0" in run(*again, code=2)
    run(*again, "--ignore-gate")
    few = ("--pairs", "1", "--random", "0", "--strength", "2")
    apply = ("steer", "apply", study, "--pack", "mood", "--pack", "other", *few)
    assert "(ignore_gate=True, --ignore-gate)" in run(*apply, code=2)
    other = load_vector(pack_file(study, "other"))
    clip, opened = Clip("a slow sad song", 0), Study.open(study)
    runs = [Run(clip, edits) for edits in ((), vector.at(2.0), other.at(2.0, ignore_gate=True))]
    plain, *steered = opened.load_model().generate_batch(runs, opened.spec.settings).latents
    assert all(difference(each, plain) > 1e-2 for each in steered)


def test_the_dashboard_opens_the_study(folder: Path) -> None:
    check_dashboard(folder)
