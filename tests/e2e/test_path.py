"""The whole path through the command line, on `organism-split`: prompts to a figure for a paper."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.cli import Workbench, workbench
from workbench.audio import read_audio
from workbench.studies.study import Study

__all__ = ["workbench"]

SITE = "tf4.cross_attn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("path") / "study"


def test_trace(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "trace", "organism-split", "--out", folder, "--n-prompts", "24", "--seeds", "1",
        "--site", "tf3.cross_attn", "--site", SITE, "--steps", "2,5", "--passes", "cond,null", "--duration", "2",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert "has 24 clips of 24 prompts, 2 sites × 2 steps" in outcome.out
    assert f"  workbench patch {folder}\n" in outcome.out
    study = Study.open(folder)
    assert study.cache.read(SITE).shape == (24, 2, 2, 25, 96)
    audio, rate = read_audio(study.audio_path(7))
    assert rate == 16000
    assert audio.shape == (1, 32000)
    assert np.abs(audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    spectrum = np.abs(np.fft.rfft(audio[0]))
    assert spectrum[200 * 2 : 4000 * 2].sum() > 0.5 * spectrum.sum(), "music, not rumble or hiss"


MAP = ("--concept", "mood", "--pairs", "2", "--seeds", "1")


def test_patch(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("patch", folder, *MAP, "--null", "unrelated")
    assert outcome.code == 0, outcome
    impact = Study.open(folder).result("patching-blocks").impact.sel(concept="mood", scorer="embedded")
    for direction in ("sufficiency", "necessity"):
        cells = impact.sel(arm=(impact.direction == direction) & (impact.role == "cell"))
        assert cells.row.sel(arm=cells.idxmax("arm").item()).item() == "tf4"
    assert re.search(r"mood +sufficiency +tf4 +1\.00 \[", outcome.out)
    assert f"workbench export {folder} --figure patching\n" in outcome.out
    again = workbench("patch", folder, *MAP, "--null", "unrelated")
    assert again.code == 0, again
    assert again.out == outcome.out, "the result is shown again"
    assert "The map patching-blocks is done already." in " ".join(again.err.split())


def test_patch_by_steps(workbench: Workbench, folder: Path) -> None:
    """Of a map with a name of its own; the clean and the corrupt run are those of the other map."""
    outcome = workbench(
        "patch", folder, *MAP, "--question", "steps", "--windows", "2", "--name", "when", "--block", "tf4"
    )
    assert outcome.code == 0, outcome
    study = Study.open(folder)
    steps = study.result("patching-when")
    assert list(steps.arm.values) == ["clean", "corrupt", "tf4 steps 0–3", "tf4 steps 4–7"]
    assert steps.attrs["question"] == "steps"
    runs = study.result("patching-blocks").audio.sel(arm=["clean", "corrupt"])
    np.testing.assert_array_equal(steps.audio.sel(arm=["clean", "corrupt"]).values, runs.values)
    impact = steps.impact.sel(concept="mood", scorer="embedded")
    early, late = (float(impact.sel(arm=f"tf4 steps {steps}")) for steps in ("0–3", "4–7"))
    assert early < 0.1
    assert late > 0.6, "in one of the two pairs, early steps contribute too"


@pytest.mark.parametrize("method", ["velocity", "attribution"])
def test_patch_what_a_screening_finds(workbench: Workbench, folder: Path, method: str) -> None:
    """On other pairs: runs that the study holds already are in every map."""
    screening = ("--screen", method, "--screen-pairs", "1", "--top", "1", "--sample", "3")
    seed = {"velocity": 3, "attribution": 6}[method]
    outcome = workbench("patch", folder, *MAP, *screening, "--name", method, "--seed", seed)
    assert outcome.code == 0, outcome
    result = Study.open(folder).result(f"patching-{method}").sel(concept="mood")
    assert result.screen.idxmax("arm").item() == "tf4", "mood is written at tf4"
    run = result.score.isel(scorer=0).notnull().all(("pair", "seed"))
    assert bool(run.sel(arm="tf4"))
    assert int(run.sum()) == 2 + 1 + 3
    assert int(result.screen.notnull().sum()) == 8
    assert json.loads(result.attrs["screened"])["method"] == method


def test_patch_arms_of_a_file_and_pairs_of_a_file(workbench: Workbench, folder: Path, tmp_path: Path) -> None:
    arms, pairs = tmp_path / "arms.json", tmp_path / "pairs.csv"
    arms.write_text(Study.open(folder).result("patching-when").attrs["arms"], encoding="utf-8")
    pairs.write_text(
        "original_feature,clean_prompt,corrupted_prompt\n"
        "happy,a slow happy violin song with drums,a slow sad violin song with drums\n",
        encoding="utf-8",
    )
    outcome = workbench("patch", folder, "--arms", arms, "--pairs-file", pairs, "--pairs", "1")
    assert outcome.code == 0, outcome
    result = Study.open(folder).result("patching-custom")
    assert list(result.arm.values) == ["clean", "corrupt", "tf4 steps 0–3", "tf4 steps 4–7"]
    assert result.corrupt_prompt.values.tolist() == [["a slow sad violin song with drums"]]
    assert result.score.notnull().all()


def test_probe(workbench: Workbench, folder: Path) -> None:
    outcome = workbench("probe", folder, "--concept", "mood", "--concept", "drums", "--folds", "4")
    assert outcome.code == 0, outcome
    assert re.search(rf"mood +{re.escape(SITE)} ", outcome.out)
    accuracy = Study.open(folder).result("probes").accuracy_mean
    assert float(accuracy.sel(concept="mood", site=SITE).max()) > 0.9, "mood is written at tf4"
    assert float(accuracy.sel(concept="drums", site="tf3.cross_attn").max()) > 0.9, "drums are written at tf3"


def test_sae(workbench: Workbench, folder: Path) -> None:
    outcome = workbench(
        "sae", "train", folder, "--site", SITE, "--expansion", "2", "--k", "8", "--train-steps", "200"
    )
    assert outcome.code == 0, outcome
    assert "explained variance" in outcome.out
    assert f"workbench export {folder} --figure sae-training --option name={SITE}" in outcome.out
    result = Study.open(folder).result(f"sae-{SITE}")
    assert float(result.final_explained_variance) > 0.5
    assert 0 < float(result.final_l0) <= 8
    best = result.auroc.sel(value="mood=happy").max()
    assert float(best) > 0.9, "some feature tells happy from sad"


@pytest.mark.parametrize(
    ("figure", "options", "result", "fmt", "start"),
    [
        ("patching", (), "patching-blocks", "pdf", b"%PDF"),
        ("patching", ("name=when",), "patching-when", "png", b"\x89PNG"),
        ("probes", (), "probes", "svg", b"<?xml"),
    ],
    ids=["blocks", "steps", "probes"],
)
def test_export(
    workbench: Workbench,
    folder: Path,
    tmp_path: Path,
    figure: str,
    options: tuple[str, ...],
    result: str,
    fmt: str,
    start: bytes,
) -> None:
    chosen = [word for option in options for word in ("--option", option)]
    outcome = workbench("export", folder, "--figure", figure, *chosen, "--format", fmt, "--out", tmp_path)
    assert outcome.code == 0, outcome
    files = {file.suffix: file for file in map(Path, outcome.out.split())}
    assert files[f".{fmt}"].read_bytes().startswith(start)
    assert len(pd.read_csv(files[".csv"])) > 1
    facts = json.loads(files[".json"].read_text())
    assert Study.open(folder).result(result).attrs["result_id"] in json.dumps(facts)
