"""A whole small study of a Stable Audio Open pipeline through the command line, up to the dashboard's pages."""

from pathlib import Path

import numpy as np
import pytest

from dashboards.tables.features import features_frame
from dashboards.tables.patching import cells_frame
from dashboards.tables.probes import probes_frame
from tests.e2e.cli import Workbench, without, workbench
from tests.e2e.small_study import audio_of, check_dashboard, check_probe, check_sae, check_steering
from tests.tiny_stable_audio import FRAME_SECONDS, FRAMES, WIDTH, save_tiny_stable_audio
from tests.tolerances import AUDIO_STEP
from workbench.audio import read_audio
from workbench.studies.study import Study

__all__ = ["workbench"]

SITE = "tf1.cross_attn"
SECONDS = 2.0


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_audio(tmp_path_factory.mktemp("stable") / "audio")


@pytest.fixture
def traced(tiny_folder: Path, folder: Path, prompts: Path) -> tuple[object, ...]:
    """The command that makes the study."""
    return (
        "trace", tiny_folder, "--out", folder, "--prompts", prompts, "--n-prompts", "24", "--seeds", "1",
        "--site", SITE, "--site", "tf2.block", "--num-steps", "4", "--steps", "1,3", "--passes", "cond,null",
        "--duration", SECONDS, "--guidance", "5", "--option", "negative_prompt=low quality",
        "--dtype", "float32",
    )  # fmt: skip


def test_price(workbench: Workbench, traced: tuple[object, ...], folder: Path) -> None:
    outcome = workbench(*traced, "--dry-run")
    assert outcome.code == 0, outcome
    assert f"{FRAMES + 1} per clip" in " ".join(outcome.out.split())
    assert not folder.exists()


def test_trace(workbench: Workbench, traced: tuple[object, ...], folder: Path) -> None:
    outcome = workbench(*traced)
    assert outcome.code == 0, outcome
    study = Study.open(folder)
    assert study.spec.settings.options == {"negative_prompt": "low quality"}
    assert study.cache.read(SITE).shape == (24, 2, 2, FRAMES + 1, WIDTH)
    assert study.cache.plan.token_seconds == pytest.approx(FRAME_SECONDS)
    assert study.cache.plan.sigmas == pytest.approx((500 * (0.3 / 500) ** (1 / 3), 0.3))
    audio, rate = read_audio(study.audio_path(7))
    assert rate == 16000
    assert audio.shape == (2, round(SECONDS * 16000))
    assert np.abs(audio).max() > 0.01


def test_a_setting_of_another_model_is_refused(
    workbench: Workbench, traced: tuple[object, ...], tmp_path: Path
) -> None:
    outcome = workbench(*without(traced, "--out"), "--out", tmp_path / "none", "--option", "shift=1")
    assert outcome.code == 2
    assert "Stable Audio Open has no option shift" in " ".join(outcome.err.split())
    assert not (tmp_path / "none").exists()


def test_patch(workbench: Workbench, folder: Path) -> None:
    """All blocks together bring back the clean run, to the last sample; each alone does not."""
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--concept", "tempo", "--pairs", "2", "--set", "tf0+tf1+tf2",
        "--null", "random",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    result = Study.open(folder).result("patching-blocks")
    assert result.score.notnull().all()
    assert {"tf0", "tf1", "tf2"} <= set(result.arm.values)
    clean, corrupt = audio_of(folder, "clean"), audio_of(folder, "corrupt")
    assert np.abs(audio_of(folder, "tf0+tf1+tf2") - clean).max() <= AUDIO_STEP
    for other in (corrupt, audio_of(folder, "tf1")):
        assert np.abs(other - clean).max() > 10 * AUDIO_STEP


def test_patch_the_conditionings_segments(workbench: Workbench, folder: Path) -> None:
    """Both prompts are of clips of the same duration; their words differ."""
    outcome = workbench(
        "patch", folder, "--concept", "mood", "--pairs", "2", "--question", "conditioning",
        "--segment", "text", "--segment", "timing", "--segment", "swapped",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    corrupt = audio_of(folder, "corrupt")
    for block in ("tf0", "tf1", "tf2"):
        arms = {
            name: audio_of(folder, f"{block} {name}", "patching-conditioning")
            for name in ("timing", "text", "swapped")
        }
        assert np.abs(arms["timing"] - corrupt).max() <= AUDIO_STEP
        assert np.abs(arms["text"] - corrupt).max() > 10 * AUDIO_STEP
        assert np.abs(arms["swapped"] - corrupt).max() > 3 * AUDIO_STEP


def test_steer(workbench: Workbench, folder: Path) -> None:
    check_steering(workbench, folder)


def test_probe(workbench: Workbench, folder: Path) -> None:
    check_probe(workbench, folder, SITE)


def test_sae(workbench: Workbench, folder: Path) -> None:
    check_sae(workbench, folder, SITE)


def test_the_dashboard_opens_the_study(folder: Path) -> None:
    study = Study.open(folder)
    assert {row.arm for row in cells_frame(study.result("patching-blocks")).itertuples()} >= {
        "tf0",
        "tf1",
        "tf2",
    }
    assert set(probes_frame(study.result("probes"))["site"]) == {SITE, "tf2.block"}
    assert len(features_frame(study.result(f"sae-{SITE}"))) == 2 * WIDTH
    check_dashboard(folder)
