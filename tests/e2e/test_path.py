"""The whole path through the command line, on `organism-split`: prompts to a figure for a paper."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.cli import Workbench, workbench
from workbench.audio import read_audio
from workbench.study import Study

__all__ = ["workbench"]

SITE = "tf4.cross_attn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("path") / "study"


def test_trace(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "trace", "organism-split", "--out", folder, "--n-prompts", "24", "--seeds", "1",
        "--site", "tf3.cross_attn", "--site", SITE, "--steps", "2,5", "--passes", "cond,null",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    study = Study.open(folder)
    assert study.cache.read(SITE).shape == (24, 2, 2, 50, 96)
    audio, rate = read_audio(study.audio_path(7))
    assert rate == 16000
    assert audio.shape == (1, 64000)
    assert np.abs(audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    spectrum = np.abs(np.fft.rfft(audio[0]))
    assert spectrum[200 * 4 : 4000 * 4].sum() > 0.5 * spectrum.sum(), "music, not rumble or hiss"


def test_patch(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("patch", folder, "--concept", "mood", "--pairs", "2", "--seeds", "1")
    assert outcome.code == 0, outcome
    impact = Study.open(folder).result("patching").impact.sel(concept="mood")
    assert str(impact.drop_sel(arm=["clean", "all"]).idxmax("arm").item()) == "tf4"
    again = workbench("patch", folder, "--concept", "mood", "--pairs", "2", "--seeds", "1")
    assert "done already" in again.err


def test_probe(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("probe", folder, "--concept", "mood", "--concept", "drums", "--folds", "4")
    assert outcome.code == 0, outcome
    accuracy = Study.open(folder).result("probes").accuracy_mean
    assert float(accuracy.sel(concept="mood", site=SITE).max()) > 0.9, "mood is written at tf4"
    assert float(accuracy.sel(concept="drums", site="tf3.cross_attn").max()) > 0.9, "drums are written at tf3"


def test_sae(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("sae", folder, "--site", SITE, "--expansion", "2", "--k", "8", "--train-steps", "200")
    assert outcome.code == 0, outcome
    result = Study.open(folder).result(f"sae-{SITE}")
    assert float(result.final_explained_variance) > 0.5
    assert 0 < float(result.final_l0) <= 8
    best = result.auroc.sel(value="mood=happy").max()
    assert float(best) > 0.9, "some feature tells happy from sad"


@pytest.mark.parametrize(
    ("figure", "fmt", "start"),
    [("patching", "pdf", b"%PDF"), ("probes", "svg", b"<?xml"), ("patching", "png", b"\x89PNG")],
)
def test_export(
    workbench: Workbench, folder: Path, tmp_path: Path, figure: str, fmt: str, start: bytes
) -> None:
    outcome = workbench("export", folder, "--figure", figure, "--format", fmt, "--out", tmp_path)
    assert outcome.code == 0, outcome
    files = {file.suffix: file for file in map(Path, outcome.out.split())}
    assert files[f".{fmt}"].read_bytes().startswith(start)
    assert len(pd.read_csv(files[".csv"])) > 4
    facts = json.loads(files[".json"].read_text())
    assert Study.open(folder).result(figure).attrs["result_id"] in json.dumps(facts)
